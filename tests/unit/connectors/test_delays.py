from __future__ import annotations

import numpy as np

from connectors.live.delays import Bounds, DelayWindow
from market.interval import SECOND

T0 = 1_700_000_000_000_000


def add(window: DelayWindow, *trades: tuple[int, int]) -> None:
    """Trades as (received, delay), µs from `T0`."""
    received = np.array([T0 + at for at, _ in trades], np.int64)
    window.add(received, received - np.array([delay for _, delay in trades], np.int64))


def test_there_are_no_bounds_before_the_first_trade() -> None:
    window = DelayWindow()
    add(window)
    assert window.bounds is None


def test_bounds_are_smallest_and_largest_also_below_zero() -> None:
    window = DelayWindow()
    add(window, (0, 70), (5, -1_200_000), (9, 3))
    assert window.bounds == Bounds(-1_200_000, 70)


def test_bounds_forget_what_is_older_than_ten_minutes_before_the_newest() -> None:
    window = DelayWindow()
    add(window, (0, 900))
    add(window, (599 * SECOND, 5))
    assert window.bounds == Bounds(5, 900)
    add(window, (615 * SECOND, 7))
    assert window.bounds == Bounds(5, 7)


def test_one_batch_may_span_many_buckets() -> None:
    window = DelayWindow()
    add(window, (0, 900), (300 * SECOND, 4), (700 * SECOND, 6))
    assert window.bounds == Bounds(4, 6)


def test_times_more_than_an_hour_off_are_no_delays() -> None:
    window = DelayWindow()
    add(window, (0, 3_601 * SECOND), (1, -3_601 * SECOND))
    assert window.bounds is None
    add(window, (0, 10), (1, 3_601 * SECOND))
    assert window.bounds == Bounds(10, 10)


def test_a_quicker_clock_settles_after_as_many_real_seconds() -> None:
    window = DelayWindow(clock_speed=20.0)
    add(window, *((n, 5) for n in range(60)))
    assert window.settled(T0 + 39 * SECOND) is None
    assert window.settled(T0 + 41 * SECOND) == Bounds(5, 5)


def test_a_clock_that_was_set_far_costs_no_time() -> None:
    window = DelayWindow()
    add(window, (0, 900), (60 * 365 * 86_400 * SECOND, 4))
    assert window.bounds == Bounds(4, 4)


def test_bounds_that_are_forgotten_are_not_settled_until_trades_come() -> None:
    window = DelayWindow()
    add(window, *((k, 900) for k in range(60)))
    assert window.settled(T0) == Bounds(900, 900)
    window.forget()
    assert window.bounds is None
    add(window, (-3_000 * SECOND, 7))
    assert window.settled(T0 - 3_000 * SECOND) is None
    assert window.settled(T0 - 2_990 * SECOND) == Bounds(7, 7)


def test_many_trades_more_than_an_hour_off_and_no_others_leave_no_bounds() -> None:
    window = DelayWindow()
    add(window, *((k, 900) for k in range(60)))
    add(window, *((k, 7_200 * SECOND) for k in range(100, 149)))
    assert window.bounds == Bounds(900, 900)
    assert not window.is_far_off
    add(window, (150, -7_200 * SECOND))
    assert window.bounds is None
    assert window.is_far_off
    add(window, (151, 800))
    assert window.bounds == Bounds(800, 800)
    assert not window.is_far_off
