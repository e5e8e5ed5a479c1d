"""A refill plan of one symbol, played through call by call."""

from __future__ import annotations

import numpy as np

from connectors.live.delays import Bounds
from connectors.refill.refill_plan import Ask, GivenUp, Pace, RefillPlan
from market.interval import SECOND
from market.trade import Int64s

NOW = 1_767_225_600 * SECOND
BOUNDS = Bounds(50_000, 200_000)
PACE = Pace(settle_seconds=1.0, again_seconds=(2.0, 4.0))
PAGE = 10


def time_of(number: int) -> int:
    return NOW + number * SECOND


def ids(*numbers: int) -> tuple[Int64s, Int64s]:
    return np.array(numbers, np.int64), np.array([time_of(n) for n in numbers], np.int64)


class Script:
    """A plan, and shorthand for one symbol."""

    def __init__(self, pace: Pace = PACE) -> None:
        self.sizes: list[int] = []
        self.plan = RefillPlan(PAGE, pace, self.sizes.append)

    def see(self, *numbers: int, at: float = 0.0, symbol: str = "A/B") -> None:
        self.plan.observed(symbol, *ids(*numbers), at)

    def next(self, at: float, now_us: int = NOW) -> Ask:
        ask = self.plan.next(at, now_us, BOUNDS)
        assert ask is not None
        return ask

    def nothing_due(self, at: float, now_us: int = NOW) -> bool:
        return self.plan.next(at, now_us, BOUNDS) is None

    def page(self, ask: Ask, *numbers: int, at: float, full: bool = True, asked_us: int = NOW) -> list[GivenUp]:
        return self.plan.answered(ask, *ids(*numbers), is_full=full, asked_us=asked_us, at=at)[1]


def wanted(ask: Ask) -> tuple[str, int, int | None, int]:
    return ask.symbol, ask.wanted.first_id, ask.wanted.last_id, ask.wanted.rows
