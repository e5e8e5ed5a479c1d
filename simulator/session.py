"""One client's WebSocket connection to a simulated venue."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Sequence
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
    a fault keeps back, by the moment they are due; while there are any, later frames wait behind them, but control frames do
    not if `control_overtakes`.
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
    held: list[tuple[float, int, bytes]] = field(default_factory=list)
    held_ever: int = 0
    control_overtakes: bool = False
    notes: dict[str, Any] = field(default_factory=dict)

    def hold(self, frames: Sequence[bytes], due: float) -> None:
        """Keep frames back until a moment, and behind those that are kept already."""
        due = max(due, self.held[-1][0]) if self.held else due
        for frame in frames:
            self.held_ever += 1
            self.held.append((due, self.held_ever, frame))

    def hold_any_order(self, frame: bytes, due: float) -> None:
        """Keep a frame back until a moment, whatever is kept already."""
        self.held_ever += 1
        insort(self.held, (due, self.held_ever, frame))

    def due(self, now: float) -> list[bytes]:
        """Take out the frames whose moment has come."""
        stop = next((n for n, (due, _, _) in enumerate(self.held) if due > now), len(self.held))
        taken, self.held = self.held[:stop], self.held[stop:]
        return [frame for _, _, frame in taken]

    def want(self, code: int, *, wanted: bool) -> bool:
        """Subscribe or unsubscribe a symbol; returns whether that changed anything."""
        if bool(self.mask[code]) is wanted:
            return False
        self.mask[code] = wanted
        self.wanted += 1 if wanted else -1
        return True
