"""All state of one topic partition: raw records and their trades in, rows of every table out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from market.book import Book
from market.instrument import Instruments
from market.irregular import Cause, Findings, Irregular
from market.layout import (
    AT_SPECIAL,
    AT_SYMBOL,
    AT_TRADE,
    CHANGED,
    DECIDED,
    DONE,
    IRREGULAR_TRADES,
    LEVELS,
    NEVER,
    NO_ROOM,
    TRADE_END,
)
from market.marker import BadRecord, FeedEvent, Marker, UnfillableIds, read_event, read_marker, read_unfillable
from market.output import TableOutput
from market.record import KIND_EVENT, KIND_MARKER, KIND_UNFILLABLE, RawBatch
from market.rows import Frames, dead_letter_rows, event_rows, gap_rows, gold_rows, gold_tables, trade_rows
from market.rules import Rules
from market.saved import restore_book, save_book
from market.schema import DEAD_LETTERS, FEED_EVENTS, SILVER_TRADES, TRADE_GAPS, bronze_table
from market.state import Records, Trades
from market.trade import NO_TAIL, Decoded, Int32s, Int64s, Rejected, TradeBatch
from market.walk import walk


class Shard:
    """Sequences and folds one topic partition. State is deterministic in the log: batch boundaries change nothing that is kept.

    Not thread-safe; the hot path releases the interpreter lock.
    """

    def __init__(
        self, *, exchange: str, partition: int, instruments: Instruments, rules: Rules, native_side_is_maker: bool = False
    ) -> None:
        self._exchange = exchange
        self._partition = partition
        self._instruments = instruments
        self._native_side_is_maker = native_side_is_maker
        self._book = Book([i.canonical for i in instruments.listed], rules)
        self._symbols = pa.array([i.venue_symbol for i in instruments.listed], pa.string())

    def apply(self, batch: RawBatch, decoded: Decoded) -> list[TableOutput]:
        """Apply consecutive records.

        Args:
            batch: records at and past the last batch's `next_offset`, possibly none.
            decoded: the trades of its frames.

        Returns:
            One output a table, always all of them and in this order: bronze, silver, candles of the six intervals, gap ledger, dead
            letters, feed events. Candles come once an interval, as changes (`market.schema.Change`).
        """
        frames = Frames(self._exchange, batch.topic, self._partition, batch.records)
        specials = _Specials(batch.records, frames, self._instruments)
        trades = _trades_of(decoded.trades)
        findings = Findings()
        self._walk(specials, frames, trades, findings)
        canonical = pa.array(self._book.names, pa.string())
        state = self._book.state
        bronze, silver = trade_rows(
            frames,
            decoded.trades,
            trades.accepted,
            symbols=self._symbols,
            canonical=canonical,
            side_is_maker=self._native_side_is_maker,
        )
        gold = gold_rows(frames, state, state.changed[: state.progress[CHANGED]], canonical)
        self._book.end()
        rows = [
            (bronze_table(self._exchange).name, bronze),
            (SILVER_TRADES.name, silver),
            *zip(gold_tables(), gold, strict=True),
            (TRADE_GAPS.name, gap_rows(frames, findings.gaps, self._book.names)),
            (DEAD_LETTERS.name, dead_letter_rows(frames, [*decoded.rejected, *specials.rejected, *findings.rejected])),
            (FEED_EVENTS.name, event_rows(frames, specials.events_with(findings, self._book.names))),
        ]
        first = int(frames.offset[0]) if len(frames.offset) else batch.next_offset
        return [
            TableOutput(table, self._exchange, batch.topic, self._partition, batch.generation, first, batch.next_offset, found)
            for table, found in rows
        ]

    def _walk(self, specials: _Specials, frames: Frames, trades: Trades, findings: Findings) -> None:
        book, irregular = self._book, Irregular(self._book, trades, findings)
        records = Records(frames.offset, frames.received, specials.table, specials.named)
        book.begin()
        progress = book.state.progress
        while (stop := walk(book.state, records, trades)) != DONE:
            first, special, at, end = progress[[AT_TRADE, AT_SPECIAL, AT_SYMBOL, TRADE_END]].tolist()
            if stop == NO_ROOM:
                book.make_room(LEVELS * (end - first), end - first)
            elif stop == IRREGULAR_TRADES:
                left = irregular.apply_trades(first, end, _cause(frames, int(trades.row[first])))
                progress[DECIDED if left else AT_TRADE] = end
            else:
                row, content = specials.found[special]
                if isinstance(content, Marker):
                    irregular.apply_marker(int(specials.named[at]), content, _cause(frames, row))
                    progress[AT_SYMBOL] = at + 1
                else:
                    irregular.apply_unfillable(content, _cause(frames, row))
                    progress[AT_SPECIAL] += 1

    def dump(self) -> bytes:
        """Return the state: a versioned header and arrays, symbols by canonical name."""
        return save_book(self._book, self._exchange, self._partition)

    @classmethod
    def load(
        cls,
        data: bytes,
        *,
        exchange: str,
        partition: int,
        instruments: Instruments,
        rules: Rules,
        native_side_is_maker: bool = False,
    ) -> Shard:
        """Return a shard with the state of `dump`; symbols that are not listed any more are kept for when they come back.

        Raises:
            SchemaMismatch: not a state of this partition, or of a version that is not known.
        """
        shard = cls(exchange=exchange, partition=partition, instruments=instruments, rules=rules, native_side_is_maker=native_side_is_maker)
        restore_book(shard._book, data, exchange, partition)
        return shard


class _Specials:
    """The records of a batch that are not frames, read."""

    def __init__(self, records: pa.RecordBatch, frames: Frames, instruments: Instruments) -> None:
        self.found: list[tuple[int, Marker | UnfillableIds]] = []  # record, what it says
        self.rejected: list[Rejected] = []
        self._events: list[tuple[int, FeedEvent]] = []
        self._feeds: dict[int, str] = {}
        kinds = records.column("kind")
        if kinds.null_count < len(kinds):
            for row in np.flatnonzero(kinds.is_valid().to_numpy(zero_copy_only=False)).tolist():
                try:
                    self._read(row, kinds[row].as_py(), frames, instruments)
                except BadRecord as bad:
                    self.rejected.append(Rejected(row, bad.reason, bad.detail))
        table, named = [], list[int]()
        for row, content in self.found:
            if isinstance(content, Marker):
                table.append((row, content.from_us, content.to_us, len(named), len(named) + len(content.symbols)))
                named += content.symbols
            else:
                table.append((row, 0, -NEVER, 0, 0))
        self.table = np.array(table, np.int64).reshape(-1, 5)
        self.named = np.array(named, np.int64)

    def _read(self, row: int, kind: str, frames: Frames, instruments: Instruments) -> None:
        payload, received = frames.payload[row].as_py(), int(frames.received[row])
        if kind == KIND_MARKER:
            marker = read_marker(payload, instruments=instruments, received_us=received)
            self._feeds[row] = marker.feed
            self.found.append((row, marker))
        elif kind == KIND_UNFILLABLE:
            self.found.append((row, read_unfillable(payload, instruments=instruments)))
        elif kind == KIND_EVENT:
            self._events.append((row, read_event(payload, exchange=instruments.exchange, received_us=received)))
        else:
            raise BadRecord("unknown_kind", kind[:200])

    def events_with(self, findings: Findings, names: list[str]) -> list[tuple[int, FeedEvent]]:
        """Return the feeds' own events and the coverage holes that markers opened and closed, in the order of their records."""
        holes = [
            (row, FeedEvent(self._feeds[row], kind, tuple(names[s] for s in symbols), low, high, ""))
            for (row, kind, low, high), symbols in findings.coverage.items()
        ]
        return sorted([*self._events, *holes], key=lambda entry: entry[0])


