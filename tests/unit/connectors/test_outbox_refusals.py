"""What becomes of a living feed's records that their topic will never take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from connectors.live.outbox import Outbox
from connectors.live.sender import ORDINARY_BYTES
from connectors.live.spill import Spill
from market.errors import RecordRefused, SourceDisconnected
from tests.feeding import TOPIC, Topics, chunk, marker
from tests.outboxes import KRAKEN, left_in, small

LARGE = "x" * (ORDINARY_BYTES + 1)


class Picky(Topics):
    """Topics that refuse any append with a record of more than `most` bytes; every third append fails before that."""

    def __init__(self, *, atomic: bool = True, most: int = ORDINARY_BYTES) -> None:
        super().__init__(atomic=atomic, topics=(TOPIC, KRAKEN))
        self.most = most
        self.calls = 0

    def append(self, topic: str, records: Mapping[int, pa.RecordBatch]) -> None:
        self.calls += 1
        if self.calls % 3 == 0:
            raise SourceDisconnected("away")
        if any(len(p) > self.most for batch in records.values() for p in batch["payload"].to_pylist()):
            raise RecordRefused("too large")
        super().append(topic, records)


def write_all(outbox: Outbox) -> None:
    while not outbox.is_empty:
        try:
            outbox.write_once()
        except SourceDisconnected:
            continue


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("spilled", [True, False])
def test_a_large_record_is_set_aside_and_markers_are_believed_once_assertions_begin_anew(
    tmp_path: Path, *, atomic: bool, spilled: bool
) -> None:
    topics = Picky(atomic=atomic)
    outbox = small(topics, Spill(tmp_path)) if spilled else Outbox(topics, Spill(tmp_path))
    for one in (chunk("a"), marker("m"), chunk("b", LARGE, "c"), marker("false"), chunk("k", topic=KRAKEN), marker("l", topic=KRAKEN)):
        outbox.put(one)
    write_all(outbox)
    assert outbox.refusals() == {TOPIC}
    assert outbox.refusals() == frozenset()
    outbox.put(marker("false"))
    outbox.begin(TOPIC)
    outbox.put(marker("true"))
    write_all(outbox)
    assert list(dict.fromkeys(topics.payloads())) == ["a", "m", "b", "c", "true"]
    assert list(dict.fromkeys(topics.payloads(KRAKEN))) == ["k", "l"]
    (kept,) = tmp_path.glob("*.refused")
    kept.rename(kept.with_suffix(""))
    assert left_in(tmp_path) == [LARGE]


def test_a_topic_that_refuses_ordinary_frames_ends_the_feed_and_all_of_them_stay(tmp_path: Path) -> None:
    outbox = Outbox(Picky(most=1), Spill(tmp_path))
    outbox.put(chunk("a", "frame", "b"))
    with pytest.raises(RecordRefused, match="too large"):
        write_all(outbox)
    assert not outbox.stop(0)
    assert left_in(tmp_path) == ["a", "frame", "b"]
