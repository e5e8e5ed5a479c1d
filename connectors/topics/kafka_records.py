"""Kafka messages ↔ raw record batches.

The three headers of this project become columns, any others go to `extra_headers` (`connectors.topics.headers`). A whole
run of messages is turned at once, column by column; only a record whose headers are not exactly ours is looked at alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, Final

import numpy as np
import pyarrow as pa
from confluent_kafka import Message

from connectors.topics.headers import RAW_KEY, Header, from_json, to_json
from market.record import RAW_SCHEMA

_COLUMNS: Final = ("source", "received_us", "kind")
_NUMBER: Final = re.compile(rb"-?[0-9]{1,18}")
_NONE: Final[Sequence[Any]] = ()

Outgoing = tuple[str | bytes, bytes, list[Any]]
"""Key, payload, headers as the driver takes them: names with text or bytes."""


def to_batch(messages: Sequence[Message]) -> pa.RecordBatch:
    """Turn consecutive messages of one partition into a raw batch.

    Args:
        messages: without errors, ascending by offset, at least one.

    Returns:
        Shape: `RAW_SCHEMA`, one row a message. A message without a value has an empty payload, one without a key an empty key.
    """
    n = len(messages)
    found = [h or _NONE for h in map(Message.headers, messages)]
    headers = list(map(dict, found))
    source, received, kind = ([h.get(name) for h in headers] for name in _COLUMNS)
    keys = [k or b"" for k in map(Message.key, messages)]
    sources, kinds, key_column = _text(source), _text(kind), _text(keys)
    numbers = _numbers(received)
    extra: list[str | None] = [None] * n
    if sources is None or kinds is None or key_column is None or numbers is None:
        odd: Sequence[int] = range(n)
    else:
        in_columns = (
            sources.is_valid().to_numpy(False).astype(np.int64) + kinds.is_valid().to_numpy(False) + numbers.is_valid().to_numpy(False)
        )
        odd = np.flatnonzero(np.fromiter(map(len, found), np.int64, n) != in_columns).tolist()
    if len(odd):
        for i in odd:
            source[i], received[i], kind[i], keys[i], extra[i] = _one_by_one(found[i], keys[i])
        sources, kinds, key_column, numbers = _text(source), _text(kind), _text(keys), _numbers(received)
    times = np.fromiter((t for _, t in map(Message.timestamp, messages)), np.int64, n)
    columns = [
        pa.array(np.fromiter(map(Message.offset, messages), np.int64, n)),
        pa.array(np.maximum(times, 0) * 1_000),
        key_column,
        sources,
        numbers,
        kinds,
        pa.nulls(n, pa.string()) if not len(odd) else pa.array(extra, pa.string()),
        pa.array([v or b"" for v in map(Message.value, messages)], pa.binary()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=RAW_SCHEMA)


def _text(values: Sequence[bytes | str | None]) -> pa.Array | None:
    # None: one of them is not UTF-8.
    try:
        return pa.array(values, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        return None


def _numbers(values: Sequence[bytes | None]) -> pa.Array | None:
    # None: one of them is not a plain decimal number of at most 18 digits.
    matches = _NUMBER.fullmatch
    try:
        return pa.array([None if v is None else int(v) if matches(v) else _refuse() for v in values], pa.int64())
    except ValueError:
        return None


def _refuse() -> int:
    raise ValueError


def _one_by_one(headers: Sequence[Header], key: bytes) -> tuple[bytes | None, bytes | None, bytes | None, bytes, str | None]:
    # What fits goes to its column, the first of its name first; everything else is kept beside it.
    columns: dict[str, bytes | None] = dict.fromkeys(_COLUMNS)
    extra: list[Header] = []
    for name, value in headers:
        if name in columns and columns[name] is None and value is not None and _fits(name, value):
            columns[name] = value
        else:
            extra.append((name, value))
    if not _is_utf8(key):
        extra.append((RAW_KEY, key))
        key = key.decode(errors="backslashreplace").encode()
    return columns["source"], columns["received_us"], columns["kind"], key, to_json(extra)


def _fits(name: str, value: bytes) -> bool:
    return _NUMBER.fullmatch(value) is not None if name == "received_us" else _is_utf8(value)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def to_messages(batch: pa.RecordBatch) -> Iterator[Outgoing]:
    """Turn records in the append schema into keys, payloads and headers, in order.

    Raises:
        InvariantViolation: `extra_headers` is no JSON object of headers.
    """
    for start in range(0, batch.num_rows, _SLICE):
        piece = batch.slice(start, _SLICE)
        keys, sources, received, kinds, extras, payloads = (column.to_pylist() for column in piece.columns)
        if piece.column("extra_headers").null_count == piece.num_rows:
            extras = repeat(None)
        for key, source, received_us, kind, extra, payload in zip(keys, sources, received, kinds, extras, payloads):  # noqa: B905
            headers: list[Any] = [] if source is None else [("source", source)]
            if received_us is not None:
                headers.append(("received_us", b"%d" % received_us))
            if kind is not None:
                headers.append(("kind", kind))
            yield (key, payload, headers) if extra is None else _with_extra(key, payload, headers, from_json(extra))


_SLICE: Final = 10_000  # records held as Python objects at a time


def _with_extra(key: str | bytes, payload: bytes, headers: list[Any], extra: list[Header]) -> Outgoing:
    for name, value in extra:
        if name == RAW_KEY and value is not None and not _is_utf8(value):
            key = value
        else:
            headers.append((name, value))
    return key, payload, headers
