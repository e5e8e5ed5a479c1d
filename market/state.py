"""The arrays of a shard, bundled for compiled functions, and the batch they walk."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from market.layout import CANDLE_WIDTH, DECIMAL_WIDTH, FREE, PROGRESS_WIDTH
from market.rules import Rules
from market.trade import Bools, Decimals, Int32s, Int64s

Words = npt.NDArray[np.uint64]
Number = TypeVar("Number", np.int64, np.uint64)


class State(NamedTuple):
    """Rows and columns are described in `market/layout.py`."""

    symbols: Int64s  # (symbols, SYMBOL_WIDTH)
    candles: Int64s  # (capacity, CANDLE_WIDTH)
    sums: Words  # (capacity, DECIMAL_WIDTH)
    free: Int64s  # the first FREE are free candle slots
    changed: Int64s  # the first CHANGED are candles that this batch changed
    unsettled: Int64s  # the first UNSETTLED are closed candles of this record whose completeness is not known
    progress: Int64s  # (PROGRESS_WIDTH,)
    seen: Int64s  # ids of venues whose ids jump (market/seen.py)
    rules: Int64s


class Trades(NamedTuple):
    """Trades of one batch as in `market.trade.TradeBatch`; `accepted` is set as they are.

    `order`: trade numbers, each record's by id, equal ids in frame order.
    """

    row: Int32s
    symbol: Int32s
    trade_id: Int64s
    id_tail: Int64s
    time: Int64s
    is_buy: Bools
    price: Decimals
    quantity: Decimals
    quote_volume: Decimals
    accepted: Bools
    order: Int64s


class Records(NamedTuple):
    """The batch's records: offset and receive time of each; those that are not frames as (n, 5) rows in `special`.

    A row of `special`: record, from_us, to_us, and the range of `named` that holds a marker's symbols. `to_us` = -NEVER: not a marker.
    """

    offset: Int64s
    received: Int64s
    special: Int64s
    named: Int64s


def grown(state: State, slots: int) -> State:
    """Return the state with at least `slots` more free candle slots; the arrays of candles are new ones."""
    old = len(state.candles)
    size = max(2 * old, old + slots)
    free = np.zeros(size, np.int64)
    used = int(state.progress[FREE])
    free[:used] = state.free[:used]
    free[used : used + size - old] = np.arange(size - 1, old - 1, -1)
    state.progress[FREE] = used + size - old
    return state._replace(
        candles=_longer(state.candles, size),
        sums=_longer(state.sums, size),
        free=free,
        changed=_longer(state.changed, size),
        unsettled=_longer(state.unsettled, size),
    )


def _longer(array: npt.NDArray[Number], size: int) -> npt.NDArray[Number]:
    longer = np.zeros((size, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer


def new_state(symbols: Int64s, rules: Rules, seen: Int64s) -> State:
    """Return a state without candles."""
    numbers = (rules.lateness_us, rules.horizon_us, rules.dedup_horizon_us, int(rules.contiguous_ids))
    none = np.zeros(0, np.int64)
    candles, sums = np.zeros((0, CANDLE_WIDTH), np.int64), np.zeros((0, DECIMAL_WIDTH), np.uint64)
    return State(symbols, candles, sums, none, none, none, np.zeros(PROGRESS_WIDTH, np.int64), seen, np.array(numbers, np.int64))
