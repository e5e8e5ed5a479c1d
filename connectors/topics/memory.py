"""A topic log in memory: the contract for tests of the layers above, and for nothing that must last."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from connectors.topics import blocks
from connectors.topics.checks import check_partition, check_partitions, check_position, check_records, unknown_topic


@dataclass(slots=True)
class _Partition:
    """Consecutive blocks; the first begins at `start`."""

    start: int = 0
    end: int = 0
    held: list[pa.RecordBatch] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Topic:
    generation: str
    partitions: tuple[_Partition, ...]


def _clock() -> int:
    return time.time_ns() // 1_000


class MemoryTopics:
    """A `TopicLog` that lives and dies with this object. An append is one block."""

    atomic_appends = True

    def __init__(self, *, now_us: Callable[[], int] = _clock) -> None:
        self._now_us = now_us
        self._topics: dict[str, _Topic] = {}

    def create(self, topic: str, partitions: int) -> None:
        existing = self._topics.get(topic)
        check_partitions(topic, partitions, None if existing is None else len(existing.partitions))
        if existing is None:
            self._topics[topic] = _Topic(str(uuid.uuid4()), tuple(_Partition() for _ in range(partitions)))

    def topics(self) -> list[str]:
        return sorted(self._topics)

    def partitions(self, topic: str) -> int:
        return len(self._of(topic).partitions)

    def generation(self, topic: str) -> str:
        return self._of(topic).generation

    def start_offsets(self, topic: str) -> list[int]:
        return [p.start for p in self._of(topic).partitions]

    def end_offsets(self, topic: str) -> list[int]:
        return [p.end for p in self._of(topic).partitions]

    def read(self, topic: str, partition: int, offset: int, max_records: int) -> pa.RecordBatch | None:
        found = self._of(topic)
        check_partition(topic, partition, len(found.partitions))
        p = found.partitions[partition]
        check_position(topic, partition, offset, p.start, p.end)
        taken: list[pa.RecordBatch] = []
        first, left = p.start, max_records
        for block in p.held:
            if first + block.num_rows > offset and left > 0:
                piece = block.slice(max(0, offset - first), left)
                taken.append(piece)
                left -= piece.num_rows
            first += block.num_rows
        return blocks.with_offsets(taken, offset) if taken else None

    def append(self, topic: str, records: Mapping[int, pa.RecordBatch]) -> None:
        found = self._of(topic)
        check_records(topic, records, len(found.partitions))
        now_us = self._now_us()
        for partition, batch in records.items():
            if batch.num_rows:
                p = found.partitions[partition]
                p.held.append(blocks.stamp(batch, now_us))
                p.end += batch.num_rows

    def append_all(self, records: Mapping[str, Mapping[int, pa.RecordBatch]]) -> None:
        for topic, batches in records.items():
            self.append(topic, batches)

    def expire(self, topic: str, before: Mapping[int, int], older_than_us: int) -> int:
        found = self._of(topic)
        dropped = 0
        for partition, limit in before.items():
            check_partition(topic, partition, len(found.partitions))
            p = found.partitions[partition]
            while p.held and p.start + p.held[0].num_rows <= limit and p.held[0].column("append_us")[0].as_py() < older_than_us:
                rows = p.held.pop(0).num_rows
                p.start += rows
                dropped += rows
        return dropped

    def close(self) -> None:
        """Keep everything: tests close and read on."""

    def _of(self, topic: str) -> _Topic:
        if topic not in self._topics:
            raise unknown_topic(topic, self._topics, "memory")
        return self._topics[topic]
