"""Raw records as a file, one JSON object a line, and back into a topic as they were.

    {"topic":…,"partitions":4,"partition":0,"offset":17,"key":"BTC-USDT","headers":{"source":"live","received_us":"…"},"payload":"…"}

`payload` is text where it is UTF-8, else `payload_b64`. Header values are text. `partitions` is the topic's count.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow as pa

from connectors.files.capture import read_lines
from connectors.files.raw_writer import DEFAULT_PARTITIONS, LoadedFile, Progress, RawWriter, ensure_topic, quiet
from connectors.topics.base import TopicLog
from connectors.topics.stretch import read_stretch
from market.errors import ConfigError, Refused
from market.record import KIND_MARKER, topic_name

_TOLD_RECORDS: Final = 10_000
_OWN_HEADERS: Final = ("source", "received_us", "kind")


def export_raw(log: TopicLog, exchange: str, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Iterator[bytes]:
    """Yield pieces of whole lines: everything the exchange's raw topic holds now, partition by partition, in offset order.

    `progress` gets (records so far, records in all).

    Raises:
        ConfigError: there is no such topic.
        PositionLost: records expired while they were being read; start again.
        SourceDisconnected: a broker stopped answering.
    """
    topic = topic_name(exchange)
    count = log.partitions(topic)
    starts, ends = log.start_offsets(topic), log.end_offsets(topic)
    done, total = 0, sum(ends) - sum(starts)
    for partition, (start, end) in enumerate(zip(starts, ends, strict=True)):
        for batch in read_stretch(log, topic, partition, start, end):
            yield b"".join(raw_lines(topic, count, partition, batch))
            done += batch.num_rows
            progress(done, total)


def raw_lines(topic: str, partitions: int, partition: int, batch: pa.RecordBatch) -> Iterator[bytes]:
    """Yield one line a record of a raw batch (`RAW_SCHEMA`)."""
    names = ("offset", "key", "source", "received_us", "kind", "extra_headers", "payload")
    for offset, key, source, received_us, kind, extra, payload in zip(*(batch.column(n).to_pylist() for n in names), strict=True):
        headers: dict[str, Any] = {}
        if source is not None:
            headers["source"] = source
        if received_us is not None:
            headers["received_us"] = str(received_us)
        if kind is not None:
            headers["kind"] = kind
        if extra is not None:
            _add_extra(headers, orjson.loads(extra))
        record: dict[str, Any] = {
            "topic": topic,
            "partitions": partitions,
            "partition": partition,
            "offset": offset,
            "key": key,
            "headers": headers,
        }
        try:
            record["payload"] = payload.decode()
        except UnicodeDecodeError:
            record["payload_b64"] = base64.b64encode(payload).decode()
        yield orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def is_raw_export(path: Path) -> bool:
    """Tell whether a file is what `export_raw` writes, by its first line; `ConfigError` when it cannot be read."""
    for _, lines in read_lines(path):
        for line in lines:
            if line:
                try:
                    found = orjson.loads(line)
                except orjson.JSONDecodeError:
                    return False
                return isinstance(found, dict) and {"topic", "partition", "key", "headers"} <= found.keys()
    return False


@dataclass(frozen=True, slots=True)
class _Record:
    partitions: int | None
    partition: int
    key: str
    source: str | None
    received_us: int | None
    kind: str | None
    extra_headers: str | None
    payload: bytes


def load_raw(
    log: TopicLog, exchange: str, path: Path, *, partitions: int = DEFAULT_PARTITIONS, progress: Callable[[Progress], None] = quiet
) -> LoadedFile:
    """Append exported records to the exchange's raw topic: same partitions, keys, headers and order; nothing is generated.

    The topic is created with the exported topic's partition count unless it exists (`partitions` where lines carry none).

    Raises:
        ConfigError: the file cannot be read, a line is no exported record, or it is of another exchange; nothing was written.
        Refused: the topic has another partition count than the exported one.
    """
    topic = topic_name(exchange)
    counts, highest, total = _check(path, topic, progress)
    if len(counts) > 1:
        raise ConfigError(
            f"{path}: records of topics with {' and '.join(map(str, sorted(counts)))} partitions; load one topic's export at a time"
        )
    wanted = next(iter(counts), max(partitions, highest + 1))
    ensure_topic(log, exchange, wanted)
    existing = log.partitions(topic)
    if (counts and existing != wanted) or highest >= existing:
        exported = f"{wanted} partitions" if counts else f"a partition {highest}"
        raise Refused(
            f"{path} is from a topic with {exported} and {topic} has {existing}: the count is fixed for a topic's life; load it into a new home"
        )
    writer, markers, symbols = RawWriter(log, topic), 0, set()
    done = 0
    for record in _records(path, topic):
        markers += record.kind == KIND_MARKER
        symbols.add(record.key.replace("-", "/"))
        writer.add(
            record.partition,
            record.payload,
            key=record.key,
            source=record.source,
            received_us=record.received_us,
            kind=record.kind,
            extra_headers=record.extra_headers,
        )
        done += 1
        if done % _TOLD_RECORDS == 0:
            progress(Progress(path, "write", done, total))
    writer.flush()
    progress(Progress(path, "write", done, total))
    return LoadedFile(path, done - markers, done, markers, tuple(sorted(symbols - {""})))


def _check(path: Path, topic: str, progress: Callable[[Progress], None]) -> tuple[set[int], int, int]:
    """Return the partition counts the lines name, the highest partition, and the number of records; nothing is written yet."""
    counts: set[int] = set()
    highest, total = 0, 0
    for record in _records(path, topic):
        if record.partitions is not None:
            counts.add(record.partitions)
        highest = max(highest, record.partition)
        total += 1
        if total % _TOLD_RECORDS == 0:
            progress(Progress(path, "survey", total, None))
    return counts, highest, total


def _records(path: Path, topic: str) -> Iterator[_Record]:
    for first_line, lines in read_lines(path):
        for number, line in enumerate(lines, first_line):
            if line:
                try:
                    yield _record(orjson.loads(line), topic)
                except (AttributeError, LookupError, TypeError, ValueError) as error:
                    raise ConfigError(f"{path}: line {number} is no exported raw record: {error}") from error


def _record(found: Any, topic: str) -> _Record:
    if found["topic"] != topic:
        raise ValueError(f"it is of topic {found['topic']}, not {topic}")
    partition, count = found["partition"], found.get("partitions")
    if type(partition) is not int or partition < 0 or not (count is None or (type(count) is int and count > partition)):
        raise ValueError(f"partition {partition} of {count}")
    headers, extra = _parted(found["headers"])
    payload = found["payload"].encode() if "payload" in found else base64.b64decode(found["payload_b64"], validate=True)
    if not isinstance(found["key"], str):
        raise TypeError(f"key {found['key']!r}")
    return _Record(
        partitions=count,
        partition=partition,
        key=found["key"],
        source=headers.get("source"),
        received_us=int(headers["received_us"]) if "received_us" in headers else None,
        kind=headers.get("kind"),
        extra_headers=orjson.dumps(extra).decode() if extra else None,
        payload=payload,
    )


def _add_extra(headers: dict[str, Any], extra: dict[str, Any]) -> None:
    """Add the headers that are no column (`connectors.topics.headers`); one that occurs in both becomes a list."""
    for name, value in extra.items():
        if name in headers:
            headers[name] = [headers[name], *(value if isinstance(value, list) else [value])]
        else:
            headers[name] = value


def _parted(headers: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the headers that are columns, and the others: the reverse of `_add_extra`."""
    own: dict[str, str] = {}
    extra: dict[str, Any] = {}
    for name, value in headers.items():
        values = [str(v) if isinstance(v, int) else v for v in (value if isinstance(value, list) else [value])]
        fits = name in _OWN_HEADERS and isinstance(values[0], str) and (name != "received_us" or _is_time(values[0]))
        if fits:
            own[name] = values.pop(0)
        if values:
            extra[name] = values[0] if len(values) == 1 else values
    return own, extra


def _is_time(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) <= 18
