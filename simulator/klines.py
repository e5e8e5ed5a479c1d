"""Candles of the tape, made the simplest exact way: Python's own integers, one window after the other.

Nothing of the platform is used here: this is what its candles are compared with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import mul

import numpy as np

from simulator.block import IS_BUY, Rows, runs
from simulator.tape import SymbolTape

MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Kline:
    """One candle. Prices are 10^-price_decimals, quantities 10^-lot_decimals, quote volumes the product of both."""

    start_us: int
    open: int
    high: int
    low: int
    close: int
    quantity: int
    quote: int
    buy_quantity: int
    buy_quote: int
    trades: int


def klines(tape: SymbolTape, interval_us: int, start_us: int, end_us: int, *, with_lost: bool = True) -> Iterator[Kline]:
    """Yield the candles of windows that begin in [start_us, end_us) and hold a trade, ascending.

    The first and last price are those of the lowest and highest id, which are also the earliest and latest: a venue's times
    do not decrease.
    """
    first = start_us // interval_us * interval_us
    first += interval_us if first < start_us else 0
    last = -(-end_us // interval_us) * interval_us
    rows = tape.rows(tape.row_at(first), tape.row_at(last), with_lost=with_lost)
    window = rows.time_us // interval_us
    for at, stop in runs(window):
        yield _kline(int(window[at]) * interval_us, rows.where(np.arange(at, stop)))


def _kline(start_us: int, rows: Rows) -> Kline:
    price, quantity = rows.price.tolist(), rows.quantity.tolist()
    bought = rows.where((rows.flags & IS_BUY) != 0)
    buy_price, buy_quantity = bought.price.tolist(), bought.quantity.tolist()
    return Kline(
        start_us,
        price[0],
        max(price),
        min(price),
        price[-1],
        sum(quantity),
        sum(map(mul, price, quantity)),
        sum(buy_quantity),
        sum(map(mul, buy_price, buy_quantity)),
        len(price),
    )


def filled(found: Iterator[Kline], interval_us: int, before: Kline | None, start_us: int, end_us: int) -> Iterator[Kline]:
    """Yield candles of every window in [start_us, end_us): one without a trade stands flat at the close before it.

    Windows before the first trade that is known are left out.
    """
    previous, at = before, -(-start_us // interval_us) * interval_us
    for kline in found:
        while previous is not None and at < kline.start_us:
            yield _flat(at, previous.close)
            at += interval_us
        yield kline
        previous, at = kline, kline.start_us + interval_us
    while previous is not None and at < end_us:
        yield _flat(at, previous.close)
        at += interval_us


def _flat(start_us: int, price: int) -> Kline:
    return Kline(start_us, price, price, price, price, 0, 0, 0, 0, 0)


def last_before(tape: SymbolTape, interval_us: int, time_us: int) -> Kline | None:
    """Return a candle that ends with the last trade before a time, or None: what flat candles after it stand at."""
    row = tape.row_at(time_us)
    rows = tape.page_until(row, 1)
    return _kline(int(rows.time_us[0]) // interval_us * interval_us, rows) if len(rows) else None
