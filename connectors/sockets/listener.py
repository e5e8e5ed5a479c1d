"""What the socket driver tells: frames, and what each connection was subscribed to while they came.

All calls but `room` are synchronous and come on the loop's thread, in the order of what happened on the connection:

    connected ─▶ received / alive / confirmed / ended (any number, in order) ─▶ disconnected

`connection` is unique for every connection ever made (`binance-<feed>-0003`); it is the `feed` of its markers. Symbols are
canonical; one may be confirmed again after it was ended. Times are epoch µs of the driver's clock and never decrease in a
connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from market.instrument import Instrument


class Listener(Protocol):
    """Who takes what connections bring. The calls must be quick: sockets are not read while they run."""

    def connected(self, connection: str, instruments: Sequence[Instrument], at_us: int) -> None:
        """A socket is open; these instruments will be asked for. Nothing is subscribed yet."""

    def received(self, connection: str, frames: list[bytes], at_us: list[int]) -> None:
        """Take frames verbatim, control frames too, in order, with the time each was read from the socket."""

    def alive(self, connection: str, at_us: int) -> None:
        """Everything the peer had sent by this time, when it was pinged, has been received. A frame is proof of life as well."""

    def confirmed(self, connection: str, symbols: Sequence[str], at_us: int) -> None:
        """Begin to assert these symbols: subscribed by now. Called after `received` of the frame that says so."""

    def ended(self, connection: str, symbols: Sequence[str], at_us: int, reason: str) -> None:
        """Assert nothing about these symbols on this connection from now on: refused, or unsubscribed (before it is sent)."""

    def disconnected(self, connection: str, at_us: int, reason: str) -> None:
        """Assert nothing about this connection any more; it sends no further calls."""

    async def room(self) -> None:
        """Return when more may be received: the driver reads no socket of its until then."""
