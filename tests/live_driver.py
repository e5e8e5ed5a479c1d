"""A driver fed by a scripted exchange on a virtual clock, and the truth beside it: was anything missed that it vouched for?"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from connectors.sockets.setup import Timing
from connectors.sockets.websocket import Driver
from connectors.venues.base import Venue
from tests.live_exchange import Exchange
from tests.live_wire import LATENCY, MemoryConnector, MemoryWire
from tests.recording_listener import Recorder

_EDGE = 1e-6


def with_rules(venue: Venue, **rules: Any) -> Venue:
    """The same venue with other limits."""
    assert venue.feed is not None
    changed = dataclasses.replace(venue.feed, **rules)
    kind = type(venue)
    return type(kind.__name__, (kind,), {"feed": changed})()


class Auditor(Recorder):
    """Checks at each proof of life: every trade since a symbol was confirmed has been received on that connection."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self.exchange = exchange
        self.made: dict[str, list[tuple[float, int]]] = defaultdict(list)  # by venue symbol: when, id
        self.got: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
        self.since: dict[tuple[str, str], float] = {}
        self._checked: dict[tuple[str, str], int] = {}

    def received(self, connection: str, frames: list[bytes], at_us: list[int]) -> None:
        super().received(connection, frames, at_us)
        for frame in frames:
            for symbol, number in self.exchange.trades_in(frame):
                self.got[connection][symbol].add(number)
        self._check(connection)

    def alive(self, connection: str, at_us: int) -> None:
        super().alive(connection, at_us)
        self._check(connection)

    def confirmed(self, connection: str, symbols: Sequence[str], at_us: int) -> None:
        super().confirmed(connection, symbols, at_us)
        now = asyncio.get_running_loop().time()
        for symbol in symbols:
            name = self.exchange.venue.venue_symbol(symbol)
            self.since[connection, symbol] = now
            assert any(name in session.subscribed for session in self.exchange.sessions), f"{symbol} is vouched for, not subscribed"
            self._checked[connection, symbol] = sum(1 for at, _ in self.made[name] if at <= now - LATENCY + _EDGE)

    def ever_received(self, symbol: str) -> set[int]:
        """Ids of a canonical symbol that came on any connection."""
        name = self.exchange.venue.venue_symbol(symbol)
        return set().union(*(by_symbol[name] for by_symbol in self.got.values()))

    def _check(self, connection: str) -> None:
        now = asyncio.get_running_loop().time()
        for symbol in self.connections[connection].confirmed:
            name = self.exchange.venue.venue_symbol(symbol)
            made, got = self.made[name], self.got[connection][name]
            at = self._checked[connection, symbol]
            while at < len(made) and made[at][0] <= now - LATENCY - _EDGE:
                assert made[at][1] in got, f"{symbol} {made[at][1]} was vouched for and missed on {connection}"
                at += 1
            self._checked[connection, symbol] = at


class Live:
    """Use as `async with Live(BinanceLike, symbols) as live:` inside `run_virtual`; trades flow, twice a second each symbol."""

    def __init__(
        self,
        kind: type[Exchange],
        symbols: Sequence[str],
        *,
        timing: Timing | None = None,
        random: Callable[[], float] = lambda: 0.5,
        trade_seconds: float = 0.5,
        prepare: Callable[[Exchange], None] = lambda _: None,
        **rules: Any,
    ) -> None:
        self.exchange = kind()
        self.exchange.venue = with_rules(self.exchange.venue, **rules)
        prepare(self.exchange)
        self.connector = MemoryConnector(self.exchange)
        self.told = Auditor(self.exchange)
        self.symbols = list(symbols)
        self._trade_seconds = trade_seconds
        self._timing = timing
        self._random = random

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def wires(self) -> list[MemoryWire]:
        """The open wires, oldest first."""
        return [wire for wire in self.connector.wires if not wire.is_over]

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self.driver = Driver(
            self.exchange.venue,
            self.told,
            url="ws://exchange.test",
            feed_name="test",
            now_us=lambda: 1_700_000_000_000_000 + round(loop.time() * 1_000_000),
            connector=self.connector,
            timing=self._timing,
            random=self._random,
        )
        self.run = asyncio.create_task(self.driver.run(self.exchange.instruments_of(*self.symbols)))
        self._market = asyncio.create_task(self._trade())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._market.cancel()
        await asyncio.wait([self._market])
        if self.run.done() and isinstance(error, AssertionError):
            self.run.result()  # what the auditor found
        before = self.now
        await self.driver.stop()
        if kind is None:
            await self.run
            assert self.now - before <= 2.0
            assert not self.told.open
            assert not self.exchange.sessions

    async def connected(self, count: int = 1) -> None:
        """Wait until so many connections are open."""
        while len(self.wires) < count:  # noqa: ASYNC110 - the clock is virtual
            await asyncio.sleep(0.01)

    async def change(self, *symbols: str) -> None:
        """Reload the list."""
        self.symbols = list(symbols)
        await self.driver.change(self.exchange.instruments_of(*symbols))

    def lose_frame(self) -> None:
        """Number a frame on every connection and never send it."""
        for wire in self.wires:
            self.exchange.heartbeat(wire.session)

    async def _trade(self) -> None:
        beat = 0
        while True:
            await asyncio.sleep(self._trade_seconds)
            beat += 1
            names = [self.exchange.venue.venue_symbol(symbol) for symbol in self.exchange.instruments.by_canonical]
            for name in names:
                number = self.exchange.next_trade(name)
                self.told.made[name].append((self.now, number))
                for wire in self.wires:
                    if name in wire.session.subscribed:
                        wire.push(self.exchange.trade(wire.session, name, number))
            for wire in self.wires:
                if beat % 2 == 0 and (frame := self.exchange.heartbeat(wire.session)) is not None:
                    wire.push(frame)
