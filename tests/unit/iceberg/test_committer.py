"""When commits happen, in which order, and what failures do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from market.errors import CommitConflict, Fenced, InvariantViolation, PipelineError, SinkUnavailable
from sinks.iceberg.committer import IDLE_INTERVAL_S, MAX_EPOCHS, Committer
from sinks.iceberg.frontier import Position
from sinks.iceberg.parquet import FileNote
from sinks.iceberg.state import Pending
from sinks.iceberg.workers import Workers

KEY = ("raw.trades.binance", 0)


def to(offset: int) -> dict[tuple[str, int], Position]:
    return {KEY: Position("g", offset)}


def epoch(offset: int, rows: int = 1) -> Pending:
    note = FileNote(f"file:///{offset}", rows, 1, 0, "binance", KEY[0], {0: (offset, offset)})
    return Pending(to(offset), (note,) if rows else (), (), rows)


@dataclass
class Catalog:
    """A fake of the fenced table: lands batches, or fails as told."""

    failures: list[Exception] = field(default_factory=list)
    landed: list[Pending] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    tried: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)

    def land(self, batch: Pending, key: str) -> None:
        self.keys.append(key)
        self.tried.set()
        assert self.held.wait(20)
        if self.failures:
            raise self.failures.pop(0)
        self.landed.append(batch)


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Rig:
    catalog: Catalog
    clock: Clock
    committer: Committer

    def after(self, seconds: float) -> None:
        self.clock.seconds += seconds
        with self.committer._changed:
            self.committer._changed.notify_all()


@pytest.fixture
def rig() -> Iterator[Rig]:
    catalog, clock = Catalog(), Clock()
    catalog.held.set()
    committer = Committer("cold.x", catalog.land, Workers(), 10.0, clock)
    committer.start(to(0), None)
    yield Rig(catalog, clock, committer)
    catalog.held.set()
    committer.stop(10)


def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_rows_wait_for_the_interval_and_land_together(rig: Rig) -> None:
    for offset in (5, 9, 12):
        rig.committer.add(epoch(offset))
    rig.after(9.9)
    time.sleep(0.05)
    assert rig.catalog.landed == []
    rig.after(0.2)
    eventually(lambda: rig.catalog.landed)
    (batch,) = rig.catalog.landed
    assert (batch.frontier, [f.path for f in batch.files]) == (to(12), ["file:///5", "file:///9", "file:///12"])
    eventually(lambda: rig.committer.outstanding().committed == to(12))


def test_a_frontier_without_rows_waits_much_longer(rig: Rig) -> None:
    rig.committer.add(epoch(5, rows=0))
    rig.after(IDLE_INTERVAL_S - 1)
    time.sleep(0.05)
    assert rig.catalog.landed == []
    rig.after(2)
    eventually(lambda: rig.catalog.landed)


def test_an_epoch_that_brings_nothing_is_not_committed(rig: Rig) -> None:
    rig.committer.add(epoch(0, rows=0))
    rig.committer.drain(5)
    assert rig.catalog.keys == []


def test_what_comes_during_a_commit_is_the_next_batch(rig: Rig) -> None:
    rig.catalog.held.clear()
    rig.committer.add(epoch(5))
    rig.committer.hurry()
    assert rig.catalog.tried.wait(10)
    rig.committer.add(epoch(9))
    assert [p.frontier for p in rig.committer.outstanding().pending] == [to(5), to(9)]
    rig.catalog.held.set()
    rig.committer.drain(10)
    assert [b.frontier for b in rig.catalog.landed] == [to(5), to(9)]
    assert len(set(rig.catalog.keys)) == 2


def test_a_batch_keeps_its_key_and_its_contents_over_all_attempts(rig: Rig) -> None:
    rig.catalog.failures = [SinkUnavailable("500"), CommitConflict("moved"), SinkUnavailable("500")]
    rig.committer.add(epoch(5))
    rig.committer.hurry()
    eventually(lambda: len(rig.catalog.keys) == 1)
    rig.committer.add(epoch(9))
    for _ in range(3):
        rig.after(60)
        time.sleep(0.05)
    eventually(lambda: len(rig.catalog.landed) == 2)
    assert len(set(rig.catalog.keys[:4])) == 1
    assert [b.frontier for b in rig.catalog.landed] == [to(5), to(9)]


def test_attempts_come_ever_more_rarely(rig: Rig) -> None:
    rig.catalog.failures = [SinkUnavailable("down")] * 50
    rig.committer.add(epoch(5))
    rig.after(10)
    for _ in range(600):
        rig.after(1)
        time.sleep(0.0005)
    assert len(rig.catalog.keys) < 45


@pytest.mark.parametrize("failure", [Fenced("taken over"), InvariantViolation("bug")])
def test_a_fatal_failure_ends_the_commits_and_reaches_the_writer(rig: Rig, failure: PipelineError) -> None:
    rig.catalog.failures = [failure]
    rig.committer.add(epoch(5))
    with pytest.raises(type(failure)):
        rig.committer.drain(10)
    with pytest.raises(type(failure)):
        rig.committer.raise_failure()


def test_an_unforeseen_exception_is_fatal_too(rig: Rig) -> None:
    rig.catalog.failures = [KeyError("surprise")]
    rig.committer.add(epoch(5))
    with pytest.raises(InvariantViolation, match="KeyError"):
        rig.committer.drain(10)


def test_drain_says_why_it_could_not(rig: Rig) -> None:
    rig.catalog.failures = [SinkUnavailable("connection refused")] * 1000
    rig.committer.add(epoch(5))
    with pytest.raises(SinkUnavailable, match=r"within 0\.3 s.*connection refused"):
        rig.committer.drain(0.3)


def test_pressure_rises_with_epochs_and_holds_the_writer_back(rig: Rig) -> None:
    rig.catalog.held.clear()
    for number in range(MAX_EPOCHS):
        assert rig.committer.pressure() == pytest.approx(number / MAX_EPOCHS)
        rig.committer.wait_for_room()
        rig.committer.add(epoch(number + 1))
    assert rig.committer.pressure() == pytest.approx(1)
    released = threading.Event()
    thread = threading.Thread(target=lambda: (rig.committer.wait_for_room(), released.set()))
    thread.start()
    assert not released.wait(0.1)
    rig.committer.hurry()
    rig.catalog.held.set()
    assert released.wait(10)
    thread.join(10)


def test_stopping_leaves_what_waits_alone(rig: Rig) -> None:
    rig.committer.add(epoch(5))
    rig.committer.stop(10)
    assert rig.catalog.landed == []
    assert [p.frontier for p in rig.committer.outstanding().pending] == [to(5)]


def test_a_writer_held_back_is_told_what_ended_the_commits(rig: Rig) -> None:
    rig.catalog.failures = [Fenced("somebody else commits")]
    rig.catalog.held.clear()
    for number in range(MAX_EPOCHS):
        rig.committer.add(epoch(number + 1))
    rig.committer.hurry()
    rig.catalog.held.set()
    with pytest.raises(Fenced):
        rig.committer.wait_for_room()
