"""Offsets from one to another are read whole, from logs with holes and from brokers that take their time."""

from __future__ import annotations

from typing import cast

import pyarrow as pa
import pytest

from connectors.topics.base import TopicLog
from connectors.topics.blocks import stamp, with_offsets
from connectors.topics.stretch import read_stretch
from market.errors import SourceDisconnected
from tests.records import numbered


class Broker:
    """Holds records at some offsets; every read of it is answered once without any."""

    def __init__(self, offsets: list[int], end: int) -> None:
        self._offsets, self._end = offsets, end
        self._is_asked = False

    def read(self, _topic: str, _partition: int, offset: int, max_records: int) -> pa.RecordBatch | None:
        self._is_asked = not self._is_asked
        held = [at for at in self._offsets if at >= offset][:max_records]
        if self._is_asked or not held:
            return None
        records = with_offsets([stamp(numbered(0, len(held)), 1)], 0)
        return records.set_column(0, records.schema.field(0), pa.array(held))

    def end_offsets(self, _topic: str) -> list[int]:
        return [self._end]


def read(broker: Broker, start: int, stop: int, patience_s: float = 5.0) -> list[int]:
    batches = read_stretch(cast("TopicLog", broker), "t", 0, start, stop, patience_s=patience_s)
    return [at for batch in batches for at in batch.column("offset").to_pylist()]


def test_every_record_comes_once_and_none_from_beyond() -> None:
    assert read(Broker(list(range(30)), 30), 5, 20) == list(range(5, 20))
    assert read(Broker([3, 9, 10, 17, 40], 41), 4, 17) == [9, 10]
    assert read(Broker([40], 41), 4, 17) == []
    assert read(Broker([], 0), 0, 0) == []


def test_an_end_that_holds_no_record_is_an_end() -> None:
    assert read(Broker([1, 2], 3), 0, 6, patience_s=0.05) == [1, 2]


def test_a_broker_that_brings_nothing_is_not_waited_for_without_end() -> None:
    with pytest.raises(SourceDisconnected, match="from offset 3 on"):
        read(Broker([1, 2], 9), 0, 6, patience_s=0.05)
