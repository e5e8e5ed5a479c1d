"""Records on their way into a raw topic: what a feed puts into its outbox, and the columns they travel in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
import pyarrow as pa

from connectors.topics.base import APPEND_SCHEMA
from market.instrument import partition_of
from market.record import KIND_EVENT, KIND_MARKER

CHUNK_SCHEMA: Final = pa.schema([pa.field("partition", pa.int32(), nullable=False), *APPEND_SCHEMA])
_HOLDER_BYTES: Final = 4096
_KEYLESS: Final = (KIND_MARKER, KIND_EVENT)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record. `symbol` (canonical, or "" for none) decides key and partition; a marker or event has no key.

    `partition`: where it goes, for a marker of several symbols.
    """

    symbol: str
    payload: bytes
    received_us: int
    source: str | None = "live"
    kind: str | None = None
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records of one topic that were put together, in order.

    Shape of `records`: `CHUNK_SCHEMA`; a partition's records keep their order. `markers`: it holds markers and nothing
    else, or no marker at all, so a log whose appends are not all or nothing can be given them one by one. `begins`: it holds nothing;
    assertions behind it began after everything before it.
    """

    topic: str
    records: pa.RecordBatch
    markers: bool = False
    begins: bool = False

    def part(self, first: int, count: int) -> Chunk:
        """Return some of its records."""
        return Chunk(self.topic, self.records.slice(first, count), self.markers)

    @property
    def nbytes(self) -> int:
        """Size in memory, about: what the columns hold, and a page for what holds them (measured)."""
        return int(self.records.nbytes) + _HOLDER_BYTES


def chunks_of(topic: str, partitions: int, records: Sequence[Outgoing]) -> Iterator[Chunk]:
    """Yield the records as chunks, markers apart from what they vouch for; order is kept."""
    for markers, run in groupby(records, lambda record: record.kind == KIND_MARKER):
        yield Chunk(topic, _columns(partitions, list(run)), markers)


def beginning(topic: str) -> Chunk:
    """Return the chunk that says: assertions of this topic begin anew."""
    return Chunk(topic, _columns(1, []), begins=True)


def _columns(partitions: int, records: list[Outgoing]) -> pa.RecordBatch:
    homes = [_home(r, partitions) for r in records]
    columns = (
        homes,
        ["" if r.kind in _KEYLESS else r.symbol.replace("/", "-") for r in records],
        [r.source for r in records],
        [r.received_us for r in records],
        [r.kind for r in records],
        [None] * len(records),
        [r.payload for r in records],
    )
    return pa.RecordBatch.from_arrays([pa.array(c, f.type) for c, f in zip(columns, CHUNK_SCHEMA, strict=True)], schema=CHUNK_SCHEMA)


def _home(record: Outgoing, partitions: int) -> int:
    if record.partition is not None:
        return record.partition
    return partition_of(record.symbol, partitions) if record.symbol else 0


def by_partition(chunks: Iterable[Chunk]) -> dict[int, pa.RecordBatch]:
    """Return the records of chunks of one topic as an append takes them: a batch a partition, in order."""
    parts = [chunk.records for chunk in chunks]
    joined = parts[0] if len(parts) == 1 else pa.concat_batches(parts)
    if not joined.num_rows:
        return {}
    homes = joined.column("partition").to_numpy()
    order = np.argsort(homes, kind="stable")
    columns = joined.select(APPEND_SCHEMA.names).take(pa.array(order))
    found, starts = np.unique(homes[order], return_index=True)
    stops = [*starts[1:].tolist(), len(order)]
    return {int(p): columns.slice(a, b - a) for p, a, b in zip(found.tolist(), starts.tolist(), stops, strict=True)}
