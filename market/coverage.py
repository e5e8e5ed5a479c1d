"""What feeds have vouched for, of one symbol: the union of their markers' stretches, as instants on the venue's time line."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from market.layout import NEVER

Stretch = tuple[int, int]
"""Instants, both ends inclusive."""


@dataclass(slots=True)
class CoverageChange:
    """What a marker changed inside of what was known: holes found beyond the ends, parts of holes closed."""

    uncovered: list[Stretch] = field(default_factory=list)
    covered: list[Stretch] = field(default_factory=list)


class Coverage:
    """Disjoint covered stretches in rising order, never adjacent; the last one's end may be moved on from outside."""

    __slots__ = ("stretches",)

    def __init__(self, stretches: list[list[int]] | None = None) -> None:
        self.stretches = stretches or []

    def uncovered(self, low: int, high: int) -> list[Stretch]:
        """Return the uncovered parts of [low, high]."""
        found = []
        at = low
        for first, last in self.stretches[self._first_ending_at(low) :]:
            if first > high:
                break
            if first > at:
                found.append((at, first - 1))
            at = last + 1
        if at <= high:
            found.append((at, high))
        return found

    def cover(self, first: int, last: int) -> CoverageChange:
        """Add a stretch."""
        change = CoverageChange()
        if not self.stretches:
            self.stretches.append([first, last])
            return change
        begin, end = self.stretches[0][0], self.stretches[-1][1]
        if first > end + 1:
            change.uncovered.append((end + 1, first - 1))
        elif last < begin - 1:
            change.uncovered.append((last + 1, begin - 1))
        else:
            change.covered = self.uncovered(max(first, begin), min(last, end))
        low = self._first_ending_at(first - 1)
        high = low
        while high < len(self.stretches) and self.stretches[high][0] <= last + 1:
            high += 1
        if low < high:
            first, last = min(first, self.stretches[low][0]), max(last, self.stretches[high - 1][1])
        self.stretches[low:high] = [[first, last]]
        return change

    def uncovered_after(self, time: int) -> int:
        """Return the least uncovered instant > time that lies before the newest stretch, or NEVER."""
        if self.stretches and time + 1 < self.stretches[-1][0]:
            for first, last in self.stretches[self._first_ending_at(time + 1) :]:
                if first > time + 1:
                    return time + 1
                time = last
        return NEVER

    def uncovered_before(self, time: int) -> int:
        """Return the greatest uncovered instant < time that lies before the newest stretch's end (there is a stretch)."""
        begin, end = self.stretches[-1]
        if time > begin:
            return begin - 1
        time = min(time - 1, end)
        first = self.stretches[self._first_ending_at(time)][0]
        return first - 1 if first <= time else time

    def _first_ending_at(self, time: int) -> int:
        # Position of the first stretch that ends at `time` or later; most questions are about the newest.
        last = len(self.stretches) - 1
        if last >= 1 and self.stretches[last - 1][1] < time:
            return last if self.stretches[last][1] >= time else last + 1
        return bisect_left(self.stretches, time, key=lambda stretch: stretch[1])
