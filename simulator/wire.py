"""WebSocket frames as a server sends them: rendered once as bytes, written to any number of clients.

    81 7e 00 a4 {"stream":…       FIN + text, 16-bit length, payload; a server does not mask

Frames are made here and not by the WebSocket library because a trade is rendered once for all clients, and because faults need
what a correct library refuses to send.
"""

from __future__ import annotations

from random import Random
from typing import Final

_TEXT: Final = 0x1
_CONTINUATION: Final = 0x0
_FIN: Final = 0x80


def text_frame(payload: bytes) -> bytes:
    """Return one whole text message as a frame."""
    return _header(_FIN | _TEXT, len(payload)) + payload


def payload_of(frame: bytes) -> bytes:
    """Return the payload of a frame made by `text_frame`."""
    length = frame[1]
    return frame[2:] if length < 126 else frame[4:] if length == 126 else frame[10:]


def fragmented(frame: bytes, random: Random) -> bytes:
    """Return the same message in two to five frames, cut anywhere, also inside a character."""
    payload = payload_of(frame)
    cuts = sorted(random.choices(range(len(payload) + 1), k=random.randint(1, 4)))
    pieces = [payload[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    last = len(pieces) - 1
    return b"".join(
        _header((_FIN if n == last else 0) | (_TEXT if n == 0 else _CONTINUATION), len(piece)) + piece for n, piece in enumerate(pieces)
    )


def _header(first: int, length: int) -> bytes:
    if length < 126:
        return bytes((first, length))
    if length < 1 << 16:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")
