"""One client's WebSocket connection to a simulated venue."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Socket(Protocol):
    """What a session needs of its connection."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def waiting(self) -> int:
        """Return how many bytes wait to be taken."""

    def ping(self, payload: bytes) -> None:
        """Send a ping."""

    def close(self, code: int, reason: str = "") -> None:
        """Close with a close frame."""

    def reset(self) -> None:
        """Close with RST."""

    def freeze(self) -> None:
        """Go half open."""


class Pace:
    """A limit of `count` in any `seconds`."""

    def __init__(self, count: float, seconds: float) -> None:
        self._count, self._seconds = count, seconds
        self._taken: deque[tuple[float, float]] = deque()
        self.used = 0.0

    def take(self, now: float, weight: float = 1.0) -> float:
        """Count one more; returns 0, or the seconds until it would have been allowed (then it is not counted)."""
        while self._taken and self._taken[0][0] <= now - self._seconds:
            self.used -= self._taken.popleft()[1]
        if self.used + weight > self._count and self._taken:
            return self._taken[0][0] + self._seconds - now
        self._taken.append((now, weight))
        self.used += weight
        return 0.0


@dataclass(slots=True, eq=False)
class Session:
    """State of one connection. Times are real seconds.

    `mask`: by symbol code, whether its trades are wanted. `combined`, `micro`: how the URL asked for them. `held`: frames that
    a fault keeps back, with the moment they are due; while there are any, later frames wait behind them.
    """

    name: str
    socket: Socket
    opened_at: float
    mask: NDArray[np.bool_]
    messages: Pace
    wanted: int = 0
    combined: bool = False
    micro: bool = False
    heartbeats: bool = False
    heard_at: float = 0.0
    sent_at: float = 0.0
    pinged_at: float = 0.0
    sequence: int = 0
    beats: int = 0
    is_frozen: bool = False
    is_open: bool = False
    held: deque[tuple[float, bytes]] = field(default_factory=deque)
    notes: dict[str, Any] = field(default_factory=dict)

    def want(self, code: int, *, wanted: bool) -> bool:
        """Subscribe or unsubscribe a symbol; returns whether that changed anything."""
        if bool(self.mask[code]) is wanted:
            return False
        self.mask[code] = wanted
        self.wanted += 1 if wanted else -1
        return True
