from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from connectors.live.outbox import Outbox
from connectors.live.spill import Spill
from market.errors import ConfigError, InvariantViolation, SourceDisconnected
from tests.feeding import TOPIC, Topics, chunk, marker
from tests.outboxes import KRAKEN, FullDisk, numbered, small, until, wanted


@pytest.fixture
def topics() -> Topics:
    return Topics()


@pytest.fixture
def spill(tmp_path: Path) -> Spill:
    return Spill(tmp_path, segment_bytes=4_000)


def test_what_is_put_is_appended_in_order(topics: Topics, spill: Spill) -> None:
    outbox = Outbox(topics, spill)
    for one in (*numbered(0, 5), chunk("k", topic=TOPIC)):
        outbox.put(one)
    while outbox.write_once():
        pass
    assert topics.payloads() == [*wanted(5), "k"]
    assert outbox.is_empty


def test_memory_is_counted_until_the_topic_has_it(topics: Topics, spill: Spill) -> None:
    outbox = Outbox(topics, spill)
    given = numbered(0, 5)
    for one in given:
        outbox.put(one)
    size = sum(one.nbytes for one in given)
    assert outbox.backlog().memory_bytes == size
    topics.down = True
    with pytest.raises(SourceDisconnected):
        outbox.write_once()
    assert outbox.backlog().memory_bytes == size
    topics.down = False
    assert outbox.write_once()
    assert outbox.backlog().memory_bytes == 0


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
