"""The simulator's clock: run time that starts at 0, at any speed, and the calendar time it stands for."""

from __future__ import annotations

from collections.abc import Callable

SECOND_US = 1_000_000


class Clock:
    """Virtual time. `start_us`: the epoch µs of run time 0; `speed`: virtual seconds a real second; `monotonic`: real seconds."""

    def __init__(self, start_us: int, speed: float, monotonic: Callable[[], float]) -> None:
        self.start_us = start_us
        self.speed = speed
        self._monotonic = monotonic
        self._began = monotonic()

    def run_us(self) -> int:
        """Return the µs of virtual time since the start."""
        return int((self._monotonic() - self._began) * self.speed * SECOND_US)

    def now_us(self) -> int:
        """Return the virtual time, epoch µs."""
        return self.start_us + self.run_us()

    def real(self) -> float:
        """Return real seconds, for what does not scale with the speed: pings, pace limits, ages of connections."""
        return self._monotonic()
