"""The simulator's clock: run time that starts at 0, at any speed, and the calendar time it stands for."""

from __future__ import annotations

from collections.abc import Callable

SECOND_US = 1_000_000


class Clock:
    """Virtual time.

    Args:
        start_us: the epoch µs of run time 0.
        speed: virtual seconds a real second.
        monotonic: real seconds.
        from_us: the run time it begins with.
        halt_us: the run time at which it stands still; None: never.
        waits: whether it stands, 1 µs before its beginning, until it is told to run.
    """

    def __init__(
        self,
        start_us: int,
        speed: float,
        monotonic: Callable[[], float],
        *,
        from_us: int = 0,
        halt_us: int | None = None,
        waits: bool = False,
    ) -> None:
        self.start_us = start_us
        self.speed = speed
        self.from_us = from_us
        self.halt_us = halt_us
        self._monotonic = monotonic
        self._began = None if waits else monotonic()

    @property
    def waits(self) -> bool:
        """Whether nobody has told it to run."""
        return self._began is None

    def begin(self, *, after_seconds: float) -> None:
        """Run, so many real seconds from now."""
        self._began = self._monotonic() + after_seconds

    def running_seconds(self) -> float | None:
        """Return for how many real seconds it runs; negative: it will; None: it waits."""
        return None if self._began is None else self._monotonic() - self._began

    def run_us(self) -> int:
        """Return the µs of virtual time since the start."""
        return run_time_us(self.running_seconds(), self.speed, self.from_us, self.halt_us)

    def now_us(self) -> int:
        """Return the virtual time, epoch µs."""
        return self.start_us + self.run_us()

    def real(self) -> float:
        """Return real seconds, for what does not scale with the speed: pings, pace limits, ages of connections."""
        return self._monotonic()


def run_time_us(running_seconds: float | None, speed: float, from_us: int, halt_us: int | None) -> int:
    """Return the run time of a clock that has been running for so long."""
    if running_seconds is None or running_seconds < 0:
        return from_us - 1
    run_us = from_us + int(running_seconds * speed * SECOND_US)
    return run_us if halt_us is None else min(run_us, halt_us)
