"""One place for a connection: keeps its instruments subscribed whatever becomes of the connections themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from connectors.pacing import Backoff, Turns
from connectors.sockets.connection import Connection
from connectors.sockets.setup import Setup
from connectors.sockets.wire import ConnectFailed
from market.instrument import Instrument

log = structlog.get_logger()


class Slot:
    """Connects, connects again after a loss, and replaces a connection that grows old or that the venue wants gone.

    Args:
        setup: what all slots share.
        connects: paces the venue's connection attempts; shared.
        may_read: set while there is room for what arrives; shared.
        next_name: gives the name of a new connection.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        connects: Turns,
        may_read: asyncio.Event,
        next_name: Callable[[], str],
    ) -> None:
        timing = setup.timing
        self.wanted: dict[str, Instrument] = {}
        self.connections: list[Connection] = []  # oldest first; those that are being opened too
        self._current: Connection | None = None
        self._retiring: set[Connection] = set()
        self._setup = setup
        self._connects = connects
        self._may_read = may_read
        self._next_name = next_name
        self._backoff = Backoff(timing.first_backoff, timing.longest_backoff, setup.random)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def confirmed(self) -> dict[str, Instrument]:
        """Return what the newest working connection has confirmed, by canonical symbol."""
        return {} if self._current is None or self._current.lost.done() else self._current.confirmed

    @property
    def refused(self) -> list[str]:
        """Return the symbols that the venue does not give."""
        return [] if self._current is None or self._current.lost.done() else self._current.refused

    def start(self) -> None:
        """Begin to connect."""
        self._spawn(self._run())

    def add(self, instruments: Sequence[Instrument]) -> None:
        """Subscribe to more, on every connection that will stay."""
        self.wanted.update({instrument.canonical: instrument for instrument in instruments})
        for connection in self.connections:
            if connection not in self._retiring:
                connection.add(instruments)

    def remove(self, instruments: Sequence[Instrument]) -> None:
        """Unsubscribe on every connection."""
        for instrument in instruments:
            self.wanted.pop(instrument.canonical, None)
        for connection in self.connections:
            connection.remove(instruments)

    def pause(self) -> None:
        """Read no socket."""
        for connection in self.connections:
            connection.pause()

    def resume(self) -> None:
        """Read them again."""
        for connection in self.connections:
            connection.resume()

    def doubt(self, reason: str) -> None:
        """Let every connection prove anew that it receives everything."""
        for connection in self.connections:
            connection.doubt(reason)

    async def stop(self, reason: str) -> None:
        """Close every connection; done within about a second."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        connections = list(self.connections)
        for connection in connections:
            connection.close(reason)
        if connections:
            await asyncio.wait([connection.lost for connection in connections])
        self.connections.clear()

    async def _run(self) -> None:
        while True:
            connection = await self._connect()
            if connection is not None:
                await self._keep(connection)

    async def _keep(self, connection: Connection) -> None:
        """Return when the connection, or the last of its successors, is lost."""
        setup = self._setup
        while True:
            self._current = connection
            oldest = setup.rules.max_age_seconds
            # Not all at once: connections that began together would be replaced together.
            age = None if oldest is None else oldest * (0.9 + 0.1 * setup.random())
            await _first(connection.lost, connection.leaving, seconds=age)
            if asyncio.get_running_loop().time() - connection.opened_at >= setup.timing.stable:
                self._backoff.reset()
            elif not connection.lost.done():  # asked to leave at once: its successor may be, too
                await _first(connection.lost, seconds=self._backoff.next_seconds())
            if not connection.lost.done():
                reason = connection.leaving.result() if connection.leaving.done() else "it grows old"
                log.info("connection_replacing", connection=connection.name, reason=reason)
                successor = await self._replace(connection)
                if successor is not None:
                    self._retiring.add(connection)
                    self._spawn(self._retire(connection))
                    connection = successor
                    continue
            log.warning("connection_lost", connection=connection.name, reason=connection.lost.result())
            await asyncio.sleep(self._backoff.next_seconds())
            return

    async def _connect(self) -> Connection | None:
        """Return an open connection, or None after a failure and the wait that it asks for."""
        await self._may_read.wait()
        await self._connects.turn()
        connection = Connection(self._next_name(), list(self.wanted.values()), self._setup)
        connection.lost.add_done_callback(lambda _: self._forget(connection))
        self.connections.append(connection)
        try:
            await connection.open()
        except ConnectFailed as error:
            self._forget(connection)
            asked = error.retry_after or 0.0
            self._connects.hold(asked)
            seconds = self._backoff.next_seconds()
            log.warning("connect_failed", exchange=self._setup.venue.exchange, error=str(error), retry_seconds=round(asked + seconds, 1))
            await asyncio.sleep(asked + seconds)
            return None
        except BaseException:
            if connection.is_open:
                connection.abort("stopped")
            else:
                self._forget(connection)
            raise
        return connection

    async def _replace(self, old: Connection) -> Connection | None:
        """Return a connection that has confirmed what it will, or any that is open once the old one is lost."""
        while not old.lost.done():
            successor = await self._connect()
            if successor is None:
                continue
            await _first(successor.settled, successor.lost, old.lost)
            if not successor.lost.done():
                return successor
            await asyncio.sleep(self._backoff.next_seconds())
        return None

    async def _retire(self, old: Connection) -> None:
        await _first(old.lost, seconds=self._setup.timing.overlap)
        old.close("replaced")
        await _first(old.lost)  # a bare await would let a cancellation of this task cancel the future

    def _forget(self, connection: Connection) -> None:
        self._retiring.discard(connection)
        if connection in self.connections:
            self.connections.remove(connection)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._setup.fail(error)


async def _first(*futures: asyncio.Future[Any], seconds: float | None = None) -> None:
    # Return when one of them is done, or the time is up; none of them is cancelled.
    await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
