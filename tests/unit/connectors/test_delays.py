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
