from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from connectors.live.outbox import SPILL_BYTES, Outbox
from connectors.live.outgoing import Chunk, Outgoing, chunks_of
from connectors.live.spill import Spill
from market.errors import ConfigError, FatalError, InvariantViolation, RecordRefused, SourceDisconnected
from tests.feeding import TOPIC, Topics, chunk, marker

KRAKEN = "raw.trades.kraken"


class FullDisk(Spill):
    """A spill on a disk with so many bytes left; small entries still fit when large ones do not."""

    def __init__(self, folder: Path, *, free: int) -> None:
        super().__init__(folder)
        self.free = free

    def append(self, chunk: Chunk) -> int:
        need = chunk.records.nbytes + 500
        if need > self.free:
            raise OSError(28, "No space left on device")
        self.free -= need
        return super().append(chunk)


def left_in(folder: Path) -> list[str]:
    """What the next process finds there."""
    return [p.decode() for c in Spill(folder).read(1 << 30) for p in c.records.column("payload").to_pylist()]


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def numbered(first: int, last: int) -> list[Chunk]:
    return [chunk(str(number)) for number in range(first, last)]


def wanted(count: int) -> list[str]:
    return [str(number) for number in range(count)]


@pytest.fixture
def topics() -> Topics:
    return Topics()


@pytest.fixture
def spill(tmp_path: Path) -> Spill:
    return Spill(tmp_path, segment_bytes=4_000)


def small(topics: Topics, spill: Spill, chunks: int = 3, spill_bytes: int = SPILL_BYTES) -> Outbox:
    """An outbox with room for so many chunks in memory."""
    return Outbox(topics, spill, memory_bytes=chunks * chunk("0").nbytes, spill_bytes=spill_bytes)


def test_what_is_put_is_appended_in_order(topics: Topics, spill: Spill) -> None:
    outbox = Outbox(topics, spill)
    for one in (*numbered(0, 5), chunk("k", topic=TOPIC)):
        outbox.put(one)
    while outbox.write_once():
        pass
    assert topics.payloads() == [*wanted(5), "k"]
    assert outbox.is_empty


def test_topic_that_is_down_costs_no_record_and_no_order(topics: Topics, spill: Spill) -> None:
    outbox = Outbox(topics, spill)
    outbox.start()
    topics.down = True
    for one in numbered(0, 5):
        outbox.put(one)
    until(lambda: not outbox.backlog().reachable)
    topics.down = False
    for one in numbered(5, 9):
        outbox.put(one)
    assert outbox.stop(10)
    assert topics.payloads() == wanted(9)


def test_beyond_memory_everything_unacknowledged_is_on_disk_in_order(topics: Topics, spill: Spill, tmp_path: Path) -> None:
    topics.down = True
    outbox = small(topics, spill)
    for number, one in enumerate(numbered(0, 20)):
        outbox.put(one)
        if number == 1:  # the writer has taken some already
            with pytest.raises(SourceDisconnected):
                outbox.write_once()
    assert outbox.backlog().memory_bytes <= 3 * chunk("0").nbytes
    on_disk = [p.decode() for c in Spill(tmp_path).read(1 << 30) for p in c.records.column("payload").to_pylist()]
    assert on_disk == wanted(20)
    topics.down = False
    while outbox.write_once():
        pass
    assert topics.payloads() == wanted(20)
    assert list(tmp_path.iterdir()) == []


def test_after_the_spill_is_written_memory_is_used_again(topics: Topics, spill: Spill) -> None:
    outbox = small(topics, spill)
    for one in numbered(0, 10):
        outbox.put(one)
    while outbox.write_once():
        pass
    outbox.put(chunk("10"))
    assert outbox.backlog().spill_bytes == 0
    assert outbox.backlog().memory_bytes > 0
    outbox.write_once()
    assert topics.payloads() == wanted(11)


def test_killed_process_leaves_its_spill_to_the_next(topics: Topics, spill: Spill, tmp_path: Path) -> None:
    topics.down = True
    outbox = small(topics, spill)
    for one in (*numbered(0, 10), marker("m")):
        outbox.put(one)
    del outbox  # nothing was closed
    topics.down = False
    left = Spill(tmp_path)
    following = Outbox(topics, Spill(tmp_path, after=left), [left])
    following.put(chunk("new"))
    while following.write_once():
        pass
    assert topics.payloads() == [*wanted(10), "m", "new"]
    assert list(tmp_path.iterdir()) == []


