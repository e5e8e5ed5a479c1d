"""The hot path: walk the records of a batch in offset order over a shard's arrays.

What is regular is done here: an id that follows the newest run or repeats one of it, a marker that extends the newest covered
stretch, a close in windows that are known to be complete. At the first record that may be anything else the walk stops with
nothing of it done; plain code (`market/irregular.py`) does that record over the same state, and the walk goes on behind it.
So the hot path needs no exact rule for rare events, only a cautious test for them.
"""

from __future__ import annotations

from typing import Final

from market.candle import can_close, close, find, fold, forget_deltas
from market.jit import compiled_scan
from market.layout import (
    AT_SPECIAL,
    AT_SYMBOL,
    AT_TRADE,
    BRIDGE_HIGH,
    BRIDGE_LOW,
    CLEAN_FROM,
    CONTIGUOUS,
    COVERED_FROM,
    COVERED_TO,
    DECIDED,
    DEDUP_HORIZON,
    DONE,
    FIRST,
    FREE,
    FULL,
    HEADS,
    IRREGULAR_MARKER,
    IRREGULAR_TRADES,
    LAST,
    LAST_TIME,
    LATENESS,
    LENGTHS,
    LEVELS,
    NEVER,
    NEWEST,
    NEXT_CLOSE,
    NEXT_GAP,
    NO_ROOM,
    OTHER_SPECIAL,
    RUN_MAX,
    RUN_MIN,
    SEEN,
    TRADE_END,
)
from market.seen import is_seen, remember
from market.state import Records, State, Trades
from market.trade import Int64s

_NOT_REGULAR: Final = 0
_NEW: Final = 1
_REPEATED: Final = 2


@compiled_scan
def walk(state: State, records: Records, trades: Trades) -> int:
    """Go on from where `state.progress` stands; return why the walk stopped (`market/layout.py`)."""
    progress, row, special = state.progress, trades.row, records.special
    while True:
        first, at = progress[AT_TRADE], progress[AT_SPECIAL]
        if first < len(row) and (at >= len(special) or row[first] < special[at, 0]):
            stop = _walk_trades(state, records, trades, first)
        elif at == len(special):
            return DONE
        elif special[at, 2] == -NEVER:
            return OTHER_SPECIAL
        else:
            stop = _walk_marker(state, records, special[at])
        if stop != DONE:
            return stop


@compiled_scan
def _walk_trades(state: State, records: Records, trades: Trades, first: int) -> int:
    row, progress = trades.row, state.progress
    end = first + 1
    while end < len(row) and row[end] == row[first]:
        end += 1
    progress[TRADE_END], count = end, end - first
    if progress[FREE] < LEVELS * count or (state.rules[CONTIGUOUS] == 0 and 2 * (progress[SEEN] + count) > len(state.seen)):
        return NO_ROOM
    decided = progress[DECIDED] == end
    if not decided and not _trades_are_regular(state, trades, first, end):
        return IRREGULAR_TRADES
    symbol, offset, received = trades.symbol[first], records.offset[row[first]], records.received[row[first]]
    newest = state.symbols[symbol, NEWEST]
    for k in range(first, end):
        trade = trades.order[k]
        if not decided:
            trades.accepted[trade] = _admit(state, symbol, newest, trades.trade_id[trade], trades.id_tail[trade], trades.time[trade])
        if trades.accepted[trade]:
            fold(state, trades, trade, offset, received)
    forget_deltas(state, symbol)
    progress[AT_TRADE] = end
    return DONE


@compiled_scan
def _trades_are_regular(state: State, trades: Trades, first: int, end: int) -> bool:
    # Changes nothing.
    symbol = trades.symbol[first]
    row = state.symbols[symbol]
    if row[FULL] == 1:
        return False
    watermark = row[COVERED_TO] - state.rules[LATENESS]
    last = row[LAST]
    for k in range(first, end):
        trade = trades.order[k]
        at = trades.time[trade]
        found = _NOT_REGULAR
        if trades.symbol[trade] == symbol:
            found = _judge(state, symbol, last, trades.trade_id[trade], trades.id_tail[trade], at)
        if found == _NOT_REGULAR:
            return False
        if found == _NEW:
            last = trades.trade_id[trade]
            if watermark >= at - at % LENGTHS[0] + LENGTHS[0] and not _is_settled(state, row, watermark, at):
                return False
    return True


@compiled_scan
def _judge(state: State, symbol: int, last: int, number: int, tail: int, at: int) -> int:
    # What an id is when the newest run has come to `last`.
    row = state.symbols[symbol]
    if state.rules[CONTIGUOUS] == 0:
        oldest = row[NEWEST] - state.rules[DEDUP_HORIZON]
        if at < oldest:
            return _NOT_REGULAR
        return _REPEATED if is_seen(state.seen, symbol, number, tail, oldest) else _NEW
    if number == last + 1:
        return _NEW if row[BRIDGE_LOW] < at < row[BRIDGE_HIGH] else _NOT_REGULAR
    return _REPEATED if row[FIRST] <= number <= last else _NOT_REGULAR


@compiled_scan
def _is_settled(state: State, row: Int64s, watermark: int, at: int) -> bool:
    # Whether each closed candle that a late trade belongs to has, or would be born with, known completeness.
    for level in range(LEVELS):
        start = at - at % LENGTHS[level]
        if watermark >= start + LENGTHS[level] and start < row[CLEAN_FROM] and find(state.candles, row[HEADS + level], start) < 0:
            return False
    return True


@compiled_scan
def _admit(state: State, symbol: int, newest: int, number: int, tail: int, at: int) -> bool:
    # Enters an id that is known to be regular; whether it is new.
    row = state.symbols[symbol]
    if state.rules[CONTIGUOUS] == 0:
        if is_seen(state.seen, symbol, number, tail, newest - state.rules[DEDUP_HORIZON]):
            return False
        remember(state.seen, state.progress, symbol, number, tail, at)
        row[NEWEST] = max(row[NEWEST], at)
    else:
        if number <= row[LAST]:
            return False
        row[LAST], row[LAST_TIME] = number, at
        row[RUN_MIN], row[RUN_MAX] = min(row[RUN_MIN], at), max(row[RUN_MAX], at)
    return True


@compiled_scan
def _walk_marker(state: State, records: Records, marker: Int64s) -> int:
    # Symbol by symbol; stops before the one at AT_SYMBOL.
    from_us, to_us = marker[1], marker[2]
    offset, received = records.offset[marker[0]], records.received[marker[0]]
    watermark = to_us - state.rules[LATENESS]
    for k in range(max(marker[3], state.progress[AT_SYMBOL]), marker[4]):
        symbol = records.named[k]
        row = state.symbols[symbol]
        state.progress[AT_SYMBOL] = k
        if from_us > row[COVERED_TO] or from_us + 1 < row[COVERED_FROM]:
            return IRREGULAR_MARKER
        if to_us <= row[COVERED_TO]:
            continue
        if to_us >= row[NEXT_GAP]:
            return IRREGULAR_MARKER
        if watermark >= row[NEXT_CLOSE]:
            if not can_close(state, symbol, watermark):
                return IRREGULAR_MARKER
            close(state, symbol, watermark, offset, received)
        row[COVERED_TO] = to_us
    state.progress[AT_SYMBOL] = 0
    state.progress[AT_SPECIAL] += 1
    return DONE
