"""Records on their way into a raw topic, gathered into batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from connectors.topics.base import APPEND_SCHEMA, TopicLog
from market.record import KIND_MARKER, topic_name

DEFAULT_PARTITIONS: Final = 4
BATCH_RECORDS: Final = 10_000
_BATCH_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a file is: `total` frames are known once it was surveyed."""

    path: Path
    step: str  # survey | write
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """What became of a file."""

    path: Path
    frames: int
    records: int  # markers included
    markers: int
    symbols: tuple[str, ...]


def quiet(progress: Progress) -> None:
    """Show no progress."""


def ensure_topic(log: TopicLog, exchange: str, partitions: int) -> str:
    """Create the exchange's raw topic unless it exists, whatever its partition count; return its name."""
    topic = topic_name(exchange)
    if topic not in log.topics():
        log.create(topic, partitions)
    return topic


@dataclass(slots=True)
class _Columns:
    """The waiting records of one partition, in the order of `APPEND_SCHEMA`."""

    key: list[str] = field(default_factory=list)
    source: list[str | None] = field(default_factory=list)
    received_us: list[int | None] = field(default_factory=list)
    kind: list[str | None] = field(default_factory=list)
    extra_headers: list[str | None] = field(default_factory=list)
    payload: list[bytes] = field(default_factory=list)

    def batch(self) -> pa.RecordBatch:
        columns = (self.key, self.source, self.received_us, self.kind, self.extra_headers, self.payload)
        return pa.RecordBatch.from_arrays([pa.array(c, f.type) for c, f in zip(columns, APPEND_SCHEMA, strict=True)], schema=APPEND_SCHEMA)


class RawWriter:
    """Appends records in order; call `flush` at the end.

    Where the log's appends are not all or nothing, everything before a marker is acknowledged before the marker is sent.
    """

    def __init__(self, log: TopicLog, topic: str) -> None:
        self.log, self.topic = log, topic
        self.waiting = 0
        self.written = 0
        self._bytes = 0
        self._frames_wait = False
        self._columns: dict[int, _Columns] = {}

    def add(
        self,
        partition: int,
        payload: bytes,
        *,
        key: str = "",
        source: str | None = None,
        received_us: int | None = None,
        kind: str | None = None,
        extra_headers: str | None = None,
    ) -> None:
        """Take one record; appends the batch first or afterwards when that is due."""
        is_marker = kind == KIND_MARKER
        if is_marker and self._frames_wait and not self.log.atomic_appends:
            self.flush()
        columns = self._columns.get(partition)
        if columns is None:
            columns = self._columns[partition] = _Columns()
        columns.key.append(key)
        columns.source.append(source)
        columns.received_us.append(received_us)
        columns.kind.append(kind)
        columns.extra_headers.append(extra_headers)
        columns.payload.append(payload)
        self.waiting += 1
        self._bytes += len(payload)
        self._frames_wait |= not is_marker
        if self.waiting >= BATCH_RECORDS or self._bytes >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Append what waits; returns once it is durable."""
        if self.waiting:
            self.log.append(self.topic, {p: c.batch() for p, c in self._columns.items()})
            self.written += self.waiting
        self._columns.clear()
        self.waiting = self._bytes = 0
        self._frames_wait = False
