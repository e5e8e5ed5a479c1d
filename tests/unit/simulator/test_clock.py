from __future__ import annotations

import pytest

from simulator.clock import Clock

START_US = 1_700_000_000_000_000


class Seconds:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


def test_time_runs_at_its_speed(seconds: Seconds) -> None:
    clock = Clock(START_US, 20.0, seconds)
    assert clock.now_us() == START_US
    seconds.now += 1.5
    assert clock.run_us() == 30_000_000
    assert clock.running_seconds() == 1.5
    assert clock.real() == 101.5


def test_it_waits_just_before_its_beginning_until_it_is_told(seconds: Seconds) -> None:
    clock = Clock(START_US, 20.0, seconds, from_us=5_000_000, waits=True)
    seconds.now += 10
    assert (clock.waits, clock.running_seconds(), clock.run_us()) == (True, None, 4_999_999)
    clock.begin(after_seconds=0.5)
    assert (clock.waits, clock.running_seconds(), clock.run_us()) == (False, -0.5, 4_999_999)
    seconds.now += 0.5
    assert clock.run_us() == 5_000_000
    seconds.now += 1
    assert clock.run_us() == 25_000_000


def test_it_stands_still_where_it_is_to_halt(seconds: Seconds) -> None:
    clock = Clock(START_US, 10.0, seconds, halt_us=15_000_000)
    seconds.now += 1.5
    assert clock.run_us() == 15_000_000
    seconds.now += 100
    assert clock.run_us() == 15_000_000
