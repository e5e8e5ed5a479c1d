from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from connectors.refill import known_ids
from connectors.refill.known_ids import KnownIds, without


def add(known: KnownIds, *ids: int) -> int:
    return known.add(np.array(ids, np.int64), np.array([time_of(i) for i in ids], np.int64))


def time_of(number: int) -> int:
    return number * 10 + (number * 7) % 13  # rising, with small steps back


def ids_of(known: KnownIds) -> list[int]:
    return [number for run in known.runs for number in range(run.first, run.last + 1)]


def test_consecutive_ids_are_one_run_with_the_times_of_its_ends() -> None:
    known = KnownIds()
    assert add(known, 5, 6, 7) == 3
    assert add(known, 8, 9) == 2
    (run,) = known.runs
    assert (run.first, run.last, run.first_time, run.last_time) == (5, 9, time_of(5), time_of(9))
    assert (run.min_time, run.max_time) == (min(map(time_of, range(5, 10))), max(map(time_of, range(5, 10))))


def test_holes_have_the_times_around_them() -> None:
    known = KnownIds()
    add(known, 5, 6, 10)
    (hole,) = known.holes()
    assert (hole.first, hole.last, hole.after, hole.before) == (7, 9, time_of(6), time_of(10))
    assert add(known, 9, 7, 8, 7) == 3
    assert known.holes() == []


def test_the_lowest_of_too_many_runs_are_forgotten() -> None:
    known = KnownIds()
    add(known, *range(0, 4 * known_ids.MAX_RUNS, 2))
    assert len(known.runs) == known_ids.MAX_RUNS
    assert known.runs[-1].last == 4 * known_ids.MAX_RUNS - 2


def test_nothing_is_known_at_first() -> None:
    known = KnownIds()
    assert (add(known), known.newest, known.holes(), known.below(5), known.run_of(5)) == (0, None, [], None, None)
    assert known.missing(3, 5) == [(3, 5)]


@given(st.lists(st.lists(st.integers(0, 60), max_size=12), max_size=12), st.integers(0, 60), st.integers(0, 20))
def test_runs_are_a_set(batches: list[list[int]], first: int, length: int) -> None:
    known, expected = KnownIds(), set[int]()
    for batch in batches:
        assert add(known, *batch) == len(set(batch) - expected)
        expected |= set(batch)
    assert ids_of(known) == sorted(expected)
    assert all(a.last + 1 < b.first for a, b in pairwise(known.runs))
    for run in known.runs:
        times = [time_of(i) for i in range(run.first, run.last + 1)]
        assert (run.first_time, run.last_time, run.min_time, run.max_time) == (times[0], times[-1], min(times), max(times))
    absent = [number for a, b in known.missing(first, first + length) for number in range(a, b + 1)]
    assert absent == [number for number in range(first, first + length + 1) if number not in expected]
    run = known.run_of(first)
    assert (run is not None) == (first in expected)
    below = known.below(first)
    assert (below.first if below else None) == max((r.first for r in known.runs if r.first < first), default=None)


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_absorbing_is_a_union(one: set[int], other: set[int]) -> None:
    a, b = KnownIds(), KnownIds()
    add(a, *one)
    add(b, *other)
    a.absorb(b)
    assert ids_of(a) == sorted(one | other)


def test_parts_are_taken_out_of_a_range() -> None:
    assert without((5, 10), [(0, 2), (1, 5), (3, 4), (7, 8), (12, 13)]) == [(6, 6), (9, 10)]
    assert without((5, 10), [(0, 20)]) == []
    assert without((5, 10), []) == [(5, 10)]
