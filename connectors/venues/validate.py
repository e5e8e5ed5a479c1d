"""The checks that every venue's trades pass, in one place: range of the product, plausible times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa

from connectors.venues.columns import Columns, selected
from market.exact import multiply, to_decimals, too_large
from market.rules import MAX_AHEAD_US, MIN_TIME_US
from market.trade import Bools, Decimals, Int64s, Rejected, TradeBatch

_SHOWN_TIME: Final = "the trade's time {time} µs is {what} (received {received} µs)"


def validated(columns: Columns, received: Int64s, vendor: Mapping[str, tuple[str, ...]]) -> tuple[TradeBatch, list[Rejected]]:
    """Return the trades that may be counted, and a reject for each of the others.

    Args:
        columns: prices and quantities are already > 0 and < 10^15.
        received: receive time of each record of the raw batch, epoch µs.
        vendor: the venue's extra field, if it has one, and the words that `columns.vendor` counts from 1.

    Rejects are `implausible_time` and `out_of_range` (price × quantity rounds to zero, or is 10^15 or more). A frame's own
    time that is not plausible is not worth a trade: the trade's time stands in for it.
    """
    quote, overflow = multiply(columns.price, columns.quantity)
    limit = received[columns.row] + MAX_AHEAD_US
    bad_time = _implausible(columns.time_us, limit)
    bad_product = overflow | too_large(quote) | ~quote.any(axis=1)
    event_us = np.where(_implausible(columns.event_us, limit), columns.time_us, columns.event_us)
    bad = bad_time | bad_product
    if not bad.any():
        return _batch(columns, event_us, quote, vendor), []
    rejects = [_reject(columns, int(k), received, late=bool(bad_time[k])) for k in np.flatnonzero(bad)]
    return _batch(selected(columns, ~bad), event_us[~bad], quote[~bad], vendor), rejects


def _implausible(times: Int64s, limit: Int64s) -> Bools:
    result: Bools = (times < MIN_TIME_US) | (times > limit)
    return result


def _reject(columns: Columns, k: int, received: Int64s, *, late: bool) -> Rejected:
    row = int(columns.row[k])
    if late:
        time = int(columns.time_us[k])
        what = "before 2009" if time < MIN_TIME_US else "more than an hour ahead"
        return Rejected(row, "implausible_time", _SHOWN_TIME.format(time=time, what=what, received=int(received[row])))
    price, quantity = to_decimals(columns.price[k : k + 1])[0], to_decimals(columns.quantity[k : k + 1])[0]
    return Rejected(row, "out_of_range", f"price × quantity: {price.normalize():f} × {quantity.normalize():f}")


def _batch(columns: Columns, event_us: Int64s, quote: Decimals, vendor: Mapping[str, tuple[str, ...]]) -> TradeBatch:
    return TradeBatch(
        row=columns.row,
        symbol=columns.symbol,
        trade_id=columns.trade_id,
        time_us=columns.time_us,
        event_us=event_us,
        is_buy=columns.is_buy,
        is_snapshot=columns.is_snapshot,
        price=columns.price,
        quantity=columns.quantity,
        quote_volume=quote,
        vendor={name: _words(columns, words) for name, words in vendor.items()},
        id_tail=columns.id_tail,
    )


def _words(columns: Columns, words: tuple[str, ...]) -> pa.Array:
    return pa.array([None, *words], pa.string()).take(pa.array(columns.vendor))
