"""Rows of every table out of one batch: columns built whole, never row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from market import exact
from market.columns import integers, timestamps
from market.gaps import Segment
from market.ids import id_texts, sequence_numbers
from market.interval import INTERVAL_NAMES
from market.layout import (
    BUY_QUOTE,
    BUY_VOLUME,
    CAUSE,
    CHANGE,
    CLOSE,
    CLOSE_ID,
    CLOSE_TAIL,
    CLOSE_TIME,
    CLOSED,
    COMPLETE,
    COUNT,
    HIGH,
    LENGTHS,
    LEVEL,
    LEVELS,
    LOW,
    OPEN,
    OPEN_ID,
    OPEN_TAIL,
    OPEN_TIME,
    QUOTE,
    REVISION,
    START,
    SYMBOL,
    UPDATED,
    VOLUME,
)
from market.marker import FeedEvent
from market.record import received_us
from market.schema import (
    ARROW_TYPES,
    DEAD_LETTERS,
    FEED_EVENTS,
    SILVER_TRADES,
    TRADE_GAPS,
    Change,
    Kind,
    bronze_table,
    gold_output_schema,
)
from market.schema import CHANGE as CHANGE_COLUMN
from market.state import State
from market.trade import NO_TAIL, Bools, Int64s, Rejected, TradeBatch

Words = npt.NDArray[np.uint64]

_SIDES: Final = pa.array(["sell", "buy"])
_BRONZE: Final = bronze_table("").arrow_schema()  # the same for every exchange
_SILVER: Final = SILVER_TRADES.arrow_schema()
_GOLD: Final = gold_output_schema()
_GAPS: Final = TRADE_GAPS.arrow_schema()
_LETTERS: Final = DEAD_LETTERS.arrow_schema()
_EVENTS: Final = FEED_EVENTS.arrow_schema()
_NO_BRONZE, _NO_SILVER, _NO_GOLD, _NO_GAPS, _NO_LETTERS, _NO_EVENTS = (
    pa.RecordBatch.from_pylist([], schema=schema) for schema in (_BRONZE, _SILVER, _GOLD, _GAPS, _LETTERS, _EVENTS)
)
PAYLOAD_REPEATED_BYTES: Final = 1024
"""A payload of more bytes stands with the first trade of its record only; the others of the record have an empty one."""

_PRICES: Final = (("open_price", OPEN), ("high_price", HIGH), ("low_price", LOW), ("close_price", CLOSE))
_SUMS: Final = (("volume", VOLUME), ("quote_volume", QUOTE), ("taker_buy_volume", BUY_VOLUME), ("taker_buy_quote_volume", BUY_QUOTE))


class Frames:
    """The records of one batch as rows refer to them: offset, receive time, source and payload by record number."""

    def __init__(self, exchange: str, topic: str, partition: int, records: pa.RecordBatch) -> None:
        self.exchange = exchange
        self.topic = topic
        self.partition = partition
        self.offset = np.array(records.column("offset").to_numpy(), np.int64)
        self.received = received_us(records)
        source = records.column("source")
        self.source = pc.fill_null(source, "live") if source.null_count else source
        self.payload = records.column("payload")

    def cause(self, rows: Int64s, index: Int64s) -> dict[str, pa.Array]:
        """Return the cause columns of rows that come from these records."""
        return {
            "source_partition": self.constant(self.partition, len(rows)),
            "source_offset": integers(self.offset[rows]),
            "source_index": integers(index),
        }

    @staticmethod
    def constant(value: str | int, n: int) -> pa.Array:
        """Return a column of one value."""
        return pa.repeat(pa.scalar(value, pa.int64() if isinstance(value, int) else pa.string()), n)


def trade_rows(
    frames: Frames, trades: TradeBatch, accepted: Bools, *, symbols: pa.Array, canonical: pa.Array, side_is_maker: bool
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Return the bronze rows of all trades and the silver rows of the accepted ones.

    Args:
        frames: the batch's records.
        trades: what they hold.
        accepted: one a trade.
        symbols: the venue's spelling, by code.
        canonical: ours, by code.
        side_is_maker: the venue gives the maker's side: bronze shows that.
    """
    if len(trades) == 0:
        return _NO_BRONZE, _NO_SILVER
    n, row = len(trades), trades.row.astype(np.int64)
    every_record = len(row) == len(frames.offset) and bool(np.array_equal(row, np.arange(len(row))))
    pick = None if every_record else pa.array(trades.row)
    source = frames.source if pick is None else frames.source.take(pick)
    if trades.is_snapshot.any():
        source = pc.if_else(pc.and_(pa.array(trades.is_snapshot), pc.equal(source, "live")), "snapshot", source)
    tails = np.full(n, NO_TAIL, np.int64) if trades.id_tail is None else trades.id_tail
    shared = {
        "symbol": symbols.take(pa.array(trades.symbol)),
        "trade_id": id_texts(trades.trade_id, tails),
        "sequence_number": sequence_numbers(trades.trade_id, tails),
        "price": exact.to_arrow(trades.price),
        "quantity": exact.to_arrow(trades.quantity),
        "quote_volume": exact.to_arrow(trades.quote_volume),
        "source": source,
    }
    index = _index_within(row)
    time, received = timestamps(trades.time_us), timestamps(frames.received[row])
    offset, partition = integers(frames.offset[row]), frames.constant(frames.partition, n)
    bronze = {
        **shared,
        "exchange_timestamp": time,
        "event_time": timestamps(trades.event_us),
        "kafka_offset": offset,
        "kafka_partition": partition,
        "ingestion_timestamp": received,
        "side": _SIDES.take(pa.array((trades.is_buy ^ side_is_maker).view(np.int8))),
        "source_index": integers(index),
        "payload": frames.payload if pick is None else _payloads(frames, row, index),
    }
    silver = {
        **shared,
        "timestamp": time,
        "exchange": frames.constant(frames.exchange, n),
        "canonical_symbol": canonical.take(pa.array(trades.symbol)),
        "side": _SIDES.take(pa.array(trades.is_buy.view(np.int8))),
        "trade_conditions": _empty_lists(Kind.LIST, n),
        "vendor_data": _vendor(trades.vendor, n),
        "validation_errors": _empty_lists(Kind.LIST, n),
        "receive_time": received,
        "source_partition": partition,
        "source_offset": offset,
        "source_index": integers(_index_within(row, accepted)),
    }
    every = _batch(_SILVER, silver)
    return _batch(_BRONZE, bronze), every if accepted.all() else every.filter(pa.array(accepted))


