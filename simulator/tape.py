"""Everything a venue has traded, by symbol and id: what its REST interface answers from, and what the books are made of.

Columns of numbers, 25 bytes a trade. A symbol's ids are contiguous; ids that a recording does not hold are kept as absent rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simulator.block import ABSENT, LOST, Block, Ints, Rows, runs
from simulator.listing import Listing

_FIRST_SIZE = 1024


class SymbolTape:
    """The trades of one symbol. Row n has id `first_id + n`; the first `released` rows have been sent or could have been."""

    def __init__(self, listing: Listing, code: int) -> None:
        self.listing = listing
        self.code = code
        self.first_id = listing.first_id
        self.released = 0
        self._n = 0
        self._time = np.empty(_FIRST_SIZE, dtype=np.int64)
        self._price = np.empty(_FIRST_SIZE, dtype=np.int64)
        self._quantity = np.empty(_FIRST_SIZE, dtype=np.int64)
        self._flags = np.empty(_FIRST_SIZE, dtype=np.uint8)

    def __len__(self) -> int:
        return self._n

    @property
    def first_time_us(self) -> int:
        """The time of the first trade that is kept, or 0."""
        return int(self._time[0]) if self._n else 0

    @property
    def last_time_us(self) -> int:
        """The time of the last trade, or 0."""
        return int(self._time[self._n - 1]) if self._n else 0

    def append(self, time_us: Ints, price: Ints, quantity: Ints, flags: NDArray[np.uint8]) -> Ints:
        """Add trades; returns their ids."""
        start, stop = self._n, self._n + len(time_us)
        if stop > len(self._time):
            self._grow(stop)
        self._time[start:stop] = time_us
        self._price[start:stop] = price
        self._quantity[start:stop] = quantity
        self._flags[start:stop] = flags
        self._n = stop
        return np.arange(self.first_id + start, self.first_id + stop, dtype=np.int64)

    def _grow(self, needed: int) -> None:
        size = max(needed, len(self._time) * 3 // 2)
        for name in ("_time", "_price", "_quantity", "_flags"):
            old = getattr(self, name)
            new = np.empty(size, dtype=old.dtype)
            new[: self._n] = old[: self._n]
            setattr(self, name, new)

    def forget(self, rows: int) -> None:
        """Drop the oldest rows; ids stay what they are."""
        for name in ("_time", "_price", "_quantity", "_flags"):
            setattr(self, name, getattr(self, name)[rows : self._n].copy())
        self.first_id += rows
        self._n -= rows
        self.released = max(0, self.released - rows)

    def mark_lost(self, trade_ids: Ints) -> None:
        """Make trades unobtainable: REST no longer knows them."""
        rows = trade_ids - self.first_id
        self._flags[rows[rows >= 0]] |= LOST

    def row_of(self, trade_id: int) -> int:
        """Return the row of an id, or of the first id after it; between 0 and the number of released rows."""
        return min(max(trade_id - self.first_id, 0), self.released)

    def row_at(self, time_us: int) -> int:
        """Return the first released row that happened at or after a time."""
        return int(np.searchsorted(self._time[: self.released], time_us))

    def rows(self, start: int, stop: int, *, with_lost: bool = False) -> Rows:
        """Return released rows [start, stop), without absent ids, and without lost trades unless asked for."""
        start, stop = max(start, 0), min(stop, self.released)
        hidden = ABSENT if with_lost else ABSENT | LOST
        kept = np.flatnonzero((self._flags[start:stop] & hidden) == 0) + start
        zeros = np.zeros(len(kept), dtype=np.int64)
        return Rows(
            np.full(len(kept), self.code, dtype=np.int64),
            kept + self.first_id,
            self._time[kept],
            zeros,
            self._price[kept],
            self._quantity[kept],
            self._flags[kept],
            zeros,
        )

    def page_from(self, start: int, limit: int) -> Rows:
        """Return the first `limit` obtainable trades at or after a row."""
        stop = start + limit
        while True:
            page = self.rows(start, stop)
            if len(page) >= limit or stop >= self.released:
                return page.where(np.arange(min(len(page), limit)))
            stop += limit

    def page_until(self, stop: int, limit: int) -> Rows:
        """Return the last `limit` obtainable trades before a row, ascending."""
        start = stop - limit
        while True:
            page = self.rows(start, stop)
            if len(page) >= limit or start <= 0:
                return page.where(np.arange(max(0, len(page) - limit), len(page)))
            start -= limit


class Tape:
    """The trades of one venue."""

    def __init__(self, listings: Sequence[Listing]) -> None:
        self.symbols = [SymbolTape(listing, code) for code, listing in enumerate(listings)]

    def __len__(self) -> int:
        return sum(len(symbol) for symbol in self.symbols)

    def add(self, block: Block, time_us: Ints, resolution_us: int) -> Rows:
        """Take a block in, not yet released; returns its trades with ids and the times of the venue's clock.

        `time_us` is what that clock said, to be cut to the venue's resolution.

        A clock that was set back stands still until it has caught up: times of a symbol never decrease.
        """
        by_symbol = np.argsort(block.symbol, kind="stable")
        ordered = block.symbol[by_symbol]
        time_us = time_us - time_us % resolution_us
        trade_id = np.empty(len(block), dtype=np.int64)
        for first, stop in runs(ordered):
            rows = by_symbol[first:stop]
            tape = self.symbols[int(ordered[first])]
            time_us[rows] = np.maximum(np.maximum.accumulate(time_us[rows]), tape.last_time_us)
            trade_id[rows] = tape.append(time_us[rows], block.price[rows], block.quantity[rows], block.flags[rows])
        return Rows(block.symbol, trade_id, time_us, block.push_us, block.price, block.quantity, block.flags, block.order)

    def release(self, symbols: Ints) -> None:
        """Let trades of these symbols be seen, one a mention, in the order they were added."""
        for code, count in enumerate(np.bincount(symbols, minlength=len(self.symbols)).tolist()):
            self.symbols[code].released += count

    def trim(self, limit: int) -> None:
        """Forget the oldest quarter of every symbol when more than `limit` trades are kept."""
        if len(self) > limit:
            for symbol in self.symbols:
                symbol.forget(min(symbol.released, len(symbol) // 4))
