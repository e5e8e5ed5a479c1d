"""Gemini market data v2: trades of the `l2` subscription.

    {"event_id":1764551741926942,"price":"65206.29","quantity":"0.00007667","side":"buy","symbol":"BTCUSD",
     "tid":2840141017904555,"timestamp":ms,"type":"trade"}
    {"auction_events":[],"changes":[…],"symbol":"BTCUSD","trades":[…],"type":"l2_updates"}            (first of a symbol)

`side` is the taker's; a block trade says `block` and has none (a dead letter `bad_side`). The trades of the first
`l2_updates` are up to 100 past ones, oldest first, days old where trading is thin. There is no ack: that frame is one. Ids
(`tid`) come from a counter that symbols share: they jump.

Source: docs.gemini.com, WebSocket, Market data v2, read 2026-08; recording in tests/data/gemini.
"""

from __future__ import annotations

from connectors.venues.columns import texts
from connectors.venues.feeding import FeedRules, Limit, Notice, NoticeKind
from connectors.venues.layout import Layout, TableVenue
from connectors.venues.reading import Items
from connectors.venues.routing import route_of
from connectors.venues.text import Unusable, shown

CONTROL = frozenset(("heartbeat", "subscription_ack", "auction_open", "auction_indicative", "auction_result", "candles_1m_updates"))


class Gemini(TableVenue):
    """Gemini spot, and perpetuals where an entry names their `venue_symbol` (`BTCGUSDPERP`)."""

    exchange = "gemini"
    contiguous_ids = False
    separator = ""
    quotes = "USD GUSD USDT USDC EUR GBP SGD DAI BTC ETH SOL FIL"
    trade_marks = (b'"type":"trade"', b'"trades":')
    control_marks = (b'"trades":[', b'"result":"error"')
    other_channels = texts()
    route = route_of((('{"event_id":', "trade"),), "symbol")
    layout = Layout(
        frames=("<{}>",),
        texts=frozenset(("price", "quantity", "side", "symbol", "type")),
        symbol="symbol",
        id="tid",
        time="timestamp",
        price="price",
        quantity="quantity",
        side="side",
        buy="buy",
        sell="sell",
        fixed="type",
        fixed_text="trade",
        fixed_must=True,
    )
    feed = FeedRules(
        websocket_url="wss://api.gemini.com/v2/marketdata",
        symbols_per_connection=50,  # each brings its whole order book
        symbols_per_message=25,
        connects=Limit(20, 60.0),
        messages=Limit(5, 1.0),
        silence_seconds=15.0,  # heartbeats come each 5 s
    )

    def items(self, document: object) -> Items | None:
        """Return a trade, or the past trades of a symbol's first frame."""
        if not isinstance(document, dict):
            raise Unusable("bad_frame", f"not an object: {shown(document)}")
        kind = document.get("type")
        if kind == "trade":
            return [self.trade(document)]
        if kind == "l2_updates":
            return self.trades(document["trades"], is_snapshot=True) if "trades" in document else None
        if (isinstance(kind, str) and kind in CONTROL) or "result" in document:
            return None
        raise Unusable("unknown_frame", f"type {shown(kind)}")

    def request(self, symbols: list[str], number: int, *, subscribe: bool) -> object:  # noqa: ARG002 - replies name no request
        """Return `{"type":"subscribe","subscriptions":[{"name":"l2","symbols":["BTCUSD"]}]}`."""
        return {"type": "subscribe" if subscribe else "unsubscribe", "subscriptions": [{"name": "l2", "symbols": symbols}]}

    def said(self, document: object) -> Notice | None:
        """Take a symbol's first frame, the one with a list of trades, for the ack that there is none of."""
        if not isinstance(document, dict):
            return None
        symbol = document.get("symbol")
        if document.get("type") == "l2_updates" and "trades" in document and isinstance(symbol, str):
            return Notice(NoticeKind.CONFIRMED, (symbol,))
        if document.get("result") == "error":
            return Notice(NoticeKind.REFUSED, detail=f"{document.get('reason', '')} {document.get('message', '')}".strip())
        return None
