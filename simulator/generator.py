"""Trades out of a seed: the same seed gives the same trades, at any speed and on any machine.

Orders arrive at random moments; a symbol's share follows Zipf's law. An order has one or several fills at one time, with
ids in a row, walking up or down the book. Prices walk at random around where they began.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from simulator.block import IS_BUY, IS_MARKET, Block, Ints
from simulator.listing import Listing

BLOCK_US: Final = 250_000
_FILLS_P: Final = 0.6  # of the geometric distribution of fills an order
_MOST_FILLS: Final = 12
_NOTIONAL: Final = 300.0  # of a typical fill, in quote units
_PUSH_US: Final = 3_000  # the longest a venue takes to push a trade


def mean_fills() -> float:
    """Return the mean number of fills of an order."""
    p, q = _FILLS_P, 1 - _FILLS_P
    return float(sum(k * p * q ** (k - 1) for k in range(1, _MOST_FILLS)) + _MOST_FILLS * q ** (_MOST_FILLS - 1))


class Generator:
    """A seeded source of trades.

    Args:
        exchange: whose trades; each exchange has its own stream of one seed.
        listings: what trades there; weights are shares of `rate`.
        seed: any whole number.
        rate: trades a second of run time, all symbols together.
        trades: stop after so many; None: never.
        end_us: stop at this run time; None: never.
    """

    def __init__(
        self, exchange: str, listings: Sequence[Listing], *, seed: int, rate: float, trades: int | None = None, end_us: int | None = None
    ) -> None:
        self.listings = list(listings)
        self._random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(exchange.encode())])))
        weights = np.array([listing.weight for listing in listings])
        self._shares = np.cumsum(weights) / weights.sum()
        self._orders_per_block = rate / mean_fills() * BLOCK_US / 1e6
        self._left = trades
        self._end_us = end_us
        self._began_us = 0
        self._orders = 0
        self._price = np.array([listing.first_price for listing in listings], dtype=np.int64)
        self._low, self._high = np.maximum(self._price // 2, 1), self._price * 2
        self._step = np.maximum(self._price // 200_000, 1)
        unit = np.array([10.0**listing.lot_decimals for listing in listings])
        price = np.array([listing.first_price / 10**listing.price_decimals for listing in listings])
        self._typical = _NOTIONAL / price * unit

    def next_block(self) -> Block | None:
        """Return the trades of the next quarter of a second, or None at the end."""
        if self._left == 0 or (self._end_us is not None and self._began_us >= self._end_us):
            return None
        began, self._began_us = self._began_us, self._began_us + BLOCK_US
        random = self._random
        orders = int(random.poisson(self._orders_per_block))
        moment = np.sort(random.integers(0, BLOCK_US, orders)) + began
        symbol = np.searchsorted(self._shares, random.random(orders), side="right").astype(np.int64)
        is_buy = random.random(orders) < 0.5
        is_market = random.random(orders) < 0.2
        due = np.maximum.accumulate(moment + random.integers(0, _PUSH_US, orders)) if orders else moment
        price = self._walk(symbol, random.integers(-2, 3, orders))
        fills = np.minimum(random.geometric(_FILLS_P, orders), _MOST_FILLS)
        of = np.repeat(np.arange(orders), fills)
        nth = np.arange(len(of)) - np.repeat(np.cumsum(fills) - fills, fills)
        # A taker who buys walks up the book, one tick at every other fill.
        paid = np.maximum(price[of] + np.where(is_buy[of], 1, -1) * (nth // 2), 1)
        flags = (is_buy[of] * IS_BUY + is_market[of] * IS_MARKET).astype(np.uint8)
        block = Block(
            self._began_us,
            symbol[of],
            due[of],
            moment[of],
            (due - moment)[of],
            paid,
            self._quantities(symbol[of]),
            flags,
            of + self._orders,
        )
        self._orders += orders
        return self._cut(block)

    def _walk(self, symbol: Ints, steps: Ints) -> Ints:
        # The price of each order: the symbol's last one plus the steps of its orders since, kept within half and double.
        by_symbol = np.argsort(symbol, kind="stable")
        ordered = symbol[by_symbol]
        walked = np.cumsum(steps[by_symbol] * self._step[ordered])
        first = np.flatnonzero(np.diff(ordered, prepend=-1))
        counts = np.diff(first, append=len(ordered))
        before = walked[first] - steps[by_symbol][first] * self._step[ordered[first]]
        walked = self._price[ordered] + walked - np.repeat(before, counts)
        walked = np.clip(walked, self._low[ordered], self._high[ordered])
        self._price[ordered[first]] = walked[first + counts - 1]
        price = np.empty_like(walked)
        price[by_symbol] = walked
        return price

    def _quantities(self, symbol: Ints) -> Ints:
        random = self._random
        size = np.maximum(self._typical[symbol] * np.exp(1.3 * random.standard_normal(len(symbol))), 1.0).astype(np.int64)
        # People like round numbers: 15 % have one digit that is not 0.
        unit = 10 ** np.floor(np.log10(size)).astype(np.int64)
        return np.where(random.random(len(symbol)) < 0.15, size // unit * unit, size)

    def _cut(self, block: Block) -> Block:
        keep = len(block)
        if self._end_us is not None:
            keep = int(np.searchsorted(block.run_us, self._end_us))
        if self._left is not None:
            keep = min(keep, self._left)
            self._left -= keep
        if keep == len(block):
            return block
        columns = {name: getattr(block, name)[:keep] for name in Block.__slots__ if name != "end_us"}
        return Block(block.end_us, **columns)


def zipf_weights(count: int, *, quiet: int, rate: float, quiet_rate: float) -> list[float]:
    """Return weights: 1, 1/2, 1/3, … for all but the last `quiet`, and for those what makes `quiet_rate` trades a second each."""
    busy = [1.0 / (n + 1) for n in range(count - quiet)]
    share = min(0.5, quiet * quiet_rate / rate) if quiet and rate > 0 else 0.0
    if not busy:
        return [1.0] * quiet
    return busy + [sum(busy) * share / (1 - share) / quiet] * quiet if quiet else busy
