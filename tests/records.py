"""Records for topic logs in tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from connectors.topics.base import APPEND_SCHEMA, TopicLog


def records(
    payloads: Iterable[bytes], *, key: str = "BTC-USDT", source: str | None = "live", received_us: int | None = 1_000
) -> pa.RecordBatch:
    """Frames of one key in the append schema; receive times count up by one µs."""
    frames = list(payloads)
    n = len(frames)
    times = [None if received_us is None else received_us + i for i in range(n)]
    columns = [[key] * n, [source] * n, times, [None] * n, [None] * n, frames]
    return pa.RecordBatch.from_arrays([pa.array(c, f.type) for c, f in zip(columns, APPEND_SCHEMA, strict=True)], schema=APPEND_SCHEMA)


def numbered(first: int, count: int) -> pa.RecordBatch:
    """Records whose payloads are consecutive numbers."""
    return records(b"%d" % i for i in range(first, first + count))


def read_all(log: TopicLog, topic: str, partition: int, max_records: int = 1_000, offset: int | None = None) -> list[pa.RecordBatch]:
    """Read from an offset, or the start, up to the end the log has now."""
    at = log.start_offsets(topic)[partition] if offset is None else offset
    end = log.end_offsets(topic)[partition]
    batches = []
    while at < end:
        batch = log.read(topic, partition, at, max_records)
        if batch is not None:
            batches.append(batch)
            at = batch.column("offset")[-1].as_py() + 1
    return batches


def payloads(batches: Sequence[pa.RecordBatch]) -> list[bytes]:
    """Payloads of raw batches in order."""
    return [p for b in batches for p in b.column("payload").to_pylist()]


def offsets(batches: Sequence[pa.RecordBatch]) -> list[int]:
    """Offsets of raw batches in order."""
    return [o for b in batches for o in b.column("offset").to_pylist()]
