"""Frames into records: for whom each frame is, and the columns it travels in, many frames at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from connectors.live.outgoing import CHUNK_SCHEMA
from connectors.venues.base import Router, Venue
from connectors.venues.routing import NO_SYMBOL, UNSURE
from market.instrument import Instruments, partition_of
from market.trade import Bools, Int32s, Int64s

_LIVE: Final = "live"
_CONSTANT: Final = 4_096


@dataclass(slots=True)
class Arrivals:
    """Frames of one connection in order, and who says for whom they are.

    `seen`: codes of the symbols whose trades came on it before; kept only where first trades are past ones.
    """

    router: Router
    frames: list[bytes]
    times: list[int]
    seen: set[int]


@dataclass(frozen=True, slots=True)
class Addressed:
    """Records of one flush. One row a record; a frame of several symbols has one for each.

    `codes`: instrument codes, `NO_SYMBOL` for a frame of none. `past`: the trades of the record may be past ones although the frame
    does not say so.
    """

    records: pa.RecordBatch
    codes: Int32s
    past: Bools


class Addressing:
    """The addresses of one exchange's topic; instruments may be exchanged while frames of the old ones still come."""

    def __init__(self, venue: Venue, instruments: Instruments, partitions: int) -> None:
        self._venue, self._partitions = venue, partitions
        self.change(instruments)

    def change(self, instruments: Instruments) -> None:
        """Use these instruments from now on."""
        self.instruments = instruments
        # The last entry is for frames of no symbol: code -1.
        homes = [*(partition_of(i.canonical, self._partitions) for i in instruments.listed), 0]
        self._homes = np.array(homes, np.int32)
        self._keys = pa.array([*(i.key for i in instruments.listed), ""], pa.string())
        size = _CONSTANT
        self._live = pa.array([_LIVE] * size, pa.string())
        self._null_strings = pa.nulls(size, pa.string())

    def addressed(self, arrivals: Sequence[Arrivals]) -> Addressed:
        """Return the records of what arrived, each connection's in order."""
        frames = [frame for a in arrivals for frame in a.frames]
        times = np.array([time for a in arrivals for time in a.times], np.int64)
        starts = np.zeros(len(frames) + 1, np.int32)
        np.cumsum(np.fromiter(map(len, frames), np.int32, len(frames)), out=starts[1:])
        starts.flags.writeable = False
        body = b"".join(frames)
        codes = self._venue.route_codes(np.frombuffer(body or b"\0", np.uint8), starts, self.instruments)
        rows, codes = self._asked(arrivals, frames, codes)
        payload = pa.Array.from_buffers(pa.binary(), len(frames), [None, pa.py_buffer(starts), pa.py_buffer(body)])
        past = self._past(arrivals, rows, codes) if self._venue.replays_last else np.zeros(len(codes), np.bool_)
        if rows is not None:
            payload, times = payload.take(pa.array(rows)), times[rows]
        return Addressed(self._columns(codes, times, payload), codes, past)

    def _asked(self, arrivals: Sequence[Arrivals], frames: list[bytes], codes: Int32s) -> tuple[Int64s | None, Int32s]:
        # Ask for the frames that bytes did not settle. Rows: the frame of each record, None where that is one each.
        by_canonical, instruments = self.instruments.by_canonical, self.instruments
        more: list[tuple[int, int]] = []
        first = 0
        for a in arrivals:
            last = first + len(a.frames)
            stateful = a.router is not self._venue
            unsure = range(first, last) if stateful else (np.flatnonzero(codes[first:last] == UNSURE) + first).tolist()
            for row in unsure:
                found = [by_canonical[symbol] for symbol in a.router.symbols_in(frames[row], instruments)]
                codes[row] = found[0] if found else NO_SYMBOL
                more += [(row, code) for code in found[1:]]
            first = last
        if not more:
            return None, codes
        rows = np.concatenate((np.arange(len(codes)), np.array([row for row, _ in more], np.int64)))
        every = np.concatenate((codes, np.array([code for _, code in more], np.int32)))
        order = np.argsort(rows, kind="stable")
        return rows[order], every[order]

    def _past(self, arrivals: Sequence[Arrivals], rows: Int64s | None, codes: Int32s) -> Bools:
        frame_of = np.arange(len(codes)) if rows is None else rows
        past = np.zeros(len(codes), np.bool_)
        first = 0
        for a in arrivals:
            last = first + len(a.frames)
            for row in np.flatnonzero((frame_of >= first) & (frame_of < last) & (codes >= 0)).tolist():
                past[row] = int(codes[row]) not in a.seen
                a.seen.add(int(codes[row]))
            first = last
        return past

    def _columns(self, codes: Int32s, times: Int64s, payload: pa.Array) -> pa.RecordBatch:
        n = len(codes)
        while n > len(self._live):
            self._live, self._null_strings = (pa.concat_arrays([a, a]) for a in (self._live, self._null_strings))
        key_rows = pa.array(np.where(codes < 0, len(self._homes) - 1, codes))
        nothing = self._null_strings.slice(0, n)
        columns = [
            pa.array(self._homes[codes]),
            self._keys.take(key_rows),
            self._live.slice(0, n),
            pa.array(times),
            nothing,
            nothing,
            payload,
        ]
        return pa.RecordBatch.from_arrays(columns, schema=CHUNK_SCHEMA)
