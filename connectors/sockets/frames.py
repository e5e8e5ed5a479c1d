"""WebSocket frames out of received bytes, without I/O.

Whole, uncompressed text frames are nearly all that venues send. They are cut out here: 0.3 µs each where the library's
general parser takes 2.5 µs. Everything else (handshake, control frames, fragments, faults) is the library's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import CLOSED, CONNECTING, OPEN
from websockets.uri import parse_uri

from connectors.pacing import asked_seconds

MAX_MESSAGE_BYTES: Final = 16 << 20
MAX_HEAD_BYTES: Final = 1 << 16
_USER_AGENT: Final = "k2-market-data"
_HEAD_END: Final = b"\r\n\r\n"
_WHOLE_TEXT: Final = 0x81
_WHOLE_BINARY: Final = 0x82


@dataclass(slots=True)
class Arrived:
    """What some bytes held: messages (text and binary alike) in order; whether the peer pinged; the last pong's payload."""

    messages: list[bytes] = field(default_factory=list)
    is_pinged: bool = False
    pong: bytes | None = None


class FrameReader:
    """One client connection's protocol state: bytes in, messages out, and bytes to send."""

    def __init__(self, url: str) -> None:
        self._protocol = ClientProtocol(parse_uri(url), max_size=MAX_MESSAGE_BYTES)
        self._rest = b""
        self._fragments = bytearray()
        self._in_fragments = False
        self._head_is_read = False
        request = self._protocol.connect()
        request.headers["User-Agent"] = _USER_AGENT
        self._protocol.send_request(request)

    @property
    def is_open(self) -> bool:
        """Return whether the handshake is done and no side has begun to close."""
        return self._protocol.state is OPEN

    @property
    def close_expected(self) -> bool:
        """Return whether the peer should close the socket soon: a close frame has gone, or the handshake failed."""
        return self._protocol.close_expected()

    @property
    def handshake_error(self) -> Exception | None:
        """Return why the opening handshake failed, if it did."""
        return self._protocol.handshake_exc

    def receive(self, data: bytes) -> Arrived:
        """Take received bytes.

        Returns:
            The messages that are complete now. After a protocol error there are none, and `close_expected` is true.
        """
        arrived = Arrived()
        if self._protocol.state is CONNECTING:
            data = self._handshake(data)
            if not data:
                return arrived
        if not self._is_over:
            self._cut(self._rest + data if self._rest else data, arrived)
        return arrived

    def receive_eof(self) -> None:
        """Note that the peer has closed its side of the socket, or the socket is gone."""
        self._protocol.receive_eof()

    def to_send(self) -> list[bytes]:
        """Return what is to be written now; an empty piece means: close our side of the socket."""
        return self._protocol.data_to_send()

    def text(self, message: str) -> None:
        """Send a message."""
        self._protocol.send_text(message.encode())

    def ping(self, payload: bytes) -> None:
        """Send a ping."""
        self._protocol.send_ping(payload)

    def close(self) -> None:
        """Begin the closing handshake, if the connection is open."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(1000)

    def why_closed(self) -> str:
        """Return how the connection ended, for people."""
        protocol = self._protocol
        if protocol.parser_exc is not None and not isinstance(protocol.parser_exc, EOFError):
            return f"protocol error: {protocol.parser_exc}"
        if protocol.close_rcvd is not None:
            return f"closed by the venue: {protocol.close_rcvd}"
        return "the socket was closed" if protocol.state is CLOSED else "the connection was lost"

    @property
    def _is_over(self) -> bool:
        return self._protocol.close_rcvd is not None or self._protocol.parser_exc is not None

    def _handshake(self, data: bytes) -> bytes:
        # Returns what follows the answer. Its head goes to the library alone, which would parse the frames behind it as well.
        protocol, following = self._protocol, b""
        if not self._head_is_read:
            data = self._rest + data
            end = data.find(_HEAD_END)
            if end < 0 and len(data) < MAX_HEAD_BYTES:
                self._rest = data
                return b""
            self._rest, self._head_is_read = b"", True
            cut = end + len(_HEAD_END) if end >= 0 else len(data)
            data, following = data[:cut], data[cut:]
        protocol.receive_data(data)
        if protocol.state is CONNECTING and following:  # the body of a refusal
            protocol.receive_data(following)
            following = b""
        protocol.events_received()
        return following

    def _cut(self, data: bytes, arrived: Arrived) -> None:
        messages = arrived.messages
        at, end = 0, len(data)
        while end - at >= 2:
            size = data[at + 1]
            start = at + 2
            if size == 126:
                if end - at < 4:
                    break
                size = data[at + 2] << 8 | data[at + 3]
                start = at + 4
            elif size == 127:
                if end - at < 10:
                    break
                size = int.from_bytes(data[at + 2 : at + 10], "big")
                start = at + 10
            stop = start + size
            if size > MAX_MESSAGE_BYTES or data[at + 1] > 127:  # too big, or masked: the library says so
                self._general(data[at:end], arrived)
                at = end
                break
            if stop > end:
                break
            if (data[at] == _WHOLE_TEXT or data[at] == _WHOLE_BINARY) and not self._in_fragments:
                messages.append(data[start:stop])
            else:
                self._general(data[at:stop], arrived)
                if self._is_over:
                    at = end  # nothing counts after a close frame
                    break
            at = stop
        self._rest = data[at:]

    def _general(self, frame: bytes, arrived: Arrived) -> None:
        # Anything but a whole data frame, one frame at a time.
        self._protocol.receive_data(frame)
        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                continue
            if event.opcode is Opcode.PING:
                arrived.is_pinged = True
            elif event.opcode is Opcode.PONG:
                arrived.pong = bytes(event.data)
            elif event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._fragments += event.data
                self._in_fragments = not event.fin
                if event.fin:
                    arrived.messages.append(bytes(self._fragments))
                    self._fragments.clear()


def retry_after(error: Exception) -> float | None:
    """Return the seconds that a refused handshake asks to wait, if it does."""
    if not isinstance(error, InvalidStatus):
        return None
    response: Response = error.response
    return asked_seconds(response.headers.get("Retry-After", ""))
