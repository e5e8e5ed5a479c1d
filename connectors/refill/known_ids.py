"""Which trade ids of one symbol a feed has put into its topic, as runs, and what is missing between them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise
from operator import attrgetter
from typing import Final

import numpy as np

from market.sequence import Hole, Run
from market.trade import Int64s

Range = tuple[int, int]
"""First and last id."""

MAX_RUNS: Final = 1_000
_FIRST: Final = attrgetter("first")


class KnownIds:
    """Disjoint runs of ids in rising order, with holes between them; of more than `MAX_RUNS` the lowest are forgotten."""

    __slots__ = ("runs",)

    def __init__(self) -> None:
        self.runs: list[Run] = []

    @property
    def newest(self) -> Run | None:
        """The run with the highest ids."""
        return self.runs[-1] if self.runs else None

    def add(self, ids: Int64s, times: Int64s) -> int:
        """Take ids with their event times (epoch µs), in any order; return how many of them were not known."""
        n = len(ids)
        if n == 0:
            return 0
        last = self.newest
        if last is not None and ids[0] == last.last + 1:
            # Mostly a few ids that go on where the last ones ended: lists are quicker than arrays for so few.
            numbers, moments = ids.tolist(), times.tolist()
            if numbers == list(range(numbers[0], numbers[0] + n)):
                last.last, last.last_time = numbers[-1], moments[-1]
                last.min_time, last.max_time = min(last.min_time, *moments), max(last.max_time, *moments)
                return n
        ids, first_seen = np.unique(ids, return_index=True)
        times = times[first_seen]
        starts = [0, *(np.flatnonzero(np.diff(ids) > 1) + 1).tolist(), len(ids)]
        new = sum(self._join(_run(ids[a:b], times[a:b])) for a, b in pairwise(starts))
        del self.runs[:-MAX_RUNS]
        return new

    def absorb(self, other: KnownIds) -> None:
        """Take all that another one knows."""
        for run in other.runs:
            self._join(run)
        del self.runs[:-MAX_RUNS]

    def _join(self, piece: Run) -> int:
        # Replaces all runs that touch the piece by one; returns how many ids of the piece are new.
        low = bisect_right(self.runs, piece.first - 1, key=_FIRST) - 1
        if low < 0 or self.runs[low].last < piece.first - 1:
            low += 1
        high = bisect_right(self.runs, piece.last + 1, key=_FIRST)
        touched = self.runs[low:high]
        if not touched:
            self.runs.insert(low, piece)
            return piece.last - piece.first + 1
        left, right = touched[0], touched[-1]
        new = piece.last - piece.first + 1 - sum(max(0, min(r.last, piece.last) - max(r.first, piece.first) + 1) for r in touched)
        begin = left if left.first <= piece.first else piece
        end = right if right.last >= piece.last else piece
        self.runs[low:high] = [
            Run(
                begin.first,
                end.last,
                begin.first_time,
                end.last_time,
                min(piece.min_time, *(r.min_time for r in touched)),
                max(piece.max_time, *(r.max_time for r in touched)),
            )
        ]
        return new

    def run_of(self, number: int) -> Run | None:
        """Return the run that holds an id."""
        at = bisect_right(self.runs, number, key=_FIRST) - 1
        return self.runs[at] if at >= 0 and self.runs[at].last >= number else None

    def below(self, number: int) -> Run | None:
        """Return the newest run that begins below an id."""
        at = bisect_right(self.runs, number - 1, key=_FIRST) - 1
        return self.runs[at] if at >= 0 else None

    def holes(self) -> list[Hole]:
        """Return what is missing between the runs, ascending."""
        return [Hole(a.last + 1, b.first - 1, a.last_time, b.first_time) for a, b in pairwise(self.runs)]

    def missing(self, first: int, last: int) -> list[Range]:
        """Return the parts of a range that are not known, ascending; below the lowest run and above the newest one too."""
        return without((first, last), ((run.first, run.last) for run in self.runs))


def without(whole: Range, parts: Iterable[Range]) -> list[Range]:
    """Return what is left of a range, ascending; `parts` ascend and may overlap it in any way."""
    found = []
    free, last = whole
    for a, b in parts:
        if a > last:
            break
        if free < a:
            found.append((free, a - 1))
        free = max(free, b + 1)
    if free <= last:
        found.append((free, last))
    return found


def _run(ids: Int64s, times: Int64s) -> Run:
    return Run(int(ids[0]), int(ids[-1]), int(times[0]), int(times[-1]), int(times.min()), int(times.max()))
