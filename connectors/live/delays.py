"""How long trades take from the venue's clock to ours: the bounds that markers hold back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from market.interval import SECOND
from market.rules import MAX_AHEAD_US
from market.trade import Int64s

WINDOW_US: Final = 600 * SECOND
_BUCKET_US: Final = 10 * SECOND
_SETTLED_US: Final = 2 * SECOND
_SETTLED_TRADES: Final = 50


@dataclass(frozen=True, slots=True)
class Bounds:
    """Smallest and largest receive - event time, µs; negative where our clock is behind the venue's."""

    smallest: int
    largest: int


class DelayWindow:
    """Bounds over the live trades of the last 10 minutes before the newest one; a quiet market keeps its last bounds.

    `clock_speed`: of the times that are given; another than 1 in simulations. A time more than an hour off is damage and not delay: one
    such trade would hold back every marker for 10 minutes. Where nothing else comes any more, a clock is off, and there are no bounds.
    """

    def __init__(self, clock_speed: float = 1.0) -> None:
        self._speed = clock_speed
        self._buckets: dict[int, Bounds] = {}  # by receive time / bucket
        self._bounds: Bounds | None = None
        self._first_us = 0
        self._trades = 0
        self._damaged = 0  # trades in a row whose times are damage

    @property
    def is_far_off(self) -> bool:
        """Whether all of the last trades, and many, were more than an hour off: a clock is, and nothing can be asserted."""
        return self._damaged >= _SETTLED_TRADES

    @property
    def bounds(self) -> Bounds | None:
        """The bounds now; None before the first live trade."""
        return self._bounds

    def forget(self) -> None:
        """Begin anew: the clock was set, and says nothing about delays of before."""
        self._buckets.clear()
        self._bounds, self._trades = None, 0

    def settled(self, now_us: int) -> Bounds | None:
        """Return the bounds once they say something: 50 trades after the first one, or 2 s.

        A first trade alone may have been slow. A marker that begins its delay before the confirmation would then vouch for what
        quicker trades had brought before.
        """
        enough = self._trades >= _SETTLED_TRADES * self._speed or now_us - self._first_us >= _SETTLED_US * self._speed
        return self._bounds if enough else None

    def add(self, received_us: Int64s, event_us: Int64s) -> None:
        """Take live trades, snapshots left out."""
        delays = received_us - event_us
        usable = (delays >= -MAX_AHEAD_US) & (delays <= MAX_AHEAD_US)
        self._damaged = 0 if usable.any() else self._damaged + len(delays)
        if self._damaged >= _SETTLED_TRADES:
            self.forget()
        delays, received_us = delays[usable], received_us[usable]
        if not len(delays):
            return
        if not self._trades:
            self._first_us = int(received_us.min())
        self._trades += len(delays)
        numbers = received_us // _BUCKET_US
        for number in np.unique(numbers).tolist():
            mine = delays[numbers == number]
            known = self._buckets.get(number, Bounds(int(mine[0]), int(mine[0])))
            self._buckets[number] = Bounds(min(known.smallest, int(mine.min())), max(known.largest, int(mine.max())))
        oldest = max(self._buckets) - WINDOW_US // _BUCKET_US
        self._buckets = {number: bounds for number, bounds in self._buckets.items() if number >= oldest}
        every = self._buckets.values()
        self._bounds = Bounds(min(b.smallest for b in every), max(b.largest for b in every))
