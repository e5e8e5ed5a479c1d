"""Limits kept and retries spread out, on the running loop's clock."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from connectors.venues.feeding import Limit

LONGEST_WAIT_S: Final = 3 * 86_400.0  # the longest ban that a venue announces


class Pacer:
    """Keeps a limit: at most `count` in any `seconds`, and any `count` of them at once."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._taken: deque[float] = deque()

    def wait_seconds(self, now: float) -> float:
        """Return how long the next one must wait; 0 if it may go now."""
        taken, limit = self._taken, self._limit
        while taken and taken[0] + limit.seconds <= now:
            taken.popleft()
        return taken[0] + limit.seconds - now if len(taken) >= limit.count else 0.0

    def take(self, now: float) -> None:
        """Count one that goes now."""
        self._taken.append(now)


class Turns:
    """Keeps a limit and never uses it up: half of it may go at once, the rest is spread evenly over the limit's time.

    So an outage in which everybody tries again and again does not end with nobody allowed to try.
    """

    def __init__(self, limit: Limit) -> None:
        self._burst = max(1, limit.count // 2)
        self._per_second = max(1, limit.count - self._burst) / limit.seconds
        self._left = float(self._burst)
        self._left_at: float | None = None
        self._held_until = 0.0
        self._queue = asyncio.Lock()

    def hold(self, seconds: float) -> None:
        """Let nobody go for so long: the venue has asked for it."""
        self._held_until = max(self._held_until, asyncio.get_running_loop().time() + seconds)

    async def turn(self) -> None:
        """Return when one may go; whoever asks first goes first."""
        loop = asyncio.get_running_loop()
        async with self._queue:
            while (held := self._held_until - loop.time()) > 0:  # noqa: ASYNC110 - it may be held anew meanwhile
                await asyncio.sleep(held)
            self._fill(loop.time())
            if self._left < 1:
                await asyncio.sleep((1 - self._left) / self._per_second)
                self._fill(loop.time())
            self._left -= 1

    def _fill(self, now: float) -> None:
        since = now - self._left_at if self._left_at is not None else 0.0
        self._left = min(self._burst, self._left + since * self._per_second)
        self._left_at = now


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

    def next_seconds(self) -> float:
        """Return the seconds to wait."""
        bound = min(self.cap_seconds, self.first_seconds * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return self.random() * bound

    def reset(self) -> None:
        """Begin again with the shortest waits."""
        self._failures = 0


def asked_seconds(text: str) -> float | None:
    """Return the seconds that a `Retry-After` names, so many as are believed at most; None if it names none."""
    return min(float(text), LONGEST_WAIT_S) if text.isascii() and text.isdigit() else None
