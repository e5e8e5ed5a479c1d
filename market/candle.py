"""What a candle is: found or created by window, grown by one trade, closed by the watermark, evicted after the horizon.

Candles live in a pool of rows (`market/layout.py`). Those of one symbol and interval form a list in falling window order,
so the current one is found first. All functions here are compiled and are called trade by trade.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from market.exact import add128, less128
from market.jit import compiled_scan
from market.layout import (
    BUY_QUOTE,
    BUY_VOLUME,
    CAUSE,
    CHANGE,
    CHANGED,
    CLEAN_FROM,
    CLOSE,
    CLOSE_ID,
    CLOSE_TAIL,
    CLOSE_TIME,
    CLOSED,
    COMPLETE,
    COUNT,
    COVERED_TO,
    DAY_DELTAS,
    DAY_LEVEL,
    DELTA_HEADS,
    DIRTY,
    FREE,
    FULL,
    HEADS,
    HIGH,
    HORIZON,
    LATENESS,
    LENGTHS,
    LEVEL,
    LEVELS,
    LOW,
    NEVER,
    NEXT,
    NEXT_CLOSE,
    NEXT_EVICT,
    OPEN,
    OPEN_ID,
    OPEN_TAIL,
    OPEN_TIME,
    QUOTE,
    REVISION,
    START,
    SYMBOL,
    UNSETTLED,
    UPDATED,
    VOLUME,
)
from market.schema import Change
from market.state import State, Trades
from market.trade import Int64s

_DELTA: Final = Change.DELTA.value
# A sum whose high word has come this far (4.2·10^19 of 10^20) makes its symbol's trades be checked one by one. What is left
# takes 57,000 trades of the largest size, more than one record may hold unchecked.
_NEARLY_FULL: Final = np.uint64(1 << 61)
_0: Final = np.uint64(0)


@compiled_scan
def find(candles: Int64s, head: int, start: int) -> int:
    """Return the slot of the window in the list that begins at slot `head`, or -1."""
    slot = head
    while slot >= 0 and candles[slot, START] > start:
        slot = candles[slot, NEXT]
    if slot >= 0 and candles[slot, START] == start:
        return slot
    return -1


@compiled_scan
def create(state: State, symbol: int, head: int, level: int, start: int) -> int:
    """Return a new candle's slot, in its place in the symbol's list at column `head`; the caller has seen to a free slot."""
    state.progress[FREE] -= 1
    slot = state.free[state.progress[FREE]]
    candles = state.candles
    candles[slot] = 0
    state.sums[slot] = _0
    candles[slot, START], candles[slot, SYMBOL], candles[slot, LEVEL] = start, symbol, level
    before, after = -1, state.symbols[symbol, head]
    while after >= 0 and candles[after, START] > start:
        before, after = after, candles[after, NEXT]
    candles[slot, NEXT] = after
    if before < 0:
        state.symbols[symbol, head] = slot
    else:
        candles[before, NEXT] = slot
    return int(slot)


@compiled_scan
def mark(state: State, slot: int, offset: int, received: int) -> None:
    """Note that a record changes a candle's row: its cause, and one more revision if it had closed before."""
    candle = state.candles[slot]
    if candle[CAUSE] != offset:
        candle[REVISION] += candle[CLOSED]
        candle[CAUSE] = offset
        candle[UPDATED] = received
    if candle[DIRTY] == 0:
        candle[DIRTY] = 1
        state.changed[state.progress[CHANGED]] = slot
        state.progress[CHANGED] += 1


@compiled_scan
def _is_before(time: int, number: int, tail: int, other_time: int, other_number: int, other_tail: int) -> bool:
    # Whether one trade comes before another by (time, id).
    if time != other_time:
        return time < other_time
    return tail < other_tail if number == other_number else number < other_number