def _payloads(frames: Frames, row: Int64s, index: Int64s) -> pa.Array:
    # A page of 1,000 trades beside each of them would be 130 MB, and a batch of such pages more than a column can hold.
    lengths = np.array(pc.binary_length(frames.payload).to_numpy(zero_copy_only=False), np.int64)
    repeated = (lengths[row] > PAYLOAD_REPEATED_BYTES) & (index > 0)
    if not repeated.any():
        return frames.payload.take(pa.array(row))
    return pc.fill_null(frames.payload.take(pa.array(row, mask=repeated)), b"")


def gold_rows(frames: Frames, state: State, slots: Int64s, canonical: pa.Array) -> list[pa.RecordBatch]:
    """Return the changes of candles by interval, each in the order of its causes."""
    if len(slots) == 0:
        return [_NO_GOLD] * LEVELS
    slots = slots[np.lexsort((state.candles[slots, CAUSE], state.candles[slots, LEVEL]))]
    edges = np.searchsorted(state.candles[slots, LEVEL], np.arange(LEVELS + 1))
    # Built once for all intervals: at small batches the columns cost more than the rows.
    every = _candles(frames, state, slots, canonical)
    return [every.slice(low, high - low) for low, high in pairwise(edges.tolist())]


def _candles(frames: Frames, state: State, slots: Int64s, canonical: pa.Array) -> pa.RecordBatch:
    rows, sums = np.ascontiguousarray(state.candles[slots].T), state.sums[slots]
    decimals = {name: np.ascontiguousarray(sums[:, at : at + 2]) for name, at in (*_PRICES, *_SUMS)}
    status = rows[CHANGE] == Change.STATUS.value
    columns = {
        "exchange": frames.constant(frames.exchange, len(slots)),
        "canonical_symbol": canonical.take(pa.array(rows[SYMBOL])),
        "window_start": timestamps(rows[START]),
        "window_end": timestamps(rows[START] + np.array(LENGTHS)[rows[LEVEL]]),
        **{name: exact.to_arrow(values) for name, values in decimals.items()},
        "trade_count": integers(rows[COUNT]),
        "vwap": exact.to_arrow(exact.divide(decimals["quote_volume"], decimals["volume"])),
        "first_trade_id": _ids(rows[OPEN_ID], rows[OPEN_TAIL], status),
        "last_trade_id": _ids(rows[CLOSE_ID], rows[CLOSE_TAIL], status),
        "first_trade_time": timestamps(rows[OPEN_TIME]),
        "last_trade_time": timestamps(rows[CLOSE_TIME]),
        "is_closed": pa.array(rows[CLOSED] == 1),
        "is_complete": pa.array(rows[COMPLETE] == 1),
        "revision": integers(rows[REVISION]),
        "source_partition": frames.constant(frames.partition, len(slots)),
        "source_offset": integers(rows[CAUSE]),
        "updated_at": timestamps(rows[UPDATED]),
        CHANGE_COLUMN: pa.array(rows[CHANGE].astype(np.int8)),
    }
    return _batch(_GOLD, columns)


