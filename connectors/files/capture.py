"""Capture files: venue frames as somebody recorded them, one a line.

    <frame>                                                     plain; no receive time
    <receive_ns> <frame>                                        receive time in front, ns since the epoch
    {"t":"recv","conn":"ws.2","ts":1786309548.0313,"data":"…"}  envelope; `ts` in seconds, binary frames in `b64`, and
                                                                lines of another `t`, which hold no frame

A file is of one layout, told by its first lines; plain, gzip or zstd, told by its first bytes. Blank lines are skipped.
A line that is not of the file's layout is kept whole as a frame, so that it ends as a dead letter and not unseen.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa

from market.errors import ConfigError

_PIECE_BYTES: Final = 1 << 20
_MAX_LINE_BYTES: Final = 256 << 20
_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LOOKED_AT: Final = 20  # lines that may tell what a file is
_TIMED: Final = re.compile(rb"\d{1,20} ")
_FRAME: Final = re.compile(rb"(?:\d{1,20} )?\s*[\[{]")


@dataclass(frozen=True, slots=True)
class CapturedFrame:
    """One frame. `receive_us` is epoch µs, or None where the file does not say."""

    receive_us: int | None
    payload: bytes
    line: int


@dataclass(frozen=True, slots=True)
class CapturedChunk:
    """Consecutive frames of a file as columns of equal length.

    `connections` numbers the connections of the file from 0: a name that connects again is another connection.
    """

    lines: list[int]
    receive_us: list[int | None]
    payloads: list[bytes]
    connections: list[int]


def read_capture(path: Path) -> Iterator[CapturedFrame]:
    """Yield the frames of a capture file in order; raises as `read_chunks`."""
    for chunk in read_chunks(path):
        yield from map(CapturedFrame, chunk.receive_us, chunk.payloads, chunk.lines)


def read_chunks(path: Path) -> Iterator[CapturedChunk]:
    """Yield the frames of a capture file in order, some thousands at a time.

    Raises:
        ConfigError: the file cannot be read, ends inside its compression, or holds no frames at its start.
    """
    parse: Callable[[int, list[bytes]], CapturedChunk] | None = None
    for first_line, lines in read_lines(path):
        if parse is None and any(lines):
            parse = _layout(path, lines)
        if parse is not None:
            yield parse(first_line, lines)


def read_lines(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (number of the first line, lines without their ends), about a MiB at a time, decompressed.

    Raises:
        ConfigError: as `read_chunks`, naming file and line.
    """
    number, rest = 1, b""
    pieces = _decompressed(path)
    while True:
        try:
            piece = next(pieces, None)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read at line {number}: {error}; is the copy complete?") from error
        if piece is None:
            break
        if number == 1 and not rest:
            piece = piece.removeprefix(_BYTE_ORDER_MARK)
        head, newline, tail = piece.rpartition(b"\n")
        if not newline:
            rest += tail
            if len(rest) > _MAX_LINE_BYTES:
                raise ConfigError(f"{path}: line {number} is longer than {_MAX_LINE_BYTES >> 20} MiB: this is no capture file")
            continue
        lines = (rest + head).split(b"\n")
        rest = tail
        yield number, _trimmed(lines)
        number += len(lines)
    if rest:
        yield number, _trimmed([rest])


def _trimmed(lines: list[bytes]) -> list[bytes]:
    return [b"" if line.isspace() else line.removesuffix(b"\r") for line in lines]


def _decompressed(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            start = file.read(4)
            codec = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
            file.seek(0)
            if codec is None:
                while piece := file.read(_PIECE_BYTES):
                    yield piece
                return
            with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec) as stream:
                while piece := stream.read(_PIECE_BYTES):
                    yield piece
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _layout(path: Path, lines: list[bytes]) -> Callable[[int, list[bytes]], CapturedChunk]:
    """Return the parser of the file's layout, from its first lines."""
    looked_at = [line for line in lines if line][:_LOOKED_AT]
    first = next((line for line in looked_at if _FRAME.match(line)), None)
    if first is None:
        number = next(n for n, line in enumerate(lines, 1) if line)
        raise ConfigError(f"{path}: line {number} is no captured frame: {looked_at[0][:60]!r}")
    if _TIMED.match(first):
        return _timed
    return _Envelopes().parse if _is_envelope(first) else _plain