@compiled_scan
def add(state: State, slot: int, trades: Trades, trade: int) -> None:
    """Add one trade to a candle: open and close go to the least and greatest (time, id), sums are exact."""
    candle, sums = state.candles[slot], state.sums[slot]
    at, number, tail = trades.time[trade], trades.trade_id[trade], trades.id_tail[trade]
    p0, p1 = trades.price[trade, 0], trades.price[trade, 1]
    fresh = candle[COUNT] == 0
    candle[COUNT] += 1
    if fresh or _is_before(at, number, tail, candle[OPEN_TIME], candle[OPEN_ID], candle[OPEN_TAIL]):
        candle[OPEN_TIME], candle[OPEN_ID], candle[OPEN_TAIL] = at, number, tail
        sums[OPEN], sums[OPEN + 1] = p0, p1
    if fresh or _is_before(candle[CLOSE_TIME], candle[CLOSE_ID], candle[CLOSE_TAIL], at, number, tail):
        candle[CLOSE_TIME], candle[CLOSE_ID], candle[CLOSE_TAIL] = at, number, tail
        sums[CLOSE], sums[CLOSE + 1] = p0, p1
    if fresh or less128(sums[HIGH], sums[HIGH + 1], p0, p1):
        sums[HIGH], sums[HIGH + 1] = p0, p1
    if fresh or less128(p0, p1, sums[LOW], sums[LOW + 1]):
        sums[LOW], sums[LOW + 1] = p0, p1
    q0, q1 = trades.quantity[trade, 0], trades.quantity[trade, 1]
    v0, v1 = trades.quote_volume[trade, 0], trades.quote_volume[trade, 1]
    sums[VOLUME], sums[VOLUME + 1] = add128(sums[VOLUME], sums[VOLUME + 1], q0, q1)
    sums[QUOTE], sums[QUOTE + 1] = add128(sums[QUOTE], sums[QUOTE + 1], v0, v1)
    if trades.is_buy[trade]:
        sums[BUY_VOLUME], sums[BUY_VOLUME + 1] = add128(sums[BUY_VOLUME], sums[BUY_VOLUME + 1], q0, q1)
        sums[BUY_QUOTE], sums[BUY_QUOTE + 1] = add128(sums[BUY_QUOTE], sums[BUY_QUOTE + 1], v0, v1)


@compiled_scan
def fold(state: State, trades: Trades, trade: int, offset: int, received: int) -> None:
    """Add one accepted trade to its six candles, or to deltas where those have left the state.

    Candles born closed in windows that are not known to be complete are listed as unsettled.
    """
    symbol, at = trades.symbol[trade], trades.time[trade]
    for level in range(LEVELS):
        start = at - at % LENGTHS[level]
        slot = find(state.candles, state.symbols[symbol, HEADS + level], start)
        if slot < 0:
            slot = _bear(state, symbol, level, start, offset, received)
        mark(state, slot, offset, received)
        add(state, slot, trades, trade)
        if level == DAY_LEVEL and (state.sums[slot, VOLUME + 1] | state.sums[slot, QUOTE + 1]) >= _NEARLY_FULL:
            state.symbols[symbol, FULL] = 1


@compiled_scan
def _bear(state: State, symbol: int, level: int, start: int, offset: int, received: int) -> int:
    # A candle that is not in state: a delta of this record, or a new one, closed at birth where the watermark has passed.
    row = state.symbols[symbol]
    end = start + LENGTHS[level]
    watermark = row[COVERED_TO] - state.rules[LATENESS]
    evicted = watermark >= end + state.rules[HORIZON]
    if evicted:
        slot = find(state.candles, row[DELTA_HEADS + level], start)
        if slot >= 0:
            return slot
        slot = create(state, symbol, DELTA_HEADS + level, level, start)
        state.candles[slot, CHANGE] = _DELTA
        if level == DAY_LEVEL:
            state.progress[DAY_DELTAS] += 1
    else:
        slot = create(state, symbol, HEADS + level, level, start)
    state.candles[slot, CAUSE], state.candles[slot, UPDATED] = offset, received
    if watermark >= end:
        _set_closed(state, slot, row[CLEAN_FROM])
        if not evicted:
            row[NEXT_EVICT] = min(row[NEXT_EVICT], end)
    else:
        row[NEXT_CLOSE] = min(row[NEXT_CLOSE], end)
    return slot


