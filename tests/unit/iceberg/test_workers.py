"""Work of one lane stays in order on shared threads; errors stay with who asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sinks.iceberg.workers import Lane, Workers


class Idle:
    def __init__(self) -> None:
        self.flushed = 0
        self.hurried = 0

    def begin_flush(self) -> None:
        self.flushed += 1

    def hurry(self) -> None:
        self.hurried += 1


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers()
    table = Idle()
    workers.join(table)
    yield workers
    workers.leave(table)


def test_a_lane_keeps_its_order_while_lanes_run_side_by_side(workers: Workers) -> None:
    lanes = [Lane(workers) for _ in range(5)]
    seen: list[list[int]] = [[] for _ in lanes]
    both = threading.Barrier(2, timeout=10)
    futures: list[Any] = [lane.submit(both.wait) for lane in lanes[:2]]  # would never return one after the other
    for number in range(200):
        for lane, numbers in zip(lanes, seen, strict=True):
            futures.append(lane.submit(lambda numbers=numbers, number=number: numbers.append(number)))
    for future in futures:
        future.result(10)
    assert seen == [list(range(200))] * 5


def test_an_error_is_its_futures_and_the_lane_goes_on(workers: Workers) -> None:
    lane = Lane(workers)
    broken = lane.submit(lambda: 1 / 0)
    after = lane.submit(lambda: 42)
    assert after.result(10) == 42
    with pytest.raises(ZeroDivisionError):
        broken.result(10)


def test_threads_end_with_the_last_table_and_begin_again() -> None:
    workers = Workers()
    first, second = Idle(), Idle()
    for _ in range(3):
        workers.join(first)
        workers.join(second)
        threads = list(workers._started)
        workers.leave(first)
        assert Lane(workers).submit(lambda: 1).result(10) == 1
        workers.leave(second)
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def test_a_barrier_of_one_table_begins_it_for_all(workers: Workers) -> None:
    tables = [Idle(), Idle()]
    for table in tables:
        workers.join(table)
    workers.begin_barrier()
    workers.hurry()
    assert [(t.flushed, t.hurried) for t in tables] == [(1, 1), (1, 1)]
    for table in tables:
        workers.leave(table)
