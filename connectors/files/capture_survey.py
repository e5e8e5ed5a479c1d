"""What must be known of a whole capture file before its first marker can be written: symbols, starts and delay bounds."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from connectors.files.capture import CapturedChunk, read_chunks
from market.instrument import Instruments
from market.rules import MAX_AHEAD_US, MIN_TIME_US

UNKNOWN: Final = -1  # no receive time is known of a frame
NO_SYMBOLS: Final = -1
_NEVER_US: Final = 1 << 62  # beyond any receive time
Int64s = npt.NDArray[np.int64]


class FrameRouter(Protocol):
    """Who the frames of one connection are for."""

    def symbols_in(self, frame: bytes, instruments: Instruments, /) -> list[str]:
        """Return the canonical listed symbols whose trades the frame holds."""


class FrameReader(Protocol):
    """The part of a venue that files need: who a frame is for, what it confirms, when its trades were."""

    @property
    def replays_last(self) -> bool:
        """Whether a symbol's first trades on a connection are past ones, and the frame does not say so."""

    def router(self) -> FrameRouter:
        """Return who the frames of a new connection are for; it is shown all of them, in order."""

    def confirmed_by(self, frame: bytes, instruments: Instruments, /) -> list[str]:
        """Return the canonical symbols whose trade subscription the frame acknowledges."""

    def event_times(self, frame: bytes, /) -> list[int]:
        """Return the event times (epoch µs) of the trades of a live frame, none of a snapshot."""


@dataclass(frozen=True, slots=True)
class Delays:
    """Bounds of receive - event time of the live trades of a file, µs; negative where the recorder's clock was behind."""

    smallest: int
    largest: int


@dataclass(frozen=True, slots=True)
class Survey:
    """A capture file at a glance; about 20 bytes a frame.

    `received_us` and `codes` have one entry a frame. A code is an index into `symbol_sets`, or `NO_SYMBOLS`. `starts` is
    the time from which (connection, symbol) is known to be subscribed. `delays` is None when the file has no live trade.
    """

    digest: str
    received_us: Int64s
    codes: npt.NDArray[np.int32]
    symbol_sets: list[tuple[str, ...]]
    starts: dict[tuple[int, str], int]
    delays: Delays | None

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(slots=True)
class _Seen:
    """What the frames read so far say."""

    received: array[int] = field(default_factory=lambda: array("q"))
    codes: array[int] = field(default_factory=lambda: array("i"))
    code_of: dict[tuple[str, ...], int] = field(default_factory=dict)
    acknowledged: dict[tuple[int, str], int] = field(default_factory=dict)  # -> frame number
    traded: dict[tuple[int, str], int] = field(default_factory=dict)  # -> frame number
    routers: dict[int, FrameRouter] = field(default_factory=dict)  # by connection
    live: array[int] = field(default_factory=lambda: array("q"))  # frame numbers of live trades
    earliest: array[int] = field(default_factory=lambda: array("q"))  # event time, by live frame
    latest: array[int] = field(default_factory=lambda: array("q"))


def survey_capture(path: Path, venue: FrameReader, instruments: Instruments, progress: Callable[[int], None]) -> Survey:
    """Read a capture file once; `progress` gets the number of frames so far.

    Raises:
        ConfigError: the file cannot be read (`connectors.files.capture`).
    """
    seen, digest = _Seen(), hashlib.blake2b(digest_size=8)
    for chunk in read_chunks(path):
        times = array("q", [UNKNOWN if t is None else t for t in chunk.receive_us])
        digest.update(times.tobytes())
        digest.update(b"\n".join(chunk.payloads))
        _look_at(chunk, seen, venue, instruments)
        seen.received.extend(times)
        progress(len(seen.codes))
    return _conclude(seen, digest.hexdigest())


def _look_at(chunk: CapturedChunk, seen: _Seen, venue: FrameReader, instruments: Instruments) -> None:
    confirmed_by, event_times = venue.confirmed_by, venue.event_times
    codes, code_of, routers = seen.codes, seen.code_of, seen.routers
    for number, (frame, connection) in enumerate(zip(chunk.payloads, chunk.connections, strict=True), len(codes)):
        if connection not in routers:
            routers[connection] = venue.router()
        symbols = routers[connection].symbols_in(frame, instruments)
        is_past = venue.replays_last and not all((connection, symbol) in seen.traded for symbol in symbols or ("",))
        if not symbols:
            codes.append(NO_SYMBOLS)
            for symbol in confirmed_by(frame, instruments):
                seen.acknowledged.setdefault((connection, symbol), number)
        else:
            name = tuple(symbols)
            code = code_of.setdefault(name, len(code_of))
            codes.append(code)
            for symbol in name:
                seen.traded.setdefault((connection, symbol), number)
        # Also of symbols that are not listed: their trades took as long.
        times = () if is_past else event_times(frame)
        if times:
            plausible = [t for t in times if MIN_TIME_US <= t < _NEVER_US]
            if plausible:
                seen.live.append(number)
                seen.earliest.append(min(plausible))
                seen.latest.append(max(plausible))


def _conclude(seen: _Seen, digest: str) -> Survey:
    given = np.array(seen.received, np.int64)
    live, earliest, latest = (np.array(a, np.int64) for a in (seen.live, seen.earliest, seen.latest))
    if not (given >= 0).any():
        believed = np.array(list(_believed(seen.latest)), np.bool_)
        given[live[believed]] = latest[believed]
        given = np.maximum.accumulate(given) if len(given) else given
    known = given[given >= 0]
    # A recorder's clock may step back; what came later in the file was received later all the same.
    reached = np.maximum.accumulate(np.where(given < 0, known[0] if len(known) else UNKNOWN, given)) if len(given) else given
    received = np.where(given < 0, reached, given)
    starts = {place: int(reached[number]) for place, number in {**seen.traded, **seen.acknowledged}.items() if reached[number] >= 0}
    codes = np.array(seen.codes, np.int32)
    delays = _delays(received[live], reached[live], earliest, latest)
    return Survey(digest, received, codes, list(seen.code_of), starts, delays)


def _believed(latest: Sequence[int]) -> Iterator[bool]:
    """Say which event times may set the clock of a file without receive times.

    One that is more than an hour ahead of all before it (or the first) needs the next trade to agree: a single damaged
    time must not put the rest of the file into the past.
    """
    highest: int | None = None
    for i, time in enumerate(latest):
        following = latest[i + 1] if i + 1 < len(latest) else None
        ahead = highest is not None and time > highest + MAX_AHEAD_US
        confirmed = following is not None and following >= time - MAX_AHEAD_US
        alone = highest is None and following is None
        believed = confirmed or alone or (highest is not None and not ahead)
        if believed:
            highest = time if highest is None else max(highest, time)
        yield believed


def _delays(received: Int64s, reached: Int64s, earliest: Int64s, latest: Int64s) -> Delays | None:
    """Return the bounds over the live trades whose times the flow will not refuse as implausible."""
    limit = received + MAX_AHEAD_US
    usable = (received >= 0) & (earliest <= limit)
    if not usable.any():
        return None
    latest = np.where(latest <= limit, latest, earliest)
    return Delays(int((reached - latest)[usable].min()), int((reached - earliest)[usable].max()))
