"""What an outbox does when a disk is full, a left-over does not fit, or the disk fails under it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from connectors.live.outbox import Outbox
from connectors.live.outgoing import Chunk, Outgoing, chunks_of
from connectors.live.spill import Spill
from market.errors import FatalError, RecordRefused, SourceDisconnected
from tests.feeding import TOPIC, Topics, chunk, marker
from tests.outboxes import KRAKEN, FullDisk, left_in, numbered, small, until


@pytest.fixture
def topics() -> Topics:
    return Topics()


@pytest.fixture
def spill(tmp_path: Path) -> Spill:
    return Spill(tmp_path, segment_bytes=4_000)


@pytest.mark.parametrize("running", [True, False], ids=["killed", "stopped"])
@pytest.mark.parametrize("free", [1_500, 7_500])
def test_no_marker_is_saved_without_the_frames_before_it(topics: Topics, tmp_path: Path, *, running: bool, free: int) -> None:
    topics.down = True
    spill = FullDisk(tmp_path, free=free)
    outbox = small(topics, spill, chunks=5)
    outbox.put(chunk("a" * 100))
    outbox.put(chunk("b" * 8_000))
    with pytest.raises(SourceDisconnected):
        outbox.write_once()  # the writer has both in its hand
    for one in (marker("m"), marker("n"), chunk("c"), marker("o")) if running else (marker("m"),):
        outbox.put(one)
    if running:
        assert outbox.is_full
    else:
        assert not outbox.stop(0)
        assert outbox.lost is not None
        assert outbox.lost.records == 2
        assert "No space left" in outbox.lost.reason
    assert left_in(tmp_path) == ["a" * 100]
    topics.down = False
    while outbox.write_once():
        pass
    assert not outbox.is_full
    assert topics.payloads()[:3] == ["a" * 100, "b" * 8_000, "m"]


def test_stop_tries_once_more_to_save_what_a_full_disk_did_not_take(topics: Topics, tmp_path: Path) -> None:
    topics.down = True
    spill = FullDisk(tmp_path, free=1_500)
    outbox = small(topics, spill)
    outbox.put(chunk("a"))
    outbox.put(chunk("b" * 2_000))
    with pytest.raises(SourceDisconnected):
        outbox.write_once()
    for one in (chunk("c" * 20_000), marker("m")):
        outbox.put(one)
    assert outbox.is_full
    spill.free = 1 << 20
    assert not outbox.stop(0)
    assert outbox.lost is None
    assert left_in(tmp_path) == ["a", "b" * 2_000, "c" * 20_000, "m"]


def test_what_was_lost_is_said_once_with_the_reason(topics: Topics, tmp_path: Path) -> None:
    topics.down = True
    outbox = Outbox(topics, FullDisk(tmp_path, free=0))
    outbox.start()
    for one in numbered(0, 4):
        outbox.put(one)
    until(lambda: not outbox.backlog().reachable)
    with capture_logs() as said:
        assert not outbox.stop(0.1)
    assert outbox.lost is not None
    assert (outbox.lost.records, outbox.lost.nbytes) == (4, sum(c.records.nbytes for c in numbered(0, 4)))
    assert outbox.lost.reason == f"{tmp_path} does not take them (No space left on device), nor did their topic in time (the topic is down)"
    assert [line["event"] for line in said].count("records_lost") == 1


def left_over(folder: Path, *chunks: Chunk) -> Spill:
    """A queue that another process left."""
    folder.mkdir(exist_ok=True)
    spill = Spill(folder)
    for one in chunks:
        spill.append(one)
    spill.close()
    return Spill(folder)


def test_topic_of_a_left_over_is_created(spill: Spill, tmp_path: Path) -> None:
    topics = Topics(topics=())
    older = left_over(tmp_path / "left", chunk("a"), chunk("k", topic=KRAKEN))
    outbox = Outbox(topics, spill, [older], ensure=lambda topic: topics.create(topic, 2))
    outbox.start()
    assert outbox.stop(10)
    assert (topics.payloads(), topics.payloads(KRAKEN)) == (["a"], ["k"])


@pytest.mark.parametrize("atomic", [True, False])
def test_left_over_that_its_topic_refuses_is_kept_and_the_rest_written(spill: Spill, tmp_path: Path, *, atomic: bool) -> None:
    topics = Topics(atomic=atomic, partitions=1)
    fits, vouching, refused = (
        next(chunks_of(TOPIC, 2, [Outgoing("BTC/USDT", payload, 1_700_000_000_000_000, kind=kind, partition=partition)]))
        for payload, kind, partition in ((b"y", None, 0), (b"m", "marker", 0), (b"x", None, 1))
    )
    older = left_over(tmp_path / "left", fits, vouching, refused, vouching, fits)
    outbox = Outbox(topics, spill, [older])
    outbox.put(fits)
    outbox.start()
    assert outbox.stop(10)
    again = [] if atomic else ["y"]  # was acknowledged before the refused one was sent
    assert topics.payloads() == [*again, "y", "m", "y", "y"]  # the second marker stood behind what is missing
    assert [p.name for p in (tmp_path / "left").iterdir()] == ["000001.spill.refused"]


def test_left_over_that_is_refused_while_the_topic_comes_and_goes_is_written_in_order(spill: Spill, tmp_path: Path) -> None:
    topics = Topics()
    older = left_over(tmp_path / "left", *(chunk(p) for p in ("a", "large", "b", "c")))
    working, calls = topics.append, 0

    def append(topic: str, records: Mapping[int, pa.RecordBatch]) -> None:
        nonlocal calls
        calls += 1
        if any(b"large" in batch["payload"].to_pylist() for batch in records.values()):
            raise RecordRefused("too large")
        if calls == 4:
            raise SourceDisconnected("away")
        working(topic, records)

    topics.append = append  # type: ignore[method-assign]
    outbox = Outbox(topics, spill, [older])
    with pytest.raises(SourceDisconnected):
        outbox.write_once()
    while outbox.write_once():
        pass
    assert topics.payloads() == ["a", "b", "c"]


def test_disk_that_fails_under_the_writer_is_named(topics: Topics, spill: Spill, tmp_path: Path) -> None:
    topics.down = True
    outbox = small(topics, spill)
    for one in numbered(0, 10):
        outbox.put(one)
    for path in tmp_path.iterdir():
        path.unlink()
    topics.down = False
    outbox.start()
    until(lambda: outbox.failure is not None)
    with pytest.raises(FatalError, match=r"\.spill: No such file"):
        outbox.check()
    outbox.stop(0)


def test_what_is_adopted_is_written_and_what_is_put_does_not_wait_for_all_of_it(topics: Topics, spill: Spill, tmp_path: Path) -> None:
    outbox = Outbox(topics, spill)
    outbox.put(chunk("live 1"))
    assert outbox.write_once()
    outbox.adopt([left_over(tmp_path / "x", chunk("of x")), left_over(tmp_path / "y", chunk("of y"))])
    assert not outbox.is_empty
    outbox.put(chunk("live 2"))
    while outbox.write_once():
        pass
    assert topics.payloads() == ["live 1", "of x", "live 2", "of y"]
    assert outbox.is_empty
