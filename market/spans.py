"""A collection of closed intervals that answers: how far do those that start by `low` reach?"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import accumulate

from market.layout import NEVER


class Spans:
    """Intervals (low, high), possibly repeated; cheap where changes and questions come near the end."""

    __slots__ = ("_reach", "_spans")

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._spans = sorted(spans)
        self._reach: list[int] = []  # running maximum of `high`, as far as it has been needed

    def __len__(self) -> int:
        return len(self._spans)

    def add(self, span: tuple[int, int]) -> None:
        """Add one interval."""
        at = bisect_right(self._spans, span)
        self._spans.insert(at, span)
        del self._reach[at:]

    def remove(self, span: tuple[int, int]) -> None:
        """Remove one interval that is there."""
        at = bisect_left(self._spans, span)
        if self._spans[at] != span:
            raise KeyError(span)
        del self._spans[at]
        del self._reach[at:]

    def reach(self, low: int = NEVER) -> int:
        """Return the greatest end of the intervals that start at `low` or before; -NEVER without one."""
        count = len(self._spans) if low == NEVER else bisect_right(self._spans, (low, NEVER))
        if count == 0:
            return -NEVER
        known = len(self._reach)
        if known < count:
            highs = (high for _, high in self._spans[known:count])
            start = self._reach[-1] if known else -NEVER
            more = accumulate(highs, max, initial=start)
            next(more)
            self._reach.extend(more)
        return self._reach[count - 1]
