"""Chunks, and topics that fail on demand, for tests of what stands between sockets and topics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from connectors.live.outgoing import Chunk, Outgoing, chunks_of
from connectors.topics.memory import MemoryTopics
from market.errors import SourceDisconnected
from market.record import KIND_MARKER

TOPIC = "raw.trades.binance"
PARTITIONS = 2


def chunk(*payloads: str, topic: str = TOPIC, symbol: str = "BTC/USDT") -> Chunk:
    """Frames of one symbol."""
    records = [Outgoing(symbol, p.encode(), 1_700_000_000_000_000) for p in payloads]
    return next(chunks_of(topic, PARTITIONS, records))


def marker(payload: str, *, topic: str = TOPIC, symbol: str = "BTC/USDT") -> Chunk:
    """A marker in the partition of a symbol."""
    return next(chunks_of(topic, PARTITIONS, [Outgoing(symbol, payload.encode(), 1_700_000_000_000_000, kind=KIND_MARKER)]))


class Topics(MemoryTopics):
    """Topics in memory that can be down, and remember their appends."""

    def __init__(self, *, atomic: bool = True, partitions: int = PARTITIONS, topics: Iterable[str] = (TOPIC,)) -> None:
        super().__init__(now_us=lambda: 1_700_000_000_000_000)
        self.down = False
        self.atomic_appends = atomic
        self.appends: list[list[str]] = []
        for topic in topics:
            self.create(topic, partitions)

    def append(self, topic: str, records: Mapping[int, pa.RecordBatch]) -> None:
        if self.down:
            raise SourceDisconnected("the topic is down")
        super().append(topic, records)
        self.appends.append([p.decode() for b in records.values() for p in b.column("payload").to_pylist()])

    def rows(self, topic: str = TOPIC) -> list[dict[str, Any]]:
        """All records, partition by partition."""
        found: list[dict[str, Any]] = []
        for partition in range(self.partitions(topic)):
            batch = self.read(topic, partition, 0, 1_000_000)
            found += [] if batch is None else [{**row, "partition": partition} for row in batch.to_pylist()]
        return found

    def payloads(self, topic: str = TOPIC) -> list[str]:
        """All payloads, partition by partition."""
        return [row["payload"].decode() for row in self.rows(topic)]
