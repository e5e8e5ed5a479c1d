from __future__ import annotations

from random import Random

import pytest

from simulator.text import cut, micros, padded, rfc3339, rfc3339_ns, rfc3339_short, shortest
from simulator.wire import fragmented, payload_of, text_frame
from tests.unit.simulator.venue_double import frames_of


def test_numbers_keep_every_digit() -> None:
    assert padded(6183763, 2, 8) == "61837.63000000"
    assert padded(5, 8) == "0.00000005"
    assert padded(7, 0) == "7"
    assert padded(7, 0, 2) == "7.00"
    assert shortest(6170, 2) == "61.7"
    assert shortest(6100, 2) == "61"
    assert shortest(100, 0) == "100"
    assert cut(123456789, 9, 8) == "0.12345678"
    assert cut(12, 1, 3) == "1.200"


def test_times_in_each_form() -> None:
    time_us = micros("2026-08-09T21:05:38.50436Z")
    assert rfc3339(time_us) == "2026-08-09T21:05:38.504360Z"
    assert rfc3339_short(time_us) == "2026-08-09T21:05:38.50436Z"
    assert rfc3339_short(time_us // 1_000_000 * 1_000_000) == "2026-08-09T21:05:38Z"
    assert rfc3339_ns(time_us * 1000 + 120) == "2026-08-09T21:05:38.50436012Z"
    with pytest.raises(ValueError, match="does not match"):
        micros("yesterday")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_frames_carry_any_size(size: int) -> None:
    payload = b"x" * size
    frame = text_frame(payload)
    assert payload_of(frame) == payload
    assert frames_of(frame) == [(0x81, payload)]


def test_fragments_are_one_message() -> None:
    random = Random(1)
    payload = '{"price":"61837.63 €"}'.encode()
    for _ in range(50):
        pieces = frames_of(fragmented(text_frame(payload), random))
        assert len(pieces) >= 2
        assert b"".join(piece for _, piece in pieces) == payload
        firsts = [first for first, _ in pieces]
        assert firsts[0] == 0x01
        assert firsts[-1] == 0x80
        assert set(firsts[1:-1]) <= {0x00}
