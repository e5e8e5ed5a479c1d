from __future__ import annotations

from connectors.sockets.proofs import Pulse


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
