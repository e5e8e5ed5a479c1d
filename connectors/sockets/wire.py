"""One WebSocket over one socket of the running loop: what arrives goes out as bursts, and closing never hangs."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

from connectors.sockets.frames import Arrived, FrameReader, retry_after
from market.errors import SourceDisconnected

_CLOSE_SECONDS: Final = 1.0
_MOST_UNREAD: Final = 4 << 20  # bytes for a peer that asks for answers (pings) and takes none


class Wire(Protocol):
    """An open WebSocket. Nothing raises when the connection has gone meanwhile; `WireEvents.ended` says so."""

    def send(self, message: str) -> None:
        """Send a text message."""

    def ping(self, payload: bytes) -> None:
        """Send the protocol's own ping."""

    def pause(self) -> None:
        """Read no more from the socket."""

    def resume(self) -> None:
        """Read again."""

    def close(self, reason: str) -> None:
        """Begin the closing handshake; the socket is closed about a second later whatever the peer does."""

    def abort(self, reason: str) -> None:
        """Close the socket at once; `reason` is what `ended` will say."""


class WireEvents(Protocol):
    """Who is told what happens on a wire: `opened`, any number of `arrived`, and `ended` once; nothing if it never opened."""

    def opened(self, wire: Wire) -> None:
        """Take the wire: the handshake is done."""

    def arrived(self, messages: list[bytes], pong: bytes | None) -> None:
        """Take the messages that one read of the socket completed and the last pong's payload; neither, if only a ping came."""

    def ended(self, reason: str) -> None:
        """Note that the wire is closed."""


class ConnectFailed(SourceDisconnected):
    """A WebSocket could not be opened; `retry_after`: the seconds the venue wants us to wait, if it said so."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


Connector = Callable[[str, WireEvents, float], Awaitable[None]]
"""Opens a wire: URL, who is told (and given the wire), and the seconds it may take. Raises `ConnectFailed`."""


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


async def connect(url: str, events: WireEvents, open_seconds: float) -> None:
    """Open a WebSocket; `events` is given the wire.

    Raises:
        ConnectFailed: no connection, no handshake in time, or the venue refused.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    port = parts.port or (443 if secure else 80)
    loop = asyncio.get_running_loop()
    socket = _Socket(url, events, loop)
    try:
        async with asyncio.timeout(open_seconds):
            await loop.create_connection(
                lambda: socket,
                parts.hostname or "",
                port,
                ssl=_tls() if secure else None,
                happy_eyeballs_delay=0.25,
            )
            await socket.opened
    except TimeoutError:
        socket.give_up()
        raise ConnectFailed(f"{url}: no connection within {open_seconds:g} s") from None
    except OSError as error:
        socket.give_up()
        raise ConnectFailed(f"{url}: {error}") from error
    except BaseException:
        socket.give_up()
        raise


class _Socket(asyncio.Protocol):
    def __init__(self, url: str, events: WireEvents, loop: asyncio.AbstractEventLoop) -> None:
        self._url = url
        self._events = events
        self._loop = loop
        self._reader = FrameReader(url)
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._reason = ""
        self.opened: asyncio.Future[None] = loop.create_future()

    def give_up(self) -> None:
        if not self.opened.cancel() and not self.opened.cancelled():
            self.opened.exception()  # or it would be reported as one that nobody looked at
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self.opened.done():  # given up meanwhile
            self._transport.abort()
            return
        self._write()

    def data_received(self, data: bytes) -> None:
        arrived = self._reader.receive(data)
        if not self.opened.done():
            self._opening()
        self._deliver(arrived)
        self._write()
        if self._deadline is None and self._reader.close_expected:
            self._deadline = self._loop.call_later(_CLOSE_SECONDS, self.abort, "")

    def eof_received(self) -> bool:
        self._reader.receive_eof()
        self._write()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._reader.receive_eof()
        if self._deadline is not None:
            self._deadline.cancel()
        if not self.opened.done():
            self._opening(error)
        elif not self.opened.cancelled() and self.opened.exception() is None:
            why = f"the connection broke: {error}" if error is not None else self._reader.why_closed()
            self._events.ended(self._reason or why)

    def send(self, message: str) -> None:
        if self._reader.is_open:
            self._reader.text(message)
            self._write()

    def ping(self, payload: bytes) -> None:
        if self._reader.is_open:
            self._reader.ping(payload)
            self._write()

    def pause(self) -> None:
        if not self._is_paused and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._is_paused = True

    def resume(self) -> None:
        if self._is_paused and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._is_paused = False

    def close(self, reason: str) -> None:
        self._reason = self._reason or reason
        self.resume()  # or the peer's answer would stay unread
        self._reader.close()
        self._write()
        if self._deadline is None:
            self._deadline = self._loop.call_later(_CLOSE_SECONDS, self.abort, "")

    def abort(self, reason: str) -> None:
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    def _opening(self, error: Exception | None = None) -> None:
        if self._reader.is_open:
            self.opened.set_result(None)
            self._events.opened(self)
            return
        failure = self._reader.handshake_error or error
        if failure is not None or (self._transport is not None and self._transport.is_closing()):
            told = ConnectFailed(f"{self._url}: {failure or 'closed before it was open'}", retry_after(failure) if failure else None)
            self.opened.set_exception(told)

    def _deliver(self, arrived: Arrived) -> None:
        if arrived.messages or arrived.is_pinged or arrived.pong is not None:
            self._events.arrived(arrived.messages, arrived.pong)

    def _write(self) -> None:
        transport = self._transport
        for piece in self._reader.to_send():
            if transport is None or transport.is_closing():
                return
            if piece:
                transport.write(piece)
            else:
                transport.close()
        if transport is not None and transport.get_write_buffer_size() > _MOST_UNREAD:
            self.abort("the venue does not read what it is sent")
