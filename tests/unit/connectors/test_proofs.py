from __future__ import annotations

import pytest

from connectors.sockets.proofs import Pulse, WallClock


def test_a_loop_that_did_not_run_is_noticed_by_either_clock() -> None:
    pulse = Pulse()
    pulse.beat(10.0, 1_000_000)
    assert not pulse.is_stalled(10.9, 1_900_000)
    assert pulse.is_stalled(11.1, 1_000_000)
    assert pulse.is_stalled(10.0, 2_100_000)


def test_a_quicker_wall_clock_is_no_standstill() -> None:
    pulse = Pulse(speed=20.0)
    pulse.beat(10.0, 1_000_000)
    assert not pulse.is_stalled(10.9, 19_000_000)
    assert pulse.is_stalled(10.0, 22_000_000)


def test_a_wall_clock_that_is_set_is_noticed_and_one_that_stands_still_or_is_slewed_is_not() -> None:
    clock = WallClock()
    moments = ((10.0, 0), (15.0, 5_900_000), (25.0, 5_900_000), (25.1, 3_609_000_000), (25.2, 9_000_000))
    told = [clock.step_seconds(at, us) for at, us in moments]
    assert told == [0.0, 0.0, 0.0, pytest.approx(3603.0), pytest.approx(-3600.0)]


def test_a_quicker_wall_clock_is_not_set() -> None:
    clock = WallClock(speed=20.0)
    assert [clock.step_seconds(at, us) for at, us in ((10.0, 0), (10.9, 18_000_000), (11.0, 41_000_000))] == [0.0, 0.0, pytest.approx(1.05)]
