"""One port for everything: HTTP requests and WebSocket connections, told apart by their first request.

The library's sans-I/O protocol does the handshake and reads what clients send; frames to clients are written as they are, many
in one call.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final, Protocol

from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as Handshake
from websockets.protocol import State
from websockets.server import ServerProtocol

from simulator.http import MOST_HEAD_BYTES, Reply, Request, parse_request, rendered

_RESET: Final = struct.pack("ii", 1, 0)  # linger for 0 s: closing sends RST
_CLOSE_SECONDS: Final = 1.0  # how long a client may take to answer a close frame
_HEAD_END: Final = b"\r\n\r\n"
_MOST_MESSAGE_BYTES: Final = 1 << 20


class Channel(Protocol):
    """What the server tells of one WebSocket connection."""

    def received(self, text: str) -> None:
        """Take one whole message."""

    def ponged(self) -> None:
        """Take note that our ping was answered."""

    def closed(self) -> None:
        """Take note that the connection is gone."""


class Site(Protocol):
    """What the server serves."""

    def answer(self, request: Request) -> Reply:
        """Return the answer to an HTTP request."""

    def connect(self, request: Request, peer: Peer) -> Channel | Reply:
        """Accept a WebSocket connection, or return the answer that refuses it. Nothing can be written yet."""

    def started(self, channel: Channel) -> None:
        """Take note that the handshake is sent and frames may follow."""


class Peer(asyncio.Protocol):
    """One TCP connection to us."""

    def __init__(self, site: Site, peers: set[Peer]) -> None:
        self._site = site
        self._peers = peers
        self._buffer = b""
        self._is_answering = False
        self._websocket: ServerProtocol | None = None
        self._channel: Channel | None = None
        self._message: list[bytes] = []
        self._is_frozen = False
        self._transport: asyncio.Transport | None = None

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("not a stream transport")
        self._transport = transport
        transport.set_write_buffer_limits(high=1 << 30)  # slow clients are cut off by the venue, not waited for
        self._peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the channel."""
        del exc
        self._peers.discard(self)
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.closed()

    def data_received(self, data: bytes) -> None:
        """Take requests, or frames."""
        if self._is_frozen:
            return
        if self._websocket is not None:
            self._frames(self._websocket, data)
        else:
            self._buffer += data
            self._requests()

    def eof_received(self) -> bool:
        """Let the transport close."""
        return False

    # HTTP

    def _requests(self) -> None:
        while not self._is_answering and self._websocket is None:
            end = self._buffer.find(_HEAD_END)
            if end < 0:
                if len(self._buffer) > MOST_HEAD_BYTES:
                    self._send(Reply(431), keep_alive=False)
                return
            head, self._buffer = self._buffer[: end + len(_HEAD_END)], self._buffer[end + len(_HEAD_END) :]
            request = parse_request(head[:end])
            if request is None:
                self._send(Reply(400), keep_alive=False)
                return
            if request.is_upgrade:
                self._upgrade(request, head)
                return
            reply = self._site.answer(request) if request.method == "GET" else Reply(405)
            self._send_later(reply, keep_alive=request.keeps_alive and request.method == "GET")

    def _send_later(self, reply: Reply, *, keep_alive: bool) -> None:
        if reply.delay <= 0:
            self._send(reply, keep_alive=keep_alive)
            return

        def send() -> None:
            self._is_answering = False
            self._send(reply, keep_alive=keep_alive)
            self._requests()

        self._is_answering = True
        asyncio.get_running_loop().call_later(reply.delay, send)

    def _send(self, reply: Reply, *, keep_alive: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(rendered(reply, keep_alive=keep_alive))
        if not keep_alive:
            self._transport.close()

    # WebSocket

    def _upgrade(self, request: Request, head: bytes) -> None:
        accepted = self._site.connect(request, self)
        if isinstance(accepted, Reply):
            self._send(accepted, keep_alive=False)
            return
        websocket = ServerProtocol(max_size=_MOST_MESSAGE_BYTES)
        websocket.receive_data(head)
        for event in websocket.events_received():
            if isinstance(event, Handshake):
                websocket.send_response(websocket.accept(event))
        self._websocket, self._channel = websocket, accepted
        self._flush(websocket)
        if websocket.state is State.OPEN:
            self._site.started(accepted)
            rest, self._buffer = self._buffer, b""
            if rest:
                self._frames(websocket, rest)

    def _frames(self, websocket: ServerProtocol, data: bytes) -> None:
        websocket.receive_data(data)
        for event in websocket.events_received():
            if isinstance(event, Frame) and self._channel is not None:
                self._frame(event, self._channel)
            if self._is_frozen:
                return
        self._flush(websocket)

    def _frame(self, frame: Frame, channel: Channel) -> None:
        if frame.opcode is Opcode.PONG:
            channel.ponged()
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._message.append(bytes(frame.data))
            if frame.fin:
                text = b"".join(self._message).decode("utf-8", "replace")
                self._message.clear()
                channel.received(text)

    def _flush(self, websocket: ServerProtocol) -> None:
        if self._transport is None or self._is_frozen:
            return
        for data in websocket.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()  # the library marks the end of the stream with nothing

    # The venue's side

    def write(self, data: bytes) -> None:
        """Send frames that are ready; nothing when the connection is closing or frozen."""
        websocket, transport = self._websocket, self._transport
        if websocket is None or transport is None or self._is_frozen or websocket.state is not State.OPEN or transport.is_closing():
            return
        transport.write(data)

    def waiting(self) -> int:
        """Return how many bytes the client has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def ping(self, payload: bytes) -> None:
        """Send a ping."""
        if self._websocket is not None and self._websocket.state is State.OPEN:
            self._websocket.send_ping(payload)
            self._flush(self._websocket)

    def close(self, code: int, reason: str = "") -> None:
        """Close with a close frame; a client that does not answer is dropped after a second."""
        websocket, transport = self._websocket, self._transport
        if websocket is None or transport is None:
            return
        try:
            websocket.send_close(code, reason)
        except InvalidState:
            return
        self._flush(websocket)
        asyncio.get_running_loop().call_later(_CLOSE_SECONDS, transport.close)

    def reset(self) -> None:
        """End the TCP connection with RST, as a crash would."""
        if self._transport is None or self._transport.is_closing():
            return
        endpoint = self._transport.get_extra_info("socket")
        if endpoint is not None:
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def freeze(self) -> None:
        """Say and hear nothing any more, but keep the socket: half open."""
        self._is_frozen = True

    def drop(self) -> None:
        """Close the TCP connection without a word of WebSocket."""
        if self._transport is not None:
            self._transport.close()
