"""The contract of a raw topic log: partitions, a generation id, reading by offset, appending, offsets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import pyarrow as pa

from market.record import RAW_SCHEMA

APPEND_SCHEMA: Final = pa.schema([f for f in RAW_SCHEMA if f.name not in {"offset", "append_us"}])
"""What a producer gives; the log adds `offset` and `append_us`."""


class TopicLog(Protocol):
    """A set of topics, each a fixed number of partitions of records in offset order.

    Not thread-safe unless an implementation says so; processes may share the log freely.

    Raises (all calls): `SourceDisconnected` when the log cannot be reached, `ConfigError` for a topic that does not exist.
    """

    @property
    def atomic_appends(self) -> bool:
        """Whether `append` is all or nothing; if not, a marker goes into a later `append` than the frames it vouches for."""

    def create(self, topic: str, partitions: int) -> None:
        """Create the topic unless it exists; `ConfigError` when it exists with another partition count."""

    def topics(self) -> list[str]:
        """Return the names of all topics, sorted."""

    def partitions(self, topic: str) -> int:
        """Return the fixed partition count."""

    def generation(self, topic: str) -> str:
        """Return the id this topic got when it was created; a topic deleted and created again has another one."""

    def start_offsets(self, topic: str) -> list[int]:
        """Return the first offset still held, by partition."""

    def end_offsets(self, topic: str) -> list[int]:
        """Return the offset after the last record, by partition."""

    def read(self, topic: str, partition: int, offset: int, max_records: int) -> pa.RecordBatch | None:
        """Return up to `max_records` records at or after `offset`, or None when there are none now. Never blocks for new records.

        Shape: `RAW_SCHEMA`, ascending offsets; the first may be past `offset` only where the log has holes (compaction, transactions).

        Raises:
            PositionLost: `offset` is before the first record still held, or past the end.
        """

    def append(self, topic: str, records: Mapping[int, pa.RecordBatch]) -> None:
        """Append records (`APPEND_SCHEMA`) to partitions, in order; returns once they are durable.

        SQLite: all or nothing. Kafka: acknowledged by all replicas, idempotent; on an error some may have been written.
        """

    def append_all(self, records: Mapping[str, Mapping[int, pa.RecordBatch]]) -> None:
        """Append to several topics, as `append` does. SQLite: all or nothing over all of them, at the price of one append."""

    def expire(self, topic: str, before: Mapping[int, int], older_than_us: int) -> int:
        """Drop records below the given offset of each partition whose `append_us` is below `older_than_us` (epoch µs).

        Returns how many; only from the start of a partition, at most whole blocks. Offsets never start again.
        """

    def close(self) -> None:
        """Release connections."""
