"""Kafka messages ↔ raw record batches.

The three headers of this project become columns, any others go to `extra_headers` (`connectors.topics.headers`). A whole
run of messages is turned at once, column by column; only a record whose headers are not exactly ours is looked at alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, Final

import numpy as np
import pyarrow as pa
from confluent_kafka import Message

from connectors.topics.headers import RAW_KEY, Header, from_json, to_json
from market.record import RAW_SCHEMA

_COLUMNS: Final = ("source", "received_us", "kind")
_FRAME_HEADERS: Final = 2
_BLANK: Final[list[Header]] = [("source", b""), ("received_us", b"0")]  # stands in for headers that are looked at by themselves
_MAX_DIGITS: Final = 18
_NUMBER: Final = re.compile(rb"-?[0-9]{1,18}")
_SECOND: Final = itemgetter(1)

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
    found = list(map(Message.headers, messages))
    keys = [k or b"" for k in map(Message.key, messages)]
    times = np.fromiter(map(_SECOND, map(Message.timestamp, messages)), np.int64, n)
    columns = [
        pa.array(np.fromiter(map(Message.offset, messages), np.int64, n)),
        pa.array(np.maximum(times, 0) * 1_000),
        *(_usual(found, keys) or _unusual(found, keys, range(n), [None] * n, [None] * n)),
        pa.array([v or b"" for v in map(Message.value, messages)], pa.binary()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=RAW_SCHEMA)


def _usual(found: Sequence[list[Header] | None], keys: list[bytes]) -> list[pa.Array] | None:
    # The columns key to extra_headers if almost all records have `source` and `received_us` in this order and nothing else,
    # as frames do; records with another number of headers are looked at one by one. None: it is not so. The same records
    # give the same columns either way.
    others = [i for i, h in enumerate(found) if h is None or len(h) != _FRAME_HEADERS]
    if 2 * len(others) > len(found):
        return None
    frames = list(found)
    for i in others:
        frames[i] = _BLANK
    names_sources, names_received = zip(*frames, strict=True)
    source_names, source = zip(*names_sources, strict=True)
    received_names, received = zip(*names_received, strict=True)
    n = len(found)
    if source_names.count("source") != n or received_names.count("received_us") != n or None in source or None in received:
        return None
    digits = b"".join(received)
    if not digits.isdigit() or max(map(len, received)) > _MAX_DIGITS or b"" in received:
        return None
    if others:
        return _unusual(found, keys, others, list(source), list(received))
    texts = _text(keys), _text(source)
    if texts[0] is None or texts[1] is None:
        return None
    return [*texts, _integers(received), pa.nulls(n, pa.string()), pa.nulls(n, pa.string())]


def _unusual(
    found: Sequence[list[Header] | None], keys: list[bytes], which: Iterable[int], source: list[bytes | None], received: list[bytes | None]
) -> list[pa.Array]:
    # Like `_usual` with the records `which` looked at one by one; the others' keys may still turn out to be no text.
    n = len(found)
    shown = list(keys)
    kind: list[bytes | None] = [None] * n
    extra: list[str | None] = [None] * n
    for i in which:
        source[i], received[i], kind[i], shown[i], extra[i] = _one_by_one(found[i] or (), keys[i])
    texts = _text(shown), _text(source)
    if texts[0] is None or texts[1] is None:
        return _unusual(found, keys, range(n), source, received)
    return [*texts, _integers(received), _text(kind), pa.array(extra, pa.string())]


def _text(values: Sequence[bytes | None]) -> pa.Array | None:
    # None: one of them is not UTF-8.
    try:
        return pa.array(values, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        return None


def _integers(values: Sequence[bytes | None]) -> pa.Array:
    return pa.array(values, pa.binary()).cast(pa.string()).cast(pa.int64())


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
        key = _shown(key).encode()
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


def _shown(key: bytes) -> str:
    return key.decode(errors="backslashreplace")


def _with_extra(key: str | bytes, payload: bytes, headers: list[Any], extra: list[Header]) -> Outgoing:
    for name, value in extra:
        if name == RAW_KEY and value is not None and not _is_utf8(value) and _shown(value) == key:
            key = value
        else:
            headers.append((name, value))
    return key, payload, headers
