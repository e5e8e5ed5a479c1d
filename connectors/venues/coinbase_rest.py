"""Coinbase Exchange's REST pages of past trades: by id, newest first, with the ids of Advanced Trade.

    /products/BTC-USD/trades?after=<id>&limit=n    the n trades next below that id
    /products/BTC-USD/trades?before=<id>&limit=n   the newest n trades above that id
    [{"trade_id":1068572091,"side":"sell","size":"0.01034361","price":"65083.67","time":"2026-08-09T21:05:48.167634Z"},…]

`side` is the maker's, as in the feed. So a range in the past is asked for from above, and whether anything is newer than
some id by `before`: a page of fewer than n then holds all of it.

Source: docs.cdp.coinbase.com, Exchange REST API, product trades and pagination, read 2026-08.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from connectors.venues.feeding import PageRequest, Wanted
from connectors.venues.reading import Item, Items, page_items
from connectors.venues.text import NumberText
from market.instrument import Instrument

_MAKER: Final = {"buy": "BUY", "sell": "SELL"}


def page_request(instrument: Instrument, wanted: Wanted) -> PageRequest:
    """Return the request for the page that holds `wanted.first_id`, or for the newest page above it."""
    cursor = f"before={wanted.first_id - 1}" if wanted.last_id is None else f"after={wanted.first_id + wanted.rows}"
    return PageRequest(f"/products/{quote(instrument.venue_symbol, safe='')}/trades?{cursor}&limit={wanted.rows}", wanted.rows)


def items(body: object, symbol: object) -> Items:
    """Return the trades of a page, spelled as in a `market_trades` frame.

    Raises:
        Unusable: the body is no list.
    """

    def item(row: Mapping[str, object]) -> Item:
        number, side = row.get("trade_id"), row.get("side")
        trade_id = str(number) if isinstance(number, NumberText) else None
        return Item({**row, "trade_id": trade_id, "side": _MAKER.get(side) if isinstance(side, str) else None}, symbol)

    return page_items(body, item)
