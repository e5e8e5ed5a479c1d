"""Limits kept and retries spread out, on the running loop's clock."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from connectors.venues.feeding import Limit


class Pacer:
    """Keeps a limit: at most `count` in any `seconds`."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._taken: deque[float] = deque()
        self._turn = asyncio.Lock()

    def wait_seconds(self, now: float) -> float:
        """Return how long the next one must wait; 0 if it may go now."""
        taken, limit = self._taken, self._limit
        while taken and taken[0] + limit.seconds <= now:
            taken.popleft()
        return taken[0] + limit.seconds - now if len(taken) >= limit.count else 0.0

    def take(self, now: float) -> None:
        """Count one that goes now."""
        self._taken.append(now)

    async def turn(self) -> None:
        """Wait until one may go, and count it; whoever asks first goes first."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            if (seconds := self.wait_seconds(loop.time())) > 0:
                await asyncio.sleep(seconds)
            self.take(loop.time())


@dataclass(slots=True)
class Backoff:
    """Waits before the next try: full jitter below a bound that doubles with each failure, up to a cap.

    Full jitter spreads the clients of a venue that has come back over the whole bound (Brooker, Exponential Backoff And
    Jitter, 2015).
    """

    first_seconds: float
    cap_seconds: float
    random: Callable[[], float]  # in [0, 1)
    _failures: int = 0

    def next_seconds(self, at_least: float | None = None) -> float:
        """Return the seconds to wait; `at_least`: what the venue asked for, which jitter may only lengthen."""
        bound = min(self.cap_seconds, self.first_seconds * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return (at_least or 0.0) + self.random() * bound

    def reset(self) -> None:
        """Begin again with the shortest waits."""
        self._failures = 0
