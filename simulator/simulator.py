"""The simulator as a whole: venues, clock, faults and books behind one port."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from simulator.block import Source
from simulator.books import Books
from simulator.clock import SECOND_US, Clock
from simulator.config import SimulatorConfig
from simulator.exchange import Conditions, Exchange
from simulator.faults import Fault, FaultRecord
from simulator.generator import Generator, zipf_weights
from simulator.http import Reply, Request, json_reply
from simulator.injection import Injector
from simulator.listing import default_symbols, listing_of
from simulator.recording import Recording
from simulator.server import Channel, Peer
from simulator.session import Session
from simulator.venues.registry import VENUES

_BOOKS: Final = "/books"
_NOTICE_S: Final = 0.5  # between the last subscription that was waited for and the beginning: whoever follows the clock looks now and then


class Simulator:
    """A running simulation.

        async with Simulator(SimulatorConfig(rate=1000)) as sim:
            ...  # ws://127.0.0.1:<port>/binance/stream, {sim.url}/binance/api/v3/trades

    `url` is where it listens; `books` its oracle. It runs in the event loop that starts it.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        self.url = ""
        self.exchanges: dict[str, Exchange] = {}
        self._records: list[FaultRecord] = []
        self.books = Books(self.exchanges, self._records)
        self._peers: set[Peer] = set()
        self._server: asyncio.Server | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._clock: Clock | None = None
        self._injector: Injector | None = None

    async def start(self) -> None:
        """Listen, and start the clock.

        Raises:
            OSError: the port cannot be had.
        """
        config = self.config
        server = await asyncio.get_running_loop().create_server(lambda: Peer(self, self._peers), config.host, config.port)
        self._server = server
        self.url = f"http://{config.host}:{server.sockets[0].getsockname()[1]}"
        sources = {name: self._source(name) for name in config.exchanges}
        clock = self._new_clock(sources)
        for name, source in sources.items():
            self.exchanges[name] = VENUES[name](source, clock, self._conditions(name, source, clock.start_us))
            self.exchanges[name].advance()
        self._clock = clock
        self._injector = Injector(self.exchanges, config.faults, seed=config.seed, records=self._records)
        self._ticking = asyncio.create_task(self._tick(clock, self._injector))

    async def stop(self) -> None:
        """Stop trading, close every connection and the port."""
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
        if self._server is not None:
            self._server.close()
        for peer in list(self._peers):
            peer.reset()
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop."""
        await self.stop()

    async def ended(self) -> None:
        """Wait until trading is over; raises what the simulation died of."""
        while not all(exchange.has_ended for exchange in self.exchanges.values()):
            if self._ticking is not None and self._ticking.done():
                self._ticking.result()
                return
            await asyncio.sleep(self.config.tick_seconds)

    def inject(self, fault: Fault) -> None:
        """Let something go wrong now, or at its moment if that is to come.

        Raises:
            RuntimeError: the simulation has not started.
        """
        if self._injector is None or self._clock is None:
            raise RuntimeError("the simulation has not started")
        now = self._clock.run_us() / SECOND_US
        self._injector.add(replace(fault, at=max(fault.at, now)))

    async def _tick(self, clock: Clock, injector: Injector) -> None:
        while True:
            if clock.waits and all(exchange.has_every_subscription() for exchange in self.exchanges.values()):
                clock.begin(after_seconds=_NOTICE_S)
            injector.begin(clock.run_us())
            for exchange in self.exchanges.values():
                exchange.advance()
            injector.finish(clock.run_us())
            await asyncio.sleep(self.config.tick_seconds)

    def _new_clock(self, sources: Mapping[str, Source]) -> Clock:
        config = self.config
        recordings = {name: source for name, source in sources.items() if isinstance(source, Recording)}
        for recording in recordings.values():
            recording.start_over_with(list(recordings.values()))
        now_us = config.start_us if config.start_us is not None else time.time_ns() // 1000
        return Clock(
            recordings[config.start_of].first_us if config.start_of else now_us,
            config.speed,
            time.monotonic,
            from_us=round(config.skip_seconds * SECOND_US),
            halt_us=None if config.halt_seconds is None else round(config.halt_seconds * SECOND_US),
            waits=config.waits_for_clients,
        )

    def _conditions(self, name: str, source: Source, start_us: int) -> Conditions:
        given = self.config.conditions
        offset_us = given.offset_us + round(self.config.clock_offsets.get(name, 0.0) * SECOND_US)
        if isinstance(source, Recording) and self.config.as_recorded:
            offset_us += source.first_us - start_us  # a clock that shows the time of the recording
        return replace(given, offset_us=offset_us, kept_trades=given.kept_trades // len(self.config.exchanges))

    def _source(self, name: str) -> Source:
        config, venue = self.config, VENUES[name]
        end_us = None if config.seconds is None else round(config.seconds * SECOND_US)
        if name in config.recordings:
            return Recording(config.recordings[name], venue.recorded, once=config.once, end_us=end_us)
        wanted = config.symbols_of(name)
        symbols = default_symbols(venue.quote, wanted) if isinstance(wanted, int) else list(wanted)
        quiet = min(config.quiet_symbols, len(symbols))
        rate = config.rate / len(config.exchanges)
        weights = zipf_weights(len(symbols), quiet=quiet, rate=rate, quiet_rate=config.quiet_rate)
        listings = [
            listing_of(symbol, rank, lot_digits=venue.lot_digits, weight=weight, is_quiet=rank >= len(symbols) - quiet)
            for rank, (symbol, weight) in enumerate(zip(symbols, weights, strict=True))
        ]
        return Generator(name, listings, seed=config.seed, rate=rate, trades=self._share(name), end_us=end_us)

    def _share(self, name: str) -> int | None:
        # The trades of one venue: equal shares, and what is left to the first ones.
        if self.config.trades is None:
            return None
        each, left = divmod(self.config.trades, len(self.config.exchanges))
        return each + (1 if self.config.exchanges.index(name) < left else 0)

    # Site

    def answer(self, request: Request) -> Reply:
        """Answer an HTTP request: the books', or a venue's."""
        if request.path.startswith(_BOOKS):
            return self.books.answer(request)
        exchange, path = self._venue_of(request)
        if exchange is None:
            return json_reply({"error": f"there is /books and {', '.join(f'/{name}' for name in self.exchanges)}"}, 404)
        return exchange.answer(path, request.query)

    def connect(self, request: Request, peer: Peer) -> Channel | Reply:
        """Accept a client of a venue."""
        exchange, path = self._venue_of(request)
        if exchange is None:
            return Reply(404)
        session = exchange.connect(request, path, peer)
        return session if isinstance(session, Reply) else _Client(exchange, session)

    def started(self, channel: Channel) -> None:
        """Greet a client whose handshake is done."""
        if isinstance(channel, _Client):
            channel.start()

    def _venue_of(self, request: Request) -> tuple[Exchange | None, str]:
        name, _, rest = request.path.lstrip("/").partition("/")
        return self.exchanges.get(name), f"/{rest}" if rest else ""


class _Client:
    """One session of one venue, as the server sees it."""

    def __init__(self, exchange: Exchange, session: Session) -> None:
        self._exchange, self._session = exchange, session

    def start(self) -> None:
        self._exchange.started(self._session)

    def received(self, text: str) -> None:
        self._exchange.received(self._session, text)

    def ponged(self) -> None:
        self._exchange.ponged(self._session)

    def closed(self) -> None:
        self._exchange.closed(self._session)
