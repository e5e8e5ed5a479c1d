"""One raw record as every part sees it, and the batch of them that a topic log reads.

Shape of a raw batch: one row a record, ascending by `offset` (dense in SQLite, with holes in Kafka), all of one topic
partition. Headers that this project defines are columns; any others travel as one JSON object in `extra_headers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from market.marker import TIME_LIMIT
from market.trade import Int64s

KIND_MARKER: Final = "marker"
KIND_UNFILLABLE: Final = "unfillable"
KIND_EVENT: Final = "event"

RAW_SCHEMA: Final = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("append_us", pa.int64(), nullable=False),  # when the log took it, epoch µs; retention counts from it
        pa.field("key", pa.string(), nullable=False),  # `BTC-USDT`, or "" for a record of no symbol
        pa.field("source", pa.string()),  # live | snapshot | refill | import
        pa.field("received_us", pa.int64()),  # when the feed read it, epoch µs
        pa.field("kind", pa.string()),  # null: a venue frame; else marker | unfillable | event
        pa.field("extra_headers", pa.string()),  # JSON object of any other headers, or null
        pa.field("payload", pa.binary(), nullable=False),
    ]
)
"""`received_us` null means the producer set none (or none that is a number); the function of that name says what stands in for it."""


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Consecutive records of one topic partition.

    `next_offset` is the position after the last record: what to read next, and a frontier of these rows.
    """

    exchange: str
    topic: str
    partition: int
    generation: str
    next_offset: int
    records: pa.RecordBatch

    def __reduce__(self) -> tuple[object, ...]:
        # Between processes batches travel as Arrow IPC bytes: a pickled slice would ship its whole parent.
        where = (self.exchange, self.topic, self.partition, self.generation, self.next_offset)
        return _restore, (*where, self.records.serialize().to_pybytes())

    @property
    def shard(self) -> str:
        """State key of the partition: `binance/03`."""
        return shard_key(self.exchange, self.partition)


def _restore(exchange: str, topic: str, partition: int, generation: str, next_offset: int, body: bytes) -> RawBatch:
    return RawBatch(exchange, topic, partition, generation, next_offset, pa.ipc.read_record_batch(pa.py_buffer(body), RAW_SCHEMA))


def received_us(records: pa.RecordBatch) -> Int64s:
    """Return when each record was received, epoch µs; when the log took it where nobody said, or said what no store can hold."""
    times, append = records.column("received_us"), records.column("append_us")
    received = np.array((pc.coalesce(times, append) if times.null_count else times).to_numpy(), np.int64)
    odd = (received < 0) | (received >= TIME_LIMIT)
    return np.where(odd, append.to_numpy(), received) if odd.any() else received


def shard_key(exchange: str, partition: int) -> str:
    """Return the permanent state key of a topic partition; sorts by number."""
    return f"{exchange}/{partition:02d}"


def shard_of(topic: str, partition: int) -> str:
    """Return the state key of a partition of a raw topic."""
    return shard_key(topic.removeprefix(topic_name("")), partition)


def topic_name(exchange: str) -> str:
    """Return the raw topic of an exchange."""
    return f"raw.trades.{exchange}"


def exchange_of(topic: str) -> str | None:
    """Return whose raw topic it is; None for any other topic."""
    prefix = topic_name("")
    return topic.removeprefix(prefix) if topic.startswith(prefix) else None
