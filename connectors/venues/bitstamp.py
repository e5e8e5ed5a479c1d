"""Bitstamp WebSocket v2: channels `live_trades_<pair>`.

    {"data":{"id":216000477,"timestamp":"1641343699","amount":0.0792,"amount_str":"0.07920000","price":3805.44,
      "price_str":"3805.44","type":0,"microtimestamp":"1641343699596000","buy_order_id":1443875737346049,
      "sell_order_id":1443875731320832},"channel":"live_trades_ethusd","event":"trade"}

The symbol stands in the channel's name only. `price_str` and `amount_str` have all digits; `type` is the taker's side, 0 a buy.
Ids are one numbering of all pairs: they jump. `bts:request_reconnect` asks for a new connection.

Source: bitstamp.net/websocket/v2, Live trades, read 2022-01 (copies); recording in tests/data/bitstamp.
"""

from __future__ import annotations

from connectors.venues.columns import texts
from connectors.venues.feeding import FeedRules, Limit, Notice, NoticeKind
from connectors.venues.layout import Layout, TableVenue
from connectors.venues.reading import Item, Items
from connectors.venues.scan_layout import US
from connectors.venues.text import Unusable, shown

CHANNEL = "live_trades_"


class Bitstamp(TableVenue):
    """Bitstamp spot."""

    exchange = "bitstamp"
    contiguous_ids = False
    separator = ""
    quotes = "USD EUR GBP USDT USDC PYUSD RLUSD BTC ETH PAX"
    trade_marks = (b'"live_trades_',)
    control_marks = (b'"bts:',)
    other_channels = texts()
    layout = Layout(
        frames=('{"data":<{}>,"channel":"live_trades_<channel>","event":"trade"}',),
        texts=frozenset(("channel", "microtimestamp", "price_str", "amount_str")),
        symbol="channel",
        id="id",
        time="microtimestamp",
        price="price_str",
        quantity="amount_str",
        side="type",
        buy="0",
        sell="1",
        unit_us=US,
    )
    feed = FeedRules(
        websocket_url="wss://ws.bitstamp.net",
        symbols_per_connection=100,
        symbols_per_message=1,  # no request takes more
        connects=Limit(10, 60.0),
        messages=Limit(10, 1.0),
        silence_seconds=15.0,
        max_age_seconds=80 * 24 * 3600.0,  # cut after 90 days
    )

    def venue_symbol(self, canonical: str) -> str:
        """Return `btcusd`."""
        return super().venue_symbol(canonical).lower()

    def items(self, document: object) -> Items | None:
        """Return the trade of a `trade` event."""
        if not isinstance(document, dict):
            raise Unusable("bad_frame", f"not an object: {shown(document)}")
        event, channel = document.get("event"), document.get("channel")
        if event == "trade" and isinstance(channel, str) and channel.startswith(CHANNEL):
            found = document.get("data")
            if not isinstance(found, dict):
                raise Unusable("bad_frame", f"data is not an object: {shown(found)}")
            return [Item(found, channel.removeprefix(CHANNEL))]
        if isinstance(event, str) and (event.startswith(("bts:", "order_")) or event == "data"):
            return None
        raise Unusable("unknown_frame", f"event {shown(event)}, channel {shown(channel)}")

    def request(self, symbols: list[str], number: int, *, subscribe: bool) -> object:  # noqa: ARG002 - replies name no request
        """Return `{"event":"bts:subscribe","data":{"channel":"live_trades_btcusd"}}`."""
        return {"event": "bts:subscribe" if subscribe else "bts:unsubscribe", "data": {"channel": CHANNEL + symbols[0]}}

    def said(self, document: object) -> Notice | None:
        """Read acks, errors and the wish for a new connection."""
        if not isinstance(document, dict):
            return None
        event, channel, data = document.get("event"), document.get("channel"), document.get("data")
        name = (channel.removeprefix(CHANNEL),) if isinstance(channel, str) and channel.startswith(CHANNEL) else ()
        if event == "bts:subscription_succeeded":
            return Notice(NoticeKind.CONFIRMED, name) if name else None
        if event == "bts:request_reconnect":
            return Notice(NoticeKind.RECONNECT)
        if event == "bts:error":
            return Notice(NoticeKind.REFUSED, name, detail=str(data.get("message", "")) if isinstance(data, dict) else "")
        return None
