"""What the compiled scanners read and write: the frames of a raw batch as bytes, and trades as columns."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from market.instrument import Instruments
from market.record import RawBatch
from market.trade import NO_TAIL, Bools, Decimals, Int32s, Int64s

Bytes = npt.NDArray[np.uint8]
Array = TypeVar("Array", bound=npt.NDArray[Any])

# What became of a frame.
WANTED: Final = 0  # not looked at yet
TRADES: Final = 1  # all its trades are in the columns
CONTROL: Final = 2  # no trades of ours
UNREAD: Final = 3  # the scanner does not know this layout: read it the slow way
NO_FRAME: Final = 4  # a marker or another record of our own

_SHORTEST_TRADE: Final = 28  # bytes, below the shortest layout that a scanner accepts: bounds the number of trades


class Frames(NamedTuple):
    """The frames of a raw batch: row k is `data[starts[k]:starts[k + 1]]`, of the instrument `codes[k]` (-1: none listed)."""

    data: Bytes
    starts: Int32s
    codes: Int32s
    status: Bytes


class Texts(NamedTuple):
    """Short texts end to end: text k is `data[starts[k]:starts[k + 1]]`."""

    data: Bytes
    starts: Int32s


class Symbols(NamedTuple):
    """Venue symbols by instrument code; `order` sorts them by (length, bytes). `aggregate`: the instrument's stream is aggTrade."""

    data: Bytes
    starts: Int32s
    order: Int32s
    aggregate: Bools


class Columns(NamedTuple):
    """Trades as a scanner writes them, `market.trade.TradeBatch` before the common checks. `vendor`: 0 none, else 1 + word.

    `id_tail`: as it comes from `empty`, where ids are numbers; a scanner of other ids writes it.
    """

    row: Int32s
    symbol: Int32s
    trade_id: Int64s
    time_us: Int64s
    event_us: Int64s
    is_buy: Bools
    is_snapshot: Bools
    price: Decimals
    quantity: Decimals
    vendor: Int32s
    id_tail: Int64s


def frames_of(batch: RawBatch, instruments: Instruments) -> Frames:
    """Return the frames of a batch, over the memory of its payload column."""
    records = batch.records
    n = len(records)
    payload = records.column("payload")
    _, offsets, body = payload.buffers()
    starts = _read_only(np.frombuffer(offsets, np.int32)[payload.offset : payload.offset + n + 1]) if n else np.zeros(1, np.int32)
    data = _read_only(np.frombuffer(body, np.uint8) if body is not None and body.size else np.zeros(1, np.uint8))
    keys = records.column("key").dictionary_encode()
    by_key = instruments.by_key
    known = np.array([by_key.get(key, -1) for key in keys.dictionary.to_pylist()], np.int32)
    codes = known[keys.indices.to_numpy(zero_copy_only=False)] if n else np.zeros(0, np.int32)
    kind = records.column("kind")
    status = np.zeros(n, np.uint8)
    if kind.null_count < n:
        status[kind.is_valid().to_numpy(zero_copy_only=False)] = NO_FRAME
    return Frames(data, _read_only(starts), codes, status)


def texts(*words: str) -> Texts:
    """Return texts end to end."""
    known = [word.encode() for word in words]
    starts = np.cumsum([0, *(len(w) for w in known)]).astype(np.int32)
    return Texts(_read_only(np.frombuffer(b"".join(known) + b"\0", np.uint8)), starts)


def symbols_of(instruments: Instruments) -> Symbols:
    """Return the symbol table of the scanners."""
    table = texts(*(i.venue_symbol for i in instruments.listed))
    names = [i.venue_symbol.encode() for i in instruments.listed]
    order = sorted(range(len(names)), key=lambda code: (len(names[code]), names[code]))
    aggregate = [i.stream == "aggTrade" for i in instruments.listed]
    return Symbols(table.data, table.starts, np.array(order, np.int32), np.array(aggregate, np.bool_))


def columns_for(frames: Frames) -> Columns:
    """Return columns with room for every trade that the frames can hold."""
    return empty(int(frames.starts[-1] - frames.starts[0]) // _SHORTEST_TRADE + 1)


def empty(n: int) -> Columns:
    """Return columns of n trades to be filled."""
    return Columns(
        row=np.empty(n, np.int32),
        symbol=np.empty(n, np.int32),
        trade_id=np.empty(n, np.int64),
        time_us=np.empty(n, np.int64),
        event_us=np.empty(n, np.int64),
        is_buy=np.empty(n, np.bool_),
        is_snapshot=np.empty(n, np.bool_),
        price=np.empty((n, 2), np.uint64),
        quantity=np.empty((n, 2), np.uint64),
        vendor=np.empty(n, np.int32),
        id_tail=np.full(n, NO_TAIL, np.int64),
    )


def selected(columns: Columns, which: slice | Bools) -> Columns:
    """Return some of the trades."""
    parts: list[Any] = [column[which] for column in columns]
    return Columns(*parts)


def merged(scanned: Columns, n: int, read: Columns) -> Columns:
    """Return the first n scanned trades and those read the slow way, ascending by row; the frame order of a row is kept."""
    if not len(read.row):
        return selected(scanned, np.s_[:n])
    order = np.argsort(np.concatenate((scanned.row[:n], read.row)), kind="stable")
    pairs: list[tuple[Any, Any]] = list(zip(scanned, read, strict=True))
    both: list[Any] = [np.concatenate((a[:n], b))[order] for a, b in pairs]
    return Columns(*both)


def _read_only(array: Array) -> Array:
    # Compiled code knows read-only and writable arrays as two types: always the same one, or it is compiled twice.
    view = array.view()
    view.flags.writeable = False
    return view
