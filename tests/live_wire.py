"""The driver and a scripted exchange joined in memory, with a latency, on whatever clock the loop has."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from connectors.sockets.wire import ConnectFailed, WireEvents
from tests.live_exchange import Exchange, Session

LATENCY = 0.05


@dataclass(eq=False)
class MemoryWire:
    """Implements `connectors.sockets.wire.Wire`; the exchange's side is `push`, `drop`."""

    exchange: Exchange
    session: Session
    events: WireEvents
    loop: asyncio.AbstractEventLoop
    held: list[list[bytes] | bytes] = field(default_factory=list)
    is_paused: bool = False
    is_closing: bool = False
    is_over: bool = False
    pings: int = 0
    sent_at: list[float] = field(default_factory=list)  # messages and pings
    # Queues, because the loop's timers that are due together come in no order.
    to_exchange: deque[str | bytes] = field(default_factory=deque)  # bytes: a ping's payload
    to_driver: deque[list[bytes] | bytes] = field(default_factory=deque)  # bytes: a pong's payload

    def send(self, message: str) -> None:
        self.sent_at.append(self.loop.time())
        self.to_exchange.append(message)
        self.loop.call_later(LATENCY, self._hear)

    def ping(self, payload: bytes) -> None:
        self.pings += 1
        self.sent_at.append(self.loop.time())
        self.to_exchange.append(payload)
        self.loop.call_later(LATENCY, self._hear)

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        held, self.held = self.held, []
        self.loop.call_soon(self._read, held)

    def close(self, reason: str) -> None:
        self.is_closing = True
        self.loop.call_later(2 * LATENCY, self.end, reason)

    def abort(self, reason: str) -> None:
        self.is_over = True
        self.loop.call_soon(self.end, reason)

    def push(self, *frames: bytes) -> None:
        """Send frames to the driver."""
        self._push(list(frames))

    def _push(self, what: list[bytes] | bytes) -> None:
        if not self.session.is_half_open:
            self.to_driver.append(what)
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
        if isinstance(message, bytes):
            self._push(message)
        elif frames := self.exchange.hear(self.session, message):
            self.push(*frames)

    def _arrive(self) -> None:
        what = self.to_driver.popleft()
        if self.is_paused:
            self.held.append(what)
        else:
            self._read([what])

    def _read(self, arrived: list[list[bytes] | bytes]) -> None:
        for what in arrived:
            if not self.is_over:
                frames, pong = ([], what) if isinstance(what, bytes) else (what, None)
                self.events.arrived(frames, pong)


class MemoryConnector:
    """Implements `connectors.sockets.wire.Connector`; keeps the wires of the sessions that are alive."""

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
