"""Runs, gaps, coverage and spans against sets."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from market.coverage import Coverage
from market.gaps import Gaps, Unfillable
from market.layout import NEVER
from market.sequence import Growth, Hole, Runs
from market.spans import Spans


def naive_holes(times: dict[int, int]) -> list[Hole]:
    return [Hole(a + 1, b - 1, times[a], times[b]) for a, b in pairwise(sorted(times)) if b - a > 1]


def naive_runs(times: dict[int, int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for number in sorted(times):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


@pytest.mark.parametrize("seed", range(30))
def test_runs_hold_what_was_accepted(seed: int) -> None:
    dice = random.Random(seed)
    runs, times = Runs(), dict[int, int]()
    for _ in range(60):
        before = naive_holes(times)
        asked = {dice.randrange(80): dice.randrange(50) for _ in range(dice.randrange(1, 4))}
        assert all(runs.holds(number) == (number in times) for number in asked)
        new = sorted((number, time) for number, time in asked.items() if number not in times)
        growth = runs.growth(new) if new else Growth([], [], [], frozenset())
        old_runs = [(run.first, run.last) for run in runs.runs]
        joined = [[(run.first, run.last) for run in group] for group in growth.joined]
        for number, time in new:
            runs.accept(number, time)
            times[number] = time
        after = naive_holes(times)
        assert growth.gone == [hole for hole in before if hole not in after]
        assert growth.new == [hole for hole in after if hole not in before]
        merged = [run for run in naive_runs(times) if any(number in asked for number in run if number in dict(new))]
        assert [[group[0][0], group[-1][1]] for group in joined] == [[run[0], run[-1]] for run in merged]
        assert all((first, last) in old_runs or first in growth.ids for group in joined for first, last in group)
        low = dice.randrange(80)
        high = low + dice.randrange(20)
        assert runs.holes(low, high) == [hole for hole in after if hole.first <= high and hole.last >= low]
        found = [[r.first, r.last, r.first_time, r.last_time, r.min_time, r.max_time] for r in runs.runs]
        spans = [[times[n] for n in run] for run in naive_runs(times)]
        assert found == [
            [run[0], run[-1], span[0], span[-1], min(span), max(span)] for run, span in zip(naive_runs(times), spans, strict=True)
        ]
        u = dice.randrange(50)
        v = u + dice.randrange(10)
        assert runs.bridges(u, v) == any(min(span) <= u and max(span) >= v for span in spans)


def test_without_runs_nothing_is_bridged() -> None:
    assert not Runs().bridges(1, 2)
    assert Runs().holes(0, 10) == []


def test_span_of_a_hole_rises_where_its_times_fall() -> None:
    assert Hole(1, 2, 9, 5).span == (5, 9)
    assert Hole(1, 2, 5, 9).span == (5, 9)


@pytest.mark.parametrize("seed", range(20))
def test_spans_answer_as_a_search_through_all(seed: int) -> None:
    dice = random.Random(seed)
    held = [(low, low + dice.randrange(30)) for low in (dice.randrange(100) for _ in range(dice.randrange(20)))]
    spans = Spans(held)
    for _ in range(200):
        if held and dice.random() < 0.4:
            spans.remove(held.pop(dice.randrange(len(held))))
        else:
            held.append((low := dice.randrange(100), low + dice.randrange(30)))
            spans.add(held[-1])
        low = dice.randrange(110)
        assert len(spans) == len(held)
        assert spans.reach(low) == max((high for first, high in held if first <= low), default=-NEVER)
        assert spans.reach() == max((high for _, high in held), default=-NEVER)


def test_span_that_is_not_there_cannot_be_removed() -> None:
    spans = Spans([(1, 5), (3, 4)])
    for missing in ((2, 3), (9, 9)):
        with pytest.raises((KeyError, IndexError)):
            spans.remove(missing)


@pytest.mark.parametrize("seed", range(30))
def test_coverage_is_the_union_of_its_stretches(seed: int) -> None:
    dice = random.Random(seed)
    coverage, covered = Coverage(), set[int]()
    for _ in range(30):
        first = dice.randrange(100)
        last = first + dice.randrange(1, 12)
        ends = (min(covered), max(covered)) if covered else None
        change = coverage.cover(first, last)
        new = set(range(first, last + 1)) - covered
        covered |= new
        told = {t for low, high in change.covered for t in range(low, high + 1)}
        assert told == ({t for t in new if ends[0] <= t <= ends[1]} if ends else set())
        holes = {t for low, high in change.uncovered for t in range(low, high + 1)}
        inside = set(range(min(covered), max(covered))) - covered
        assert holes == ({t for t in inside if not ends[0] <= t <= ends[1]} if ends else set())
        low = dice.randrange(-5, 120)
        high = low + dice.randrange(20)
        parts = coverage.uncovered(low, high)
        assert [t for a, b in parts for t in range(a, b + 1)] == [t for t in range(low, high + 1) if t not in covered]
        begin = coverage.stretches[-1][0]
        assert coverage.uncovered_after(low) == min((t for t in range(low + 1, begin) if t not in covered), default=NEVER)
        below = min(low - 1, coverage.stretches[-1][1])
        assert coverage.uncovered_before(low) == next(t for t in range(below, -200, -1) if t not in covered)
        assert all(b[0] - a[1] > 1 for a, b in pairwise(coverage.stretches))


def test_without_coverage_everything_is_uncovered() -> None:
    assert Coverage().uncovered(3, 5) == [(3, 5)]
    assert Coverage().uncovered_after(3) == NEVER


def test_given_up_ids_are_told_part_by_part() -> None:
    hole = Hole(10, 20, 1, 2)
    gaps = Gaps(holes=[hole], line=2)
    assert gaps.spans.reach(1) == 2
    rows = gaps.give_up(Unfillable(5, 12, "a"), [hole])
    assert [(r.first, r.last, r.state, r.reason) for r in rows] == [
        (10, 20, "filled", ""), (10, 12, "unfillable", "a"), (13, 20, "open", ""),
    ]  # fmt: skip
    rows = gaps.give_up(Unfillable(11, 30, "b"), [hole])
    assert [(r.first, r.last, r.state, r.reason) for r in rows] == [(13, 20, "unfillable", "b")]


def test_waiting_holes_are_no_gaps_until_the_line_reaches_them() -> None:
    holes = [Hole(10, 20, 1, 5), Hole(30, 40, 5, 3)]
    gaps = Gaps(holes=holes, line=2)
    assert (gaps.next_line(), gaps.due(2), gaps.due(9)) == (3, [], holes)
    assert [(r.first, r.state) for r in gaps.open(gaps.due(3))] == [(30, "open")]
    assert (gaps.next_line(), gaps.spans.reach()) == (5, 5)
    assert gaps.change(Growth([holes[0]], [], [], frozenset()), 3) == []
    assert gaps.next_line() == NEVER
