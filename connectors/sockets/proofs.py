"""What proves that everything a venue has sent was received, and when something that looks like a proof is none.

A frame read from the socket proves it up to the moment of reading, if we read all the time. After a while without reading
(no room, a suspended or starved process) old frames wait in the socket: they say nothing about now. The answer to a ping
proves it up to the moment the ping was sent, whenever it is read. Numbered frames prove it by their numbers alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from market.interval import SECOND

STALL_SECONDS: Final = 1.0
STEP_SECONDS: Final = 1.0


@dataclass(slots=True)
class Pulse:
    """When the loop was last known to run; by two clocks, since one of them stands still in a suspended machine.

    `speed`: of the wall clock; another than 1 in simulations.
    """

    at: float = 0.0
    at_us: int = 0
    speed: float = 1.0

    def beat(self, now: float, now_us: int) -> None:
        """Note that the loop runs."""
        self.at, self.at_us = now, now_us

    def is_stalled(self, now: float, now_us: int) -> bool:
        """Return whether the loop has not run for a while before this moment."""
        return now - self.at > STALL_SECONDS or now_us - self.at_us > STALL_SECONDS * self.speed * 1_000_000


@dataclass(slots=True)
class WallClock:
    """Whether the wall clock was set, by a clock that nobody sets: it went back, or ahead by more than has passed.

    `speed`: of the wall clock; another than 1 in simulations, where it may also stand still.
    """

    speed: float = 1.0
    _at: float | None = None
    _at_us: int = 0

    def step_seconds(self, now: float, now_us: int) -> float:
        """Return by how much it was set since the last call, if by more than a second; else 0."""
        before, before_us = self._at, self._at_us
        self._at, self._at_us = now, now_us
        if before is None:
            return 0.0
        moved = (now_us - before_us) / SECOND / self.speed
        if moved < -STEP_SECONDS:
            return moved
        return moved - (now - before) if moved - (now - before) > STEP_SECONDS else 0.0


@dataclass(slots=True)
class Pings:
    """The pings of one connection, told apart by their payload: answers may be old."""

    _sent: int = 0
    _sent_us: dict[bytes, int] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """Return the number of the last ping, from 1."""
        return self._sent

    def next_payload(self, at_us: int) -> bytes:
        """Return the payload of a ping that goes now."""
        self._sent += 1
        payload = b"%d" % self._sent
        self._sent_us[payload] = at_us
        return payload

    def answered(self, payload: bytes) -> tuple[int, int] | None:
        """Return the number of the ping that this answers, and when it was sent; None if it answers none."""
        sent_us = self._sent_us.pop(payload, None)
        if sent_us is None:
            return None
        number = int(payload)
        for other in [other for other in self._sent_us if int(other) < number]:
            del self._sent_us[other]
        return number, sent_us


@dataclass(slots=True)
class FrameNumbers:
    """The numbers of a connection's frames, where the venue counts them."""

    _last: int | None = None

    def lost_in(self, numbers: Iterable[int | None]) -> str:
        """Return which frames are missing before or among frames of these numbers, for people; "" if none. None: not counted."""
        for number in numbers:
            if number is None:
                continue
            last, self._last = self._last, number if self._last is None else max(number, self._last)
            if last is not None and number > last + 1:
                return f"frames {last + 1} to {number - 1} were lost"
        return ""
