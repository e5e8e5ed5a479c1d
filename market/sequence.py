"""Accepted trade ids of one symbol as runs, and the holes between them (contiguous ids only)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from market.spans import Spans


class Hole(NamedTuple):
    """A missing id range between two accepted ids, and the event times of those two."""

    first: int
    last: int
    after: int
    before: int

    @property
    def span(self) -> tuple[int, int]:
        """The event times in rising order: what the hole may touch."""
        return (self.after, self.before) if self.after <= self.before else (self.before, self.after)


@dataclass(slots=True)
class Run:
    """Accepted ids without a hole, with the event times of both ends and the least and greatest of all."""

    first: int
    last: int
    first_time: int
    last_time: int
    min_time: int
    max_time: int

    def take_in(self, time: int) -> None:
        """Widen the times."""
        self.min_time = min(self.min_time, time)
        self.max_time = max(self.max_time, time)


@dataclass(slots=True)
class HoleChanges:
    """What a record did to the holes: those of before that are gone, and those that are new."""

    gone: list[Hole] = field(default_factory=list)
    new: dict[Hole, None] = field(default_factory=dict)

    def break_up(self, hole: Hole) -> None:
        """Note that an id of the hole came."""
        if hole in self.new:
            del self.new[hole]
        else:
            self.gone.append(hole)


class Runs:
    """Disjoint runs in rising order; the last one is the newest.

    `runs[-1]` may be changed from outside (the hot path extends it); its first id may not.
    """

    __slots__ = ("_firsts", "_older", "runs")

    def __init__(self, runs: list[Run] | None = None) -> None:
        self.runs = runs or []
        self._firsts = [run.first for run in self.runs]
        self._older: Spans | None = None  # times of all runs but the last

    def holds(self, number: int) -> bool:
        """Return whether the id was accepted."""
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and self.runs[at].last >= number

    def around(self, first: int, last: int) -> list[Run]:
        """Return the runs that meet [first, last], and the next one on either side."""
        low = max(bisect_right(self._firsts, first) - 1, 0)
        high = bisect_right(self._firsts, last) + 1
        return self.runs[low:high]

    def holes(self, first: int, last: int) -> Iterator[Hole]:
        """Yield the holes that meet [first, last], ascending."""
        near = self.around(first, last)
        for left, right in pairwise(near):
            if left.last + 1 <= last and right.first - 1 >= first:
                yield Hole(left.last + 1, right.first - 1, left.last_time, right.first_time)

    def accept(self, number: int, time: int, changes: HoleChanges) -> None:
        """Add an id that is not held."""
        at = bisect_right(self._firsts, number)
        left = self.runs[at - 1] if at else None
        right = self.runs[at] if at < len(self.runs) else None
        self._older = None
        if left is not None and right is not None:
            changes.break_up(Hole(left.last + 1, right.first - 1, left.last_time, right.first_time))
        joins_left = left is not None and left.last + 1 == number
        joins_right = right is not None and right.first - 1 == number
        if left is not None and not joins_left:
            changes.new[Hole(left.last + 1, number - 1, left.last_time, time)] = None
        if right is not None and not joins_right:
            changes.new[Hole(number + 1, right.first - 1, time, right.first_time)] = None
        if joins_left and left is not None:
            left.last, left.last_time = number, time
            left.take_in(time)
            if joins_right and right is not None:
                left.last, left.last_time = right.last, right.last_time
                left.take_in(right.min_time)
                left.take_in(right.max_time)
                del self.runs[at], self._firsts[at]
        elif joins_right and right is not None:
            right.first = self._firsts[at] = number
            right.first_time = time
            right.take_in(time)
        else:
            self.runs.insert(at, Run(number, number, time, time, time, time))
            self._firsts.insert(at, number)

    def bridges(self, low: int, high: int) -> bool:
        """Return whether one run has an event time ≤ low and one ≥ high."""
        if not self.runs:
            return False
        newest = self.runs[-1]
        if newest.min_time <= low and newest.max_time >= high:
            return True
        if self._older is None:
            self._older = Spans((run.min_time, run.max_time) for run in self.runs[:-1])
        return self._older.reach(low) >= high