def _cause(frames: Frames, row: int) -> Cause:
    return Cause(row, int(frames.offset[row]), int(frames.received[row]))


def _trades_of(trades: TradeBatch) -> Trades:
    # Compiled functions are specialised on types and layout, read-only or not included: hand them one kind only.
    def own(array: npt.NDArray[Any], kind: type) -> npt.NDArray[Any]:
        fit = array.dtype == kind and array.flags.c_contiguous and array.flags.writeable
        return array if fit else np.array(array, kind)

    tails = np.full(len(trades), NO_TAIL, np.int64) if trades.id_tail is None else own(trades.id_tail, np.int64)
    return Trades(
        own(trades.row, np.int32),
        own(trades.symbol, np.int32),
        own(trades.trade_id, np.int64),
        tails,
        own(trades.time_us, np.int64),
        own(trades.is_buy, np.bool_),
        own(trades.price, np.uint64),
        own(trades.quantity, np.uint64),
        own(trades.quote_volume, np.uint64),
        np.zeros(len(trades), np.bool_),
        _in_id_order(trades.row, trades.trade_id, tails),
    )


def _in_id_order(row: Int32s, trade_id: Int64s, tail: Int64s) -> Int64s:
    if np.all((row[1:] != row[:-1]) | (trade_id[1:] > trade_id[:-1])):
        return np.arange(len(row))
    order: Int64s = np.lexsort((tail, trade_id, row))
    return order