def test_stop_with_a_topic_that_is_down_leaves_everything_on_disk(topics: Topics, spill: Spill, tmp_path: Path) -> None:
    topics.down = True
    outbox = Outbox(topics, spill)
    outbox.start()
    for one in numbered(0, 4):
        outbox.put(one)
    assert not outbox.stop(0.2)
    topics.down = False
    following = Outbox(topics, Spill(tmp_path / "other"), [Spill(tmp_path)])
    while following.write_once():
        pass
    assert topics.payloads() == wanted(4)


def test_room_waits_while_the_spill_is_full(topics: Topics, spill: Spill) -> None:
    topics.down = True
    outbox = small(topics, spill, chunks=1, spill_bytes=2_000)
    for one in numbered(0, 20):
        outbox.put(one)
    assert outbox.is_full

    async def waited() -> bool:
        room = asyncio.ensure_future(outbox.room())
        await asyncio.sleep(0.05)
        early = room.done()
        topics.down = False
        outbox.start()
        await asyncio.wait_for(room, 10)
        return early

    assert not asyncio.run(waited())
    assert outbox.stop(10)
    assert topics.payloads() == wanted(20)


def test_full_disk_loses_nothing_and_stops_reading(topics: Topics, tmp_path: Path) -> None:
    spill = FullDisk(tmp_path, free=2_500)
    topics.down = True
    outbox = small(topics, spill)
    for one in numbered(0, 10):
        outbox.put(one)
    assert outbox.is_full
    topics.down = False
    while outbox.write_once():
        pass
    assert topics.payloads() == wanted(10)
    assert not outbox.is_full


def test_frames_are_acknowledged_before_their_marker_where_appends_are_not_atomic(spill: Spill) -> None:
    topics = Topics(atomic=False)
    outbox = Outbox(topics, spill)
    for one in (chunk("a"), marker("m"), marker("n"), chunk("b"), chunk("c"), marker("o")):
        outbox.put(one)
    while outbox.write_once():
        pass
    assert topics.appends == [["a"], ["m", "n", "b", "c"], ["o"]]


def test_append_that_worked_is_not_repeated_when_another_topic_fails(spill: Spill) -> None:
    topics = Topics(atomic=False, topics=(TOPIC, KRAKEN))
    outbox = Outbox(topics, spill)
    outbox.put(chunk("a"))
    outbox.put(chunk("b", topic=KRAKEN))
    working = topics.append
    calls: list[str] = []

    def append(topic: str, records: object) -> None:
        calls.append(topic)
        if len(calls) == 2:
            raise SourceDisconnected("once")
        working(topic, records)  # type: ignore[arg-type]

    topics.append = append  # type: ignore[method-assign]
    with pytest.raises(SourceDisconnected):
        outbox.write_once()
    assert outbox.write_once()
    assert calls == [TOPIC, KRAKEN, KRAKEN]
    assert (topics.payloads(), topics.payloads(KRAKEN)) == (["a"], ["b"])


@pytest.mark.parametrize(("error", "seen"), [(ConfigError("too large"), ConfigError), (ZeroDivisionError("bug"), InvariantViolation)])
def test_what_cannot_be_written_stops_the_feed_and_stays_on_disk(
    topics: Topics, spill: Spill, tmp_path: Path, error: Exception, seen: type[Exception]
) -> None:
    def append(topic: str, records: object) -> None:
        raise error

    topics.append = append  # type: ignore[method-assign]
    outbox = Outbox(topics, spill)
    outbox.start()
    outbox.put(chunk("a"))
    until(lambda: outbox.failure is not None)
    with pytest.raises(seen):
        asyncio.run(outbox.room())
    with pytest.raises(seen):
        asyncio.run(outbox.drained())
    assert not outbox.stop(1)
    assert Spill(tmp_path).nbytes > 0


def test_drained_returns_when_all_is_written(topics: Topics, spill: Spill) -> None:
    outbox = Outbox(topics, spill)
    outbox.put(chunk("a"))
    outbox.start()
    asyncio.run(asyncio.wait_for(outbox.drained(), 10))
    assert topics.payloads() == ["a"]
    assert outbox.stop(1)


def test_unreadable_left_over_does_not_hold_up_what_follows(topics: Topics, spill: Spill, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "000001.spill").write_bytes(b"not a spill")
    outbox = Outbox(topics, spill, [Spill(folder)])
    outbox.put(chunk("a"))
    while outbox.write_once():
        pass
    assert topics.payloads() == ["a"]
    assert outbox.is_empty


def test_written_is_told_of_each_append(topics: Topics, spill: Spill) -> None:
    told: list[tuple[str, int]] = []
    outbox = Outbox(topics, spill, written=lambda topic, chunks: told.append((topic, len(chunks))))
    for one in numbered(0, 3):
        outbox.put(one)
    outbox.write_once()
    assert told == [(TOPIC, 3)]


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
