"""The driver and a scripted exchange joined in memory, with a latency, on whatever clock the loop has."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from connectors.wire import ConnectFailed, WireEvents
from tests.live_exchange import Exchange, Session

LATENCY = 0.05


@dataclass(eq=False)
class MemoryWire:
    """Implements `connectors.wire.Wire`; the exchange's side is `push`, `drop`."""

    exchange: Exchange
    session: Session
    events: WireEvents
    loop: asyncio.AbstractEventLoop
    held: list[bytes] = field(default_factory=list)
    is_paused: bool = False
    is_over: bool = False
    pings: int = 0

    def send(self, message: str) -> None:
        self.loop.call_later(LATENCY, self._hear, message)

    def ping(self) -> None:
        self.pings += 1
        if not self.session.is_half_open:
            self.loop.call_later(2 * LATENCY, self._prove)

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        held, self.held = self.held, []
        if held:
            self._arrive(held)

    def close(self, reason: str) -> None:
        self.loop.call_later(2 * LATENCY, self.end, reason)

    def abort(self, reason: str) -> None:
        self.is_over = True
        self.loop.call_soon(self.end, reason)

    def push(self, *frames: bytes) -> None:
        """Send frames to the driver."""
        if not self.session.is_half_open:
            self.loop.call_later(LATENCY, self._arrive, list(frames))

    def end(self, reason: str) -> None:
        """End the connection."""
        if self.session in self.exchange.sessions:
            self.exchange.disconnect(self.session)
            self.is_over = True
            self.events.ended(reason)

    def _hear(self, message: str) -> None:
        if not self.is_over and not self.session.is_half_open and (frames := self.exchange.hear(self.session, message)):
            self.push(*frames)

    def _arrive(self, frames: list[bytes]) -> None:
        if self.is_paused:
            self.held += frames
        elif not self.is_over:
            self.events.arrived(frames, proof_of_life=False)

    def _prove(self) -> None:
        if not self.is_over and not self.is_paused:
            self.events.arrived([], proof_of_life=True)


class MemoryConnector:
    """Implements `connectors.wire.Connector`; keeps the wires of the sessions that are alive."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.wires: list[MemoryWire] = []
        self.attempts: list[float] = []

    async def __call__(self, url: str, events: WireEvents, open_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self.attempts.append(loop.time())
        await asyncio.sleep(LATENCY)
        if self.exchange.is_down:
            raise ConnectFailed(f"{url}: down")
        wire = MemoryWire(self.exchange, self.exchange.connect(), events, loop)
        self.wires = [other for other in self.wires if not other.is_over] + [wire]
        events.opened(wire)
