"""Merge changes of candles into the newest rows that a store holds (design: late beyond memory).

Changes come in the order of their causes. ROW is a candle's newest row and replaces what is stored. DELTA is what trades
older than the horizon add: it merges into the stored row iff that row's cause is older, or becomes the row. STATUS says only
that `is_complete` changed, and is dropped where no row is stored. So applying the same changes twice changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from market import exact
from market.columns import int64_view, integers
from market.exact import add128, less128
from market.jit import compiled
from market.schema import CHANGE, OHLCV, Change
from market.trade import Bools, Decimals, Int64s

_GOLD: Final = OHLCV["1m"].arrow_schema()
_KEY: Final = ("exchange", "canonical_symbol", "window_start")
_SUMS: Final = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")

_ID_LENGTH: Final = 36  # of a UUID; a number with zeros before it to this length compares as text as it does as a number

_STORED: Final = -1
_ROW: Final = Change.ROW.value
_DELTA: Final = Change.DELTA.value
_SUM_LOW: Final = np.uint64(exact.SUM_LIMIT & 0xFFFFFFFFFFFFFFFF)
_SUM_HIGH: Final = np.uint64(exact.SUM_LIMIT >> 64)

# Columns of the integer table that the compiled merge reads, and of the one it writes.
_OFFSET, _COUNT, _REVISION, _FIRST_TIME, _FIRST_ID, _LAST_TIME, _LAST_ID = range(7)
_OUT_BASE, _OUT_OPEN, _OUT_HIGH, _OUT_LOW, _OUT_CLOSE, _OUT_LAST, _OUT_COUNT, _OUT_REVISION, _OUT_OVERFLOW = range(9)


def keys_of_deltas(changes: pa.RecordBatch) -> pa.RecordBatch:
    """Return the distinct (exchange, canonical_symbol, window_start) of DELTA and STATUS changes: the stored rows to fetch."""
    chosen = changes.filter(pc.not_equal(changes.column(CHANGE), _ROW)).select(list(_KEY))
    table = pa.Table.from_batches([chosen]).group_by(list(_KEY), use_threads=False).aggregate([])
    merged = table.combine_chunks().to_batches()
    return merged[0] if merged else chosen


def merge_changes(changes: pa.RecordBatch, stored: pa.RecordBatch | None) -> pa.RecordBatch:
    """Apply ordered changes to newest stored rows.

    Args:
        changes: rows of one gold table in `gold_output_schema`, in the order of their causes.
        stored: newest rows (gold schema) of at least the keys that `keys_of_deltas` names; None: there are none.

    Returns:
        The newest row (gold schema) of every key that changed, in the order in which the keys first appear in `changes`.
        A delta that would take a sum to 10^20 leaves the sums as they are and `is_complete` false.
    """
    rows = pa.RecordBatch.from_arrays(changes.columns[: len(_GOLD)], schema=_GOLD)
    held = 0 if stored is None else len(stored)
    if stored is not None and held:
        rows = pa.concat_batches([stored.select(_GOLD.names).cast(_GOLD), rows])
    change = np.full(len(rows), _STORED, np.int64)
    change[held:] = changes.column(CHANGE).to_numpy(zero_copy_only=False)
    order, starts = _groups(rows)
    keys = len(starts) - 1
    outcome = _Outcome(np.zeros((keys, 9), np.int64), np.zeros((keys, 4, 2), np.uint64), np.zeros(keys, np.bool_))
    high, low, *totals = (exact.from_arrow(rows.column(name)) for name in ("high_price", "low_price", *_SUMS))
    _merge_groups(order, starts, change, _integers(rows), high, low, tuple(totals), outcome.picks, outcome.sums, outcome.changed)
    chosen = np.flatnonzero(outcome.changed)
    # Rows of a key stand in input order, the stored one first: the next one is where the key appeared.
    first, second = order[starts[chosen]], order[np.minimum(starts[chosen] + 1, len(order) - 1)]
    appeared = np.where(change[first] == _STORED, second, first)
    return _assemble(rows, outcome, chosen[np.argsort(appeared)])


@dataclass(frozen=True, slots=True)
class _Outcome:
    picks: Int64s  # (keys, 9): rows that columns are taken from, counts
    sums: npt.NDArray[np.uint64]  # (keys, 4, 2)
    changed: Bools


def _groups(rows: pa.RecordBatch) -> tuple[Int64s, Int64s]:
    # Row numbers sorted by key, in input order within a key; and where each key starts, closed by the number of rows.
    keys = [rows.column(name).dictionary_encode().indices.to_numpy() for name in _KEY[:2]]
    window = int64_view(rows.column(_KEY[2]))
    order = np.lexsort((window, keys[1], keys[0]))
    differs = np.zeros(len(order), np.bool_)
    differs[:1] = True
    for key in (*keys, window):
        sorted_key = key[order]
        differs[1:] |= sorted_key[1:] != sorted_key[:-1]
    return order, np.append(np.flatnonzero(differs), len(order))


def _integers(rows: pa.RecordBatch) -> Int64s:
    columns = (
        int64_view(rows.column("source_offset")), int64_view(rows.column("trade_count")), int64_view(rows.column("revision")),
        int64_view(rows.column("first_trade_time")), _id_order(rows.column("first_trade_id")),
        int64_view(rows.column("last_trade_time")), _id_order(rows.column("last_trade_id")),
    )  # fmt: skip
    return np.stack(columns, axis=1)


def _id_order(ids: pa.Array) -> Int64s:
    # Ids compare as numbers, as text where a venue's are none: both may be here, of several exchanges. Status rows have no ids.
    try:
        order = pc.cast(pc.if_else(pc.equal(ids, ""), "0", ids), pa.int64())
    except pa.ArrowInvalid:
        order = pc.cast(pc.rank(pc.ascii_lpad(ids, _ID_LENGTH, padding="0"), tiebreaker="dense"), pa.int64())
    numbers: Int64s = order.to_numpy()
    return numbers


@compiled
def _merge_groups(
    order: Int64s, starts: Int64s, change: Int64s, numbers: Int64s, high: Decimals, low: Decimals, totals: tuple[Decimals, ...],
    picks: Int64s, sums: npt.NDArray[np.uint64], changed: Bools,
) -> None:  # fmt: skip
    for key in range(len(starts) - 1):
        out, total = picks[key], sums[key]
        have = False
        for at in range(starts[key], starts[key + 1]):
            row = order[at]
            kind = change[row]
            newer = have and numbers[out[_OUT_LAST], _OFFSET] < numbers[row, _OFFSET]
            if kind <= _ROW or (kind == _DELTA and not have):
                if not have or numbers[row, _OFFSET] >= numbers[out[_OUT_LAST], _OFFSET]:
                    out[_OUT_BASE : _OUT_LAST + 1] = row
                    out[_OUT_COUNT] = numbers[row, _COUNT]
                    out[_OUT_REVISION] = numbers[row, _REVISION]
                    out[_OUT_OVERFLOW] = 0
                    total[0], total[1], total[2], total[3] = totals[0][row], totals[1][row], totals[2][row], totals[3][row]
                    have = True
                    changed[key] = changed[key] or kind != _STORED
            elif newer:
                out[_OUT_OVERFLOW] = 0
                if kind == _DELTA:
                    _add(out, total, numbers, row, high, low, totals)
                out[_OUT_LAST] = row
                out[_OUT_REVISION] += 1
                changed[key] = True


@compiled
def _add(
    out: Int64s, total: npt.NDArray[np.uint64], numbers: Int64s, row: int, high: Decimals, low: Decimals, totals: tuple[Decimals, ...]
) -> None:  # fmt: skip
    volume, quote, buy, buy_quote = totals
    v0, v1 = add128(total[0, 0], total[0, 1], volume[row, 0], volume[row, 1])
    q0, q1 = add128(total[1, 0], total[1, 1], quote[row, 0], quote[row, 1])
    if not (less128(v0, v1, _SUM_LOW, _SUM_HIGH) and less128(q0, q1, _SUM_LOW, _SUM_HIGH)):
        out[_OUT_OVERFLOW] = 1
        return
    total[0, 0], total[0, 1], total[1, 0], total[1, 1] = v0, v1, q0, q1
    total[2, 0], total[2, 1] = add128(total[2, 0], total[2, 1], buy[row, 0], buy[row, 1])
    total[3, 0], total[3, 1] = add128(total[3, 0], total[3, 1], buy_quote[row, 0], buy_quote[row, 1])
    out[_OUT_COUNT] += numbers[row, _COUNT]
    o, h, lo, c = out[_OUT_OPEN], out[_OUT_HIGH], out[_OUT_LOW], out[_OUT_CLOSE]
    if (numbers[row, _FIRST_TIME], numbers[row, _FIRST_ID]) < (numbers[o, _FIRST_TIME], numbers[o, _FIRST_ID]):
        out[_OUT_OPEN] = row
    if (numbers[row, _LAST_TIME], numbers[row, _LAST_ID]) > (numbers[c, _LAST_TIME], numbers[c, _LAST_ID]):
        out[_OUT_CLOSE] = row
    if less128(high[h, 0], high[h, 1], high[row, 0], high[row, 1]):
        out[_OUT_HIGH] = row
    if less128(low[row, 0], low[row, 1], low[lo, 0], low[lo, 1]):
        out[_OUT_LOW] = row


def _assemble(rows: pa.RecordBatch, outcome: _Outcome, chosen: Int64s) -> pa.RecordBatch:
    picks = outcome.picks[chosen]
    sums = {name: np.ascontiguousarray(outcome.sums[chosen, k]) for k, name in enumerate(_SUMS)}
    taken = {
        _OUT_BASE: ("exchange", "canonical_symbol", "window_start", "window_end", "is_closed", "source_partition"),
        _OUT_OPEN: ("open_price", "first_trade_id", "first_trade_time"),
        _OUT_HIGH: ("high_price",),
        _OUT_LOW: ("low_price",),
        _OUT_CLOSE: ("close_price", "last_trade_id", "last_trade_time"),
        _OUT_LAST: ("is_complete", "source_offset", "updated_at"),
    }
    columns = {name: rows.column(name).take(pa.array(picks[:, pick])) for pick, names in taken.items() for name in names}
    columns["is_complete"] = pc.and_(columns["is_complete"], pa.array(picks[:, _OUT_OVERFLOW] == 0))
    columns |= {name: exact.to_arrow(total) for name, total in sums.items()}
    columns["vwap"] = exact.to_arrow(exact.divide(sums["quote_volume"], sums["volume"]))
    columns["trade_count"] = integers(picks[:, _OUT_COUNT])
    columns["revision"] = integers(picks[:, _OUT_REVISION])
    return pa.RecordBatch.from_arrays([columns[name] for name in _GOLD.names], schema=_GOLD)
