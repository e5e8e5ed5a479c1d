"""A stretch of a topic partition from one offset to another, whatever holes its log has and however long a broker takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from connectors.topics.base import TopicLog
from market.errors import SourceDisconnected

PATIENCE_S: Final = 30.0
_READ_RECORDS: Final = 20_000
_LOOK_S: Final = 0.01


def read_stretch(
    log: TopicLog, topic: str, partition: int, start: int, stop: int, *, patience_s: float = PATIENCE_S
) -> Iterator[pa.RecordBatch]:
    """Yield the records at the offsets [start, stop), in order; blocks while they are under way.

    Raises:
        PositionLost: they expired while they were being read.
        SourceDisconnected: the log cannot be reached, or brings nothing for so long although its end is further on.
    """
    deadline = time.monotonic() + patience_s
    while start < stop:
        records = log.read(topic, partition, start, min(_READ_RECORDS, stop - start))
        if records is not None:
            start, deadline = records.column("offset")[-1].as_py() + 1, time.monotonic() + patience_s
            if start > stop:  # a log with holes gives records beyond it
                records = records.filter(pc.less(records.column("offset"), stop))
            if records.num_rows:
                yield records
        elif time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        elif log.end_offsets(topic)[partition] <= start:  # what stood there was no record
            return
        else:
            raise SourceDisconnected(
                f"{topic}/{partition}: no records came from offset {start} on in {patience_s:g} s; wanted up to {stop}"
            )
