"""The socket driver: a venue's instruments over as many connections as it takes, for as long as it takes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import structlog

from connectors.pacing import Turns
from connectors.sockets.listener import Listener
from connectors.sockets.proofs import Pulse
from connectors.sockets.setup import ConnectionState, Setup, Timing
from connectors.sockets.sharding import resharded
from connectors.sockets.slot import Slot
from connectors.sockets.wire import Connector, connect
from connectors.venues.base import Venue
from market.errors import ConfigError
from market.instrument import Instrument

log = structlog.get_logger()

_LOOK_SECONDS: Final = 0.05  # how often there is asked for room
_MOVE_SECONDS: Final = 0.25


class Driver:
    """Keeps the instruments of one venue subscribed and tells a listener what comes.

    Args:
        venue: its rules say everything about connections.
        listener: told on the loop's thread.
        url: the venue's WebSocket, or what stands in for it.
        feed_name: part of the connections' names; no two feeds, also of other times, may have the same.
        now_us: the wall clock, epoch µs.
        clock_speed: of `now_us`; another than 1 in simulations.
        connector: opens a connection.
        timing: how long things may take.
        random: in [0, 1), for jitter.

    Raises:
        ConfigError: the venue cannot be fed from live.
    """

    def __init__(
        self,
        venue: Venue,
        listener: Listener,
        *,
        url: str,
        feed_name: str,
        now_us: Callable[[], int],
        clock_speed: float = 1.0,
        connector: Connector = connect,
        timing: Timing | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        if venue.feed is None:
            raise ConfigError(f"{venue.exchange} has no live feed: its frames are only loaded from files")
        self._rules = venue.feed
        self._setup = Setup(
            venue=venue,
            rules=venue.feed,
            listener=listener,
            url=url,
            connector=connector,
            now_us=now_us,
            random=random,
            timing=timing or Timing(),
            fail=self._fail,
            pulse=Pulse(speed=clock_speed),
        )
        self._prefix = f"{venue.exchange}-{feed_name}"
        self._made = 0
        self._connects = Turns(venue.feed.connects)
        self._may_read = asyncio.Event()
        self._changing = asyncio.Lock()
        self._slots: list[Slot] = []
        self._mover: asyncio.Task[None] | None = None
        self._moving: list[tuple[Instrument, Slot, Slot]] = []  # from, to
        self._over: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._lasting: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> list[ConnectionState]:
        """Return every connection as it is now."""
        return [connection.state for slot in self._slots for connection in slot.connections]

    async def run(self, instruments: Sequence[Instrument]) -> None:
        """Feed these instruments until `stop`.

        Raises:
            Exception: what the listener raised; the connections are closed first.
        """
        self._over = asyncio.get_running_loop().create_future()
        self._may_read.set()
        self._setup.pulse.beat(asyncio.get_running_loop().time(), self._setup.now_us())
        self._spawn(self._mind_room())
        try:
            await self.change(instruments)
            await self._over
        finally:
            await self.stop()

    async def change(self, instruments: Sequence[Instrument]) -> None:
        """Feed these instruments from now on; those that stay are not disturbed. Only while `run` runs.

        What is new is asked for and what is gone is ended when this returns. Symbols that change their connection do so later:
        the old one carries them until the new one has confirmed them.
        """
        async with self._changing:
            if self._over is None or self._over.done():
                return
            await self._undo_moves()
            slots = self._slots
            now = [list(slot.wanted.values()) for slot in slots]
            then = resharded(now, list(dict.fromkeys(instruments)), self._rules.symbols_per_connection)
            homes = {instrument: slot for slot, shard in zip(slots, now, strict=True) for instrument in shard}
            kept = {instrument for shard in then for instrument in shard}
            for slot, shard in zip(slots, now, strict=True):
                if gone := [instrument for instrument in shard if instrument not in kept]:
                    slot.remove(gone)
            for index, shard in enumerate(then):
                slot = slots[index] if index < len(slots) else self._new_slot()
                new = [instrument for instrument in shard if homes.get(instrument) is not slot]
                if new:
                    slot.add(new)
                self._moving += [(instrument, homes[instrument], slot) for instrument in new if instrument in homes]
            self._drop_empty_slots()
            self._mover = self._spawn(self._move())

    def doubt(self, reason: str) -> None:
        """End all assertions; they begin anew once each connection has proven that it lives."""
        for slot in self._slots:
            slot.doubt(reason)

    async def stop(self) -> None:
        """Close all connections and end `run`; within about two seconds."""
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
        slots, self._slots = self._slots, []
        for slot in slots:
            self._spawn(slot.stop("stopped"), lasting=True)
        for task in self._tasks - self._lasting:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _fail(self, error: Exception) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_exception(error)

    def _new_slot(self) -> Slot:
        slot = Slot(self._setup, connects=self._connects, may_read=self._may_read, next_name=self._next_name)
        self._slots.append(slot)
        slot.start()
        return slot

    def _next_name(self) -> str:
        self._made += 1
        return f"{self._prefix}-{self._made:04d}"

    async def _move(self) -> None:
        # A move is: confirmed by the new connection, a while on both, then ended on the old one. Where the new one is refused the
        # symbol, it stays where it is heard until the new one, which asks again from time to time, is given it.
        since: dict[Instrument, float] = {}
        loop = asyncio.get_running_loop()
        while self._moving:
            for move in list(self._moving):
                instrument, old, new = move
                if instrument.canonical not in new.confirmed:
                    since.pop(instrument, None)
                elif loop.time() - since.setdefault(instrument, loop.time()) >= self._setup.timing.overlap:
                    old.remove([instrument])
                    self._moving.remove(move)
            self._drop_empty_slots()
            await asyncio.sleep(_MOVE_SECONDS)

    async def _undo_moves(self) -> None:
        if self._mover is not None and not self._mover.done():
            self._mover.cancel()
            await asyncio.wait([self._mover])
        for instrument, _, new in self._moving:
            new.remove([instrument])
        self._moving.clear()

    def _drop_empty_slots(self) -> None:
        for slot in [slot for slot in self._slots if not slot.wanted]:
            self._slots.remove(slot)
            self._spawn(slot.stop("no longer needed"), lasting=True)

    async def _mind_room(self) -> None:
        # Also shows that the loop runs: what comes after a standstill is not new.
        loop, setup = asyncio.get_running_loop(), self._setup
        while True:
            setup.pulse.beat(loop.time(), setup.now_us())
            room = asyncio.ensure_future(setup.listener.room())
            try:
                await asyncio.wait([room], timeout=0)
                if not room.done():
                    self._pause()
                    await asyncio.wait([room])
                    setup.pulse.beat(loop.time(), setup.now_us())
                    self._resume()
                room.result()
            finally:
                room.cancel()
            await asyncio.sleep(_LOOK_SECONDS)

    def _pause(self) -> None:
        log.warning("receiving_paused", exchange=self._setup.venue.exchange)
        self._may_read.clear()
        for slot in self._slots:
            slot.pause()

    def _resume(self) -> None:
        log.info("receiving_resumed", exchange=self._setup.venue.exchange)
        self._may_read.set()
        for slot in self._slots:
            slot.resume()

    def _spawn(self, work: Coroutine[Any, Any, None], *, lasting: bool = False) -> asyncio.Task[None]:
        # Lasting ones close connections: `stop` waits for them, where it cancels the others.
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        if lasting:
            self._lasting.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._lasting.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._fail(error)
