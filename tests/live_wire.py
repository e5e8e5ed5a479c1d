"""The driver and a scripted exchange joined in memory, with a latency, on whatever clock the loop has."""

from __future__ import annotations

import asyncio
from collections import deque
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
    sent_at: list[float] = field(default_factory=list)  # messages and pings
    # Queues, because the loop's timers that are due together come in no order.
    to_exchange: deque[str | None] = field(default_factory=deque)  # None: a ping
    to_driver: deque[list[bytes]] = field(default_factory=deque)  # empty: a pong

    def send(self, message: str) -> None:
        self.sent_at.append(self.loop.time())
        self.to_exchange.append(message)
        self.loop.call_later(LATENCY, self._hear)

    def ping(self) -> None:
        self.pings += 1
        self.sent_at.append(self.loop.time())
        self.to_exchange.append(None)
        self.loop.call_later(LATENCY, self._hear)

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        held, self.held = self.held, []
        if held:
            self.events.arrived(held, proof_of_life=False)

    def close(self, reason: str) -> None:
        self.loop.call_later(2 * LATENCY, self.end, reason)

    def abort(self, reason: str) -> None:
        self.is_over = True
        self.loop.call_soon(self.end, reason)

    def push(self, *frames: bytes) -> None:
        """Send frames to the driver."""
        if not self.session.is_half_open:
            self.to_driver.append(list(frames))
            self.loop.call_later(LATENCY, self._arrive)

    def end(self, reason: str) -> None:
        """End the connection."""
        if self.session in self.exchange.sessions:
            self.exchange.disconnect(self.session)
            self.is_over = True
            self.events.ended(reason)

    def _hear(self) -> None:
        message = self.to_exchange.popleft()
        if self.is_over or self.session.is_half_open:
            return
        if message is None:
            self.push()
        elif frames := self.exchange.hear(self.session, message):
            self.push(*frames)

    def _arrive(self) -> None:
        frames = self.to_driver.popleft()
        if self.is_paused:
            self.held += frames
        elif not self.is_over:
            self.events.arrived(frames, proof_of_life=not frames)


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
