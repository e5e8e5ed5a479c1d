"""What all connections of a driver share, and how they show themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from connectors.sockets.listener import Listener
from connectors.sockets.proofs import Pulse
from connectors.sockets.wire import Connector
from connectors.venues.base import Venue
from connectors.venues.feeding import FeedRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things may take, seconds. `overlap`: how long an old connection stays beside its confirmed successor.

    The overlap is for markers: the old connection's reach to its last proof of life less the largest delay, the new one's
    begin at its confirmation less the smallest, and between the two there must be no hole.
    """

    open: float = 10.0
    answer: float = 10.0
    retry_refused: float = 30.0  # and twice as long after each refusal, up to the next
    retry_refused_longest: float = 900.0
    first_backoff: float = 0.5
    longest_backoff: float = 15.0
    stable: float = 5.0  # a connection that lasted so long is no failure; how often may be tried is limited in any case
    overlap: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all connections of a driver share. `fail`: ends the driver with an error of the listener's or our own."""

    venue: Venue
    rules: FeedRules
    listener: Listener
    url: str
    connector: Connector
    now_us: Callable[[], int]
    random: Callable[[], float]
    timing: Timing
    fail: Callable[[Exception], None]
    pulse: Pulse = field(default_factory=Pulse)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionState:
    """A connection as it is now, for metrics and status. Times are epoch µs; 0: never."""

    name: str
    connected_us: int
    heard_us: int
    frame_us: int
    confirmed: tuple[str, ...]
    refused: tuple[str, ...]
