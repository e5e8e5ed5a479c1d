"""Accepted trade ids of one symbol as runs, and the holes between them (contiguous ids only)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from typing import Final, NamedTuple

from market.spans import Spans

_FIRST: Final = attrgetter("first")


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


@dataclass(frozen=True, slots=True)
class Growth:
    """What new ids will do: holes that they break up and leave, and what grows together with them.

    Each of `joined` lists what becomes one run: runs of before, and new ids as runs of one.
    """

    gone: list[Hole]
    new: list[Hole]
    joined: list[list[Run]]
    ids: frozenset[int]


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

    def holes(self, first: int, last: int) -> list[Hole]:
        """Return the holes that meet [first, last], ascending."""
        return [hole for hole in _holes_between(self.around(first, last)) if hole.first <= last and hole.last >= first]

    def growth(self, new: Sequence[tuple[int, int]]) -> Growth:
        """Return what accepting these (id, time) pairs will do; they are not held, and ascend by id."""
        near = self.around(new[0][0], new[-1][0])
        after = [*near, *(Run(number, number, time, time, time, time) for number, time in new)]
        after.sort(key=_FIRST)
        old, left = _holes_between(near), _holes_between(after)
        ids = frozenset(number for number, _ in new)
        joined = [[after[0]]]
        for before, run in pairwise(after):
            if before.last + 1 == run.first:
                joined[-1].append(run)
            else:
                joined.append([run])
        return Growth(
            gone=[hole for hole in old if hole not in left],
            new=[hole for hole in left if hole not in old],
            joined=[group for group in joined if len(group) > 1 or group[0].first in ids],
            ids=ids,
        )

    def accept(self, number: int, time: int) -> None:
        """Add an id that is not held."""
        at = bisect_right(self._firsts, number)
        left = self.runs[at - 1] if at else None
        right = self.runs[at] if at < len(self.runs) else None
        self._older = None
        joins_right = right is not None and right.first - 1 == number
        if left is not None and left.last + 1 == number:
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


def _holes_between(runs: list[Run]) -> list[Hole]:
    return [
        Hole(left.last + 1, right.first - 1, left.last_time, right.first_time)
        for left, right in pairwise(runs)
        if right.first - left.last > 1
    ]