@compiled_scan
def _set_closed(state: State, slot: int, clean_from: int) -> None:
    candle = state.candles[slot]
    candle[CLOSED] = 1
    if candle[START] >= clean_from:
        candle[COMPLETE] = 1
    else:
        state.unsettled[state.progress[UNSETTLED]] = slot
        state.progress[UNSETTLED] += 1


@compiled_scan
def forget_deltas(state: State, symbol: int) -> None:
    """End a record: its deltas are whole, the next record makes its own."""
    state.symbols[symbol, DELTA_HEADS : DELTA_HEADS + LEVELS] = -1


@compiled_scan
def can_close(state: State, symbol: int, watermark: int) -> bool:
    """Return whether every candle that this watermark closes is known to be complete."""
    clean_from = state.symbols[symbol, CLEAN_FROM]
    for level in range(LEVELS):
        slot = state.symbols[symbol, HEADS + level]
        while slot >= 0 and state.candles[slot, CLOSED] == 0:
            start = state.candles[slot, START]
            if watermark >= start + LENGTHS[level] and start < clean_from:
                return False
            slot = state.candles[slot, NEXT]
    return True


@compiled_scan
def close(state: State, symbol: int, watermark: int, offset: int, received: int) -> None:
    """Close the candles whose window has ended; those not known to be complete are listed as unsettled."""
    row = state.symbols[symbol]
    row[NEXT_CLOSE] = NEVER
    for level in range(LEVELS):
        slot = row[HEADS + level]
        # Windows fall along the list: behind the first closed candle all are closed.
        while slot >= 0 and state.candles[slot, CLOSED] == 0:
            end = state.candles[slot, START] + LENGTHS[level]
            if watermark >= end:
                mark(state, slot, offset, received)
                _set_closed(state, slot, row[CLEAN_FROM])
                row[NEXT_EVICT] = min(row[NEXT_EVICT], end)
            else:
                row[NEXT_CLOSE] = min(row[NEXT_CLOSE], end)
            slot = state.candles[slot, NEXT]


@compiled_scan
def closed_between(state: State, symbol: int, low: int, high: int, out: Int64s) -> int:
    """List the slots of a symbol's closed candles whose windows meet [low, high]; returns how many."""
    count = 0
    for level in range(LEVELS):
        slot = state.symbols[symbol, HEADS + level]
        while slot >= 0 and state.candles[slot, START] + LENGTHS[level] > low:
            if state.candles[slot, CLOSED] == 1 and state.candles[slot, START] <= high:
                out[count] = slot
                count += 1
            slot = state.candles[slot, NEXT]
    return count


@compiled_scan
def evict(state: State, days: Int64s) -> int:
    """Drop closed candles older than the horizon; lists (symbol, window start) of dropped days, returns how many."""
    count = 0
    candles = state.candles
    for symbol in range(len(state.symbols)):
        row = state.symbols[symbol]
        limit = row[COVERED_TO] - state.rules[LATENESS] - state.rules[HORIZON]
        if limit < row[NEXT_EVICT]:
            continue
        row[NEXT_EVICT] = NEVER
        for level in range(LEVELS):
            before, slot = -1, row[HEADS + level]
            while slot >= 0 and (candles[slot, CLOSED] == 0 or candles[slot, START] + LENGTHS[level] > limit):
                if candles[slot, CLOSED] == 1:
                    row[NEXT_EVICT] = min(row[NEXT_EVICT], candles[slot, START] + LENGTHS[level])
                before, slot = slot, candles[slot, NEXT]
            if before >= 0:
                candles[before, NEXT] = -1
            else:
                row[HEADS + level] = -1
            while slot >= 0:
                if level == DAY_LEVEL:
                    days[count, 0], days[count, 1] = symbol, candles[slot, START]
                    count += 1
                    row[FULL] = 0
                state.free[state.progress[FREE]] = slot
                state.progress[FREE] += 1
                slot = candles[slot, NEXT]
    return count
