"""The gap ledger of one symbol: which holes count as gaps, which parts cannot be filled, and the rows that say so."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from market.layout import NEVER
from market.sequence import Growth, Hole
from market.spans import Spans


class Segment(NamedTuple):
    """A missing id range in one state: a whole hole, or a part of one where some of it cannot be filled."""

    first: int
    last: int
    state: str
    after: int
    before: int
    reason: str


class Unfillable(NamedTuple):
    """Ids that a feed could not get."""

    first: int
    last: int
    reason: str


class Gaps:
    """Holes are gaps once the line (max `to_us` - grace) has reached their `before`; until then they wait.

    `spans` holds the times of the gaps: a gap touches a window iff its times meet it.
    """

    __slots__ = ("_queue", "_waiting", "spans", "unfillable")

    def __init__(self, unfillable: Iterable[Unfillable] = (), holes: Iterable[Hole] = (), line: int = -NEVER) -> None:
        self.unfillable = sorted(unfillable)  # disjoint
        found = list(holes)
        self.spans = Spans(hole.span for hole in found if hole.before <= line)
        self._waiting = {hole for hole in found if hole.before > line}
        self._queue = [(hole.before, hole) for hole in self._waiting]  # a heap; holes that wait no more are left in it
        heapify(self._queue)

    def next_line(self) -> int:
        """Return the least line at which a hole becomes a gap, or NEVER."""
        while self._queue and self._queue[0][1] not in self._waiting:
            heappop(self._queue)
        return self._queue[0][0] if self._queue else NEVER

    def due(self, line: int) -> list[Hole]:
        """Return the waiting holes that are gaps at this line, ascending by id."""
        return sorted(hole for hole in self._waiting if hole.before <= line)

    def open(self, holes: list[Hole]) -> list[Segment]:
        """Make waiting holes gaps; returns the ledger's rows."""
        for hole in holes:
            self._waiting.discard(hole)
            self.spans.add(hole.span)
        return [segment for hole in holes for segment in self._segments(hole)]

    def change(self, growth: Growth, line: int) -> list[Segment]:
        """Follow what a record does to the holes; returns the ledger's rows, ascending by id."""
        old: list[Segment] = []
        new: list[Segment] = []
        for hole in growth.gone:
            if hole in self._waiting:
                self._waiting.remove(hole)
            else:
                self.spans.remove(hole.span)
                old += self._segments(hole)
        for hole in growth.new:
            if hole.before <= line:
                self.spans.add(hole.span)
                new += self._segments(hole)
            else:
                self._waiting.add(hole)
                heappush(self._queue, (hole.before, hole))
        return _difference(old, new) if old or new else []

    def give_up(self, given: Unfillable, holes: Iterable[Hole]) -> list[Segment]:
        """Note ids that cannot be got; `holes`: those that meet them. What was given up before keeps its reason."""
        gaps = [hole for hole in holes if hole not in self._waiting]
        old = [segment for hole in gaps for segment in self._segments(hole)]
        free = given.first
        for first, last, _ in self._given_up(given.first, given.last):
            if free < first:
                self._insert(Unfillable(free, first - 1, given.reason))
            free = last + 1
        if free <= given.last:
            self._insert(Unfillable(free, given.last, given.reason))
        return _difference(old, [segment for hole in gaps for segment in self._segments(hole)])

    def _insert(self, part: Unfillable) -> None:
        self.unfillable.insert(bisect_left(self.unfillable, part), part)

    def _given_up(self, first: int, last: int) -> list[Unfillable]:
        low = bisect_right(self.unfillable, (first, NEVER, "")) - 1
        if low < 0 or self.unfillable[low].last < first:
            low += 1
        return self.unfillable[low : bisect_right(self.unfillable, (last, NEVER, ""))]

    def _segments(self, hole: Hole) -> list[Segment]:
        found = []
        free = hole.first
        for first, last, reason in self._given_up(hole.first, hole.last):
            if free < first:
                found.append(Segment(free, first - 1, "open", hole.after, hole.before, ""))
            found.append(Segment(max(first, hole.first), min(last, hole.last), "unfillable", hole.after, hole.before, reason))
            free = last + 1
        if free <= hole.last:
            found.append(Segment(free, hole.last, "open", hole.after, hole.before, ""))
        return found


def _difference(old: list[Segment], new: list[Segment]) -> list[Segment]:
    # `filled` for each range that is no more, then what is new or says something else; a range comes first by its id.
    kept, ranges = set(old), {(segment.first, segment.last) for segment in new}
    filled = [s._replace(state="filled", reason="") for s in old if (s.first, s.last) not in ranges]
    told = [s for s in new if s not in kept]
    return sorted([*filled, *told], key=lambda s: (s.first, s.state != "filled", s.last))
