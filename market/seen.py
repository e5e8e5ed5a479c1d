"""The ids a venue with jumping ids has sent lately: a table from (symbol, id) to event time, open addressing.

Columns of the table: symbol, id, its tail (`market.ids`), event time; a symbol of -1 marks a free place. At most half of it is used.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from market.jit import compiled_scan
from market.layout import DEDUP_HORIZON, NEWEST, SEEN
from market.trade import Int64s

_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_SHIFT: Final = np.uint64(29)
SEEN_WIDTH: Final = 4


def new_table(capacity: int) -> Int64s:
    """Return an empty table for at least `capacity` ids."""
    size = 1 << max(4, (2 * capacity).bit_length())
    return np.full((size, SEEN_WIDTH), -1, np.int64)


@compiled_scan
def place(table: Int64s, symbol: int, trade_id: int, tail: int) -> int:
    """Return where the id is, or the free place where it belongs."""
    mixed = (np.uint64(trade_id) ^ (np.uint64(symbol) << np.uint64(48))) * _MIX
    mixed ^= mixed >> _SHIFT
    at = np.int64(mixed & np.uint64(len(table) - 1))
    while table[at, 0] != -1 and not (table[at, 0] == symbol and table[at, 1] == trade_id and table[at, 2] == tail):
        at = (at + 1) & (len(table) - 1)
    return int(at)


@compiled_scan
def is_seen(table: Int64s, symbol: int, trade_id: int, tail: int, oldest: int) -> bool:
    """Return whether the id is there with an event time of `oldest` or later; older ones count as forgotten, swept or not."""
    at = place(table, symbol, trade_id, tail)
    return bool(table[at, 0] != -1 and table[at, 3] >= oldest)


@compiled_scan
def remember(table: Int64s, progress: Int64s, symbol: int, trade_id: int, tail: int, time: int) -> None:
    """Enter an id; the caller has made sure that there is room."""
    at = place(table, symbol, trade_id, tail)
    if table[at, 0] == -1:
        table[at, 0], table[at, 1], table[at, 2] = symbol, trade_id, tail
        progress[SEEN] += 1
    table[at, 3] = time


@compiled_scan
def move_live(table: Int64s, symbols: Int64s, rules: Int64s, larger: Int64s, progress: Int64s) -> None:
    """Enter what is not forgotten into another, empty table."""
    progress[SEEN] = 0
    for at in range(len(table)):
        symbol = table[at, 0]
        if symbol != -1 and table[at, 3] >= symbols[symbol, NEWEST] - rules[DEDUP_HORIZON]:
            remember(larger, progress, symbol, table[at, 1], table[at, 2], table[at, 3])
