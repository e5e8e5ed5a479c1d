"""Binance USD-M futures: the spot layouts on other hosts, with the execution type `X` and no `M`.

    {"e":"trade","E":ms,"T":ms,"s":"BTCUSDT","t":id,"p":"1.0","q":"1.0","X":"MARKET","m":true}

`X` is kept beside the trade (`vendor_data`). Executions that are not `MARKET` (insurance fund, auto-deleveraging) have ids of
the same numbering and do change the position of two parties: with a price and a quantity they count as trades, and whoever
wants market trades only can filter on `X`. With a quantity of zero they are dead letters (`bad_quantity`) like any trade
without one: they must not make a candle, and the hole that their id leaves stays visible in the gap ledger.

Source: recordings of `<symbol>@trade` on fstream.binance.com (hftbacktest); reports of zero quantities; limits: developers.binance.com,
USDⓈ-M futures, WebSocket market streams, read 2026-11.
"""

from __future__ import annotations

from connectors.venues.binance import Binance
from connectors.venues.feeding import FeedRules, Limit, RestRules


class BinanceUsdm(Binance):
    """Binance USD-M futures; contracts are listed as `BTC/USDT`, their own instruments beside those of spot."""

    exchange = "binance_usdm"
    vendor_field = "X"
    vendor_words = ("MARKET",)
    feed = FeedRules(
        websocket_url="wss://fstream.binance.com/market/ws",
        symbols_per_connection=200,  # 1024 are allowed; the figure was 200 for years
        symbols_per_message=100,
        connects=Limit(150, 300.0),
        messages=Limit(1, 0.15),  # 10 a second are allowed
        silence_seconds=10.0,
        proof_seconds=0.5,
        max_age_seconds=23 * 3600.0,
    )
    rest = RestRules(
        rest_url="https://fapi.binance.com",
        requests=Limit(1_000, 60.0),  # 2,400 are allowed per address
        weight=20,
        page_rows=500,
    )
    rest_folder = "/fapi/v1"