def _ids(numbers: Int64s, tails: Int64s, status: Bools) -> pa.Array:
    if not status.any():
        return id_texts(numbers, tails)
    return pc.if_else(pa.array(status), "", id_texts(numbers, np.where(status, NO_TAIL, tails)))


def gap_rows(frames: Frames, found: Sequence[tuple[int, int, Segment]], canonical: Sequence[str]) -> pa.RecordBatch:
    """Return ledger rows of (record, symbol, segment), which are in the order of their records."""
    if not found:
        return _NO_GAPS
    row = np.array([record for record, _, _ in found], np.int64)
    segments = [segment for _, _, segment in found]
    columns = {
        "exchange": frames.constant(frames.exchange, len(row)),
        "canonical_symbol": pa.array([canonical[symbol] for _, symbol, _ in found], pa.string()),
        "first_id": pa.array([s.first for s in segments], pa.int64()),
        "last_id": pa.array([s.last for s in segments], pa.int64()),
        "state": pa.array([s.state for s in segments], pa.string()),
        "after_time": timestamps(np.array([s.after for s in segments], np.int64)),
        "before_time": timestamps(np.array([s.before for s in segments], np.int64)),
        "reason": pa.array([s.reason for s in segments], pa.string()),
        "event_time": timestamps(frames.received[row]),
        **frames.cause(row, _index_within(row)),
    }
    return _batch(_GAPS, columns)


def dead_letter_rows(frames: Frames, rejected: Sequence[Rejected]) -> pa.RecordBatch:
    """Return dead letters, ascending by record."""
    if not rejected:
        return _NO_LETTERS
    ordered = sorted(rejected, key=lambda letter: letter.row)
    row = np.array([letter.row for letter in ordered], np.int64)
    columns = {
        "exchange": frames.constant(frames.exchange, len(row)),
        "topic": frames.constant(frames.topic, len(row)),
        "reason": pa.array([letter.reason for letter in ordered], pa.string()),
        "detail": pa.array([letter.detail for letter in ordered], pa.string()),
        "payload": frames.payload.take(pa.array(row)),
        "receive_time": timestamps(frames.received[row]),
        **frames.cause(row, _index_within(row)),
    }
    return _batch(_LETTERS, columns)


def event_rows(frames: Frames, events: Sequence[tuple[int, FeedEvent]]) -> pa.RecordBatch:
    """Return feed events of (record, event), which are in the order of their records."""
    if not events:
        return _NO_EVENTS
    row = np.array([record for record, _ in events], np.int64)
    found = [event for _, event in events]
    columns = {
        "exchange": frames.constant(frames.exchange, len(row)),
        "feed": pa.array([e.feed for e in found], pa.string()),
        "kind": pa.array([e.kind for e in found], pa.string()),
        "symbols": pa.array([list(e.symbols) for e in found], ARROW_TYPES[Kind.LIST]),
        "from_time": timestamps(np.array([e.from_us for e in found], np.int64)),
        "to_time": timestamps(np.array([e.to_us for e in found], np.int64)),
        "detail": pa.array([e.detail for e in found], pa.string()),
        **frames.cause(row, _index_within(row)),
    }
    return _batch(_EVENTS, columns)


def gold_tables() -> list[str]:
    """Return the gold tables in the order of `gold_rows`."""
    return [f"ohlcv_{name}" for name in INTERVAL_NAMES]


def _batch(schema: pa.Schema, columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _index_within(row: Int64s, counted: Bools | None = None) -> Int64s:
    # Ordinal of each entry among the counted ones of the same record.
    starts = np.ones(len(row), np.bool_)
    starts[1:] = row[1:] != row[:-1]
    if starts.all():
        return np.zeros(len(row), np.int64)
    before = np.arange(len(row)) if counted is None else np.cumsum(counted) - counted
    index: Int64s = before - np.maximum.accumulate(np.where(starts, before, 0))
    return index


def _empty_lists(kind: Kind, n: int) -> pa.Array:
    none = pa.array([], ARROW_TYPES[kind].value_type)
    return pa.Array.from_buffers(ARROW_TYPES[kind], n, [None, pa.py_buffer(np.zeros(n + 1, np.int32))], children=[none])


def _vendor(fields: Mapping[str, pa.Array], n: int) -> pa.Array:
    # One map a trade: the fields that it has, in the order of `fields`.
    there = np.zeros((n, len(fields)), np.bool_)
    for k, column in enumerate(fields.values()):
        there[:, k] = column.is_valid().to_numpy(zero_copy_only=False)
    trade, name = np.nonzero(there)
    keys = pa.array(list(fields), pa.string()).take(pa.array(name))
    values = pa.concat_arrays(list(fields.values())).take(pa.array(name * n + trade)) if fields else pa.array([], pa.string())
    offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    return pa.MapArray.from_arrays(pa.array(offsets), keys, values, type=ARROW_TYPES[Kind.MAP])
