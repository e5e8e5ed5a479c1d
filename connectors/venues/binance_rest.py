"""Binance's REST pages of past trades, spot and USD-M: by id, ascending, the first id included.

    historicalTrades  [{"id":7,"price":"1.0","qty":"1.0","quoteQty":"1.0","time":ms,"isBuyerMaker":true,"isBestMatch":true},…]
    aggTrades         [{"a":7,"p":"1.0","q":"1.0","f":11,"l":12,"T":ms,"m":true,"M":true},…]

    trades            as historicalTrades, the newest ones

USD-M serves `historicalTrades` of the last month, without the executions of insurance fund and auto-deleveraging, and only
to who sends an API key (else status 401); aggregate trades and the newest trades need none.

Source: binance-spot-api-docs `rest-api.md`, old trade lookup and aggregate trades, read 2026-07-21.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from connectors.venues.feeding import PageRequest, Wanted
from connectors.venues.reading import Item, Items, page_items
from market.instrument import Instrument

_NEWEST: Final = 1000
_WIRE_NAMES: Final = {"id": "t", "price": "p", "qty": "q", "time": "T", "isBuyerMaker": "m"}  # REST -> trade event


def page_request(folder: str, instrument: Instrument, wanted: Wanted) -> PageRequest:
    """Return the request for the page that begins at `wanted.first_id`; `folder` is `/api/v3` or the like."""
    name = "aggTrades" if instrument.stream == "aggTrade" else "historicalTrades"
    path = f"{folder}/{name}?symbol={quote(instrument.venue_symbol, safe='')}&fromId={wanted.first_id}&limit={wanted.rows}"
    return PageRequest(path, wanted.rows)


def newest_page(folder: str, instrument: Instrument) -> PageRequest:
    """Return the request for the newest trades."""
    return PageRequest(f"{folder}/trades?symbol={quote(instrument.venue_symbol, safe='')}&limit={_NEWEST}", _NEWEST, is_newest=True)


def items(body: object, symbol: object) -> Items:
    """Return the trades of a page as trade events.

    Raises:
        Unusable: the body is no list.
    """

    def item(row: Mapping[str, object]) -> Item:
        if "id" not in row and "a" in row:
            return Item(row, symbol, stream="aggTrade")
        return Item({wire: row[name] for name, wire in _WIRE_NAMES.items() if name in row}, symbol)

    return page_items(body, item)