def _is_envelope(line: bytes) -> bool:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    # Venues use a top-level "t" too, but with a number (Binance: the trade id).
    return isinstance(found, dict) and isinstance(found.get("t"), str) and bool({"ts", "format", "conn", "data", "b64"} & found.keys())


def _plain(first_line: int, lines: list[bytes]) -> CapturedChunk:
    numbers = [n for n, line in enumerate(lines, first_line) if line]
    payloads = [line for line in lines if line] if len(numbers) < len(lines) else lines
    return CapturedChunk(numbers, [None] * len(numbers), payloads, [0] * len(numbers))


def _timed(first_line: int, lines: list[bytes]) -> CapturedChunk:
    numbers: list[int] = []
    times: list[int | None] = []
    payloads: list[bytes] = []
    for number, line in enumerate(lines, first_line):
        receive_ns, space, frame = line.partition(b" ")
        if space and receive_ns.isdigit() and len(receive_ns) <= 20:
            times.append(int(receive_ns) // 1_000)
            payloads.append(frame)
        elif line:
            times.append(None)
            payloads.append(line)
        else:
            continue
        numbers.append(number)
    return CapturedChunk(numbers, times, payloads, [0] * len(numbers))


class _Envelope(msgspec.Struct, gc=False):
    t: str
    data: str | None = None
    b64: str | None = None
    ts: msgspec.Raw = msgspec.Raw(b"")
    conn: str = ""


@dataclass(slots=True)
class _Envelopes:
    """Parser of envelopes; remembers which connection a name stands for."""

    current: dict[str, int] = field(default_factory=dict)
    connections: int = 0
    decoder: msgspec.json.Decoder[_Envelope] = field(default_factory=lambda: msgspec.json.Decoder(_Envelope))

    def parse(self, first_line: int, lines: list[bytes]) -> CapturedChunk:
        chunk = CapturedChunk([], [], [], [])
        for number, line in enumerate(lines, first_line):
            if not line:
                continue
            envelope: _Envelope | None
            try:
                envelope = self.decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                envelope = _lenient(line)
            if envelope is None:
                self._add(chunk, number, None, line, self.connections - 1 if self.connections else 0)
            elif envelope.t == "recv":
                frame = _frame(envelope)
                kept = line if frame is None else frame
                self._add(chunk, number, seconds_to_us(bytes(envelope.ts)), kept, self._connection(envelope.conn))
            elif envelope.t == "connect":
                self.current.pop(envelope.conn, None)
        return chunk

    def _connection(self, name: str) -> int:
        if name not in self.current:
            self.current[name] = self.connections
            self.connections += 1
        return self.current[name]

    @staticmethod
    def _add(chunk: CapturedChunk, line: int, receive_us: int | None, payload: bytes, connection: int) -> None:
        chunk.lines.append(line)
        chunk.receive_us.append(receive_us)
        chunk.payloads.append(payload)
        chunk.connections.append(connection)


def _lenient(line: bytes) -> _Envelope | None:
    """Read an envelope that the fast decoder refuses: half surrogate pairs, or fields of another type on other lines."""
    try:
        found: Any = json.loads(line, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("t"), str):
        return None
    text = {name: value for name in ("data", "b64", "conn") if isinstance(value := found.get(name), str)}
    return _Envelope(found["t"], text.get("data"), text.get("b64"), msgspec.Raw(str(found.get("ts", "")).encode()), text.get("conn", ""))


def _frame(envelope: _Envelope) -> bytes | None:
    if envelope.data is not None:
        return envelope.data.encode("utf-8", "surrogatepass")
    if envelope.b64 is not None:
        try:
            return base64.b64decode(envelope.b64, validate=True)
        except (binascii.Error, ValueError):
            return None
    return None


def seconds_to_us(text: bytes) -> int | None:
    """Return decimal seconds as whole µs, what is below them cut off; None when it is no time.

    Never through a float: those of today's epoch seconds step by 0.24 µs, and rounding would depend on the reader.
    """
    seconds, _, fraction = text.partition(b".")
    if seconds.isdigit() and (fraction.isdigit() or not fraction) and len(seconds) <= 12:
        return int(seconds) * 1_000_000 + int(fraction[:6].ljust(6, b"0"))
    try:
        value = Decimal(text.decode())
    except (InvalidOperation, ValueError):
        return None
    if not value.is_finite() or value.adjusted() >= 12 or value < 0:
        return None
    return int(value.scaleb(6).to_integral_value(ROUND_FLOOR))
