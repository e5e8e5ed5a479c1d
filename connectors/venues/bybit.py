"""Bybit v5 spot: topic `publicTrade.<symbol>`.

    {"topic":"publicTrade.BTCUSDT","ts":ms,"type":"snapshot","data":[          (every frame says `snapshot`; none is one)
      {"i":"2290000001189048101","T":ms,"p":"65140.5","v":"0.002705","S":"Buy","seq":112488547164,"s":"BTCUSDT",
       "BT":false,"RPI":false},…]}

`S` is the taker's side, `BT` a block trade. Ids are digits in a string that rise but jump: a hole in them is no loss. Nothing is
sent again after a reconnect, and REST gives only the latest trades.

Source: bybit-exchange.github.io, v5, WebSocket, Public trade and Connect, read 2026-08; recording in tests/data/bybit.
"""

from __future__ import annotations

from connectors.venues.columns import texts
from connectors.venues.feeding import FeedRules, Limit, Notice, NoticeKind
from connectors.venues.layout import Layout, TableVenue
from connectors.venues.reading import Items
from connectors.venues.routing import route_of
from connectors.venues.text import Unusable, digits, shown

TOPIC = "publicTrade."


class Bybit(TableVenue):
    """Bybit spot."""

    exchange = "bybit"
    contiguous_ids = False
    separator = ""
    quotes = "USDT USDC USDE USD1 USDQ USDR RLUSD DAI EUR BRL PLN TRY BRZ XUSD BTC ETH SOL MNT"
    trade_marks = (b'"publicTrade.',)
    control_marks = (b'"op":', b'"success":')
    answers_by_number = True
    other_channels = texts(*(f'{{"topic":"{name}.' for name in ("orderbook", "tickers", "kline")))
    route = route_of((('{"topic":"publicTrade.', "trade"),), "s")
    layout = Layout(
        frames=(
            '{"topic":"publicTrade.<~>","ts":<ts>,"type":"snapshot","data":<[]>}',
            '{"topic":"publicTrade.<~>","type":"snapshot","ts":<ts>,"data":<[]>}',
        ),
        texts=frozenset(("i", "s", "S", "p", "v")),
        symbol="s",
        id="i",
        time="T",
        price="p",
        quantity="v",
        side="S",
        buy="Buy",
        sell="Sell",
        event="ts",
    )
    feed = FeedRules(
        websocket_url="wss://stream.bybit.com/v5/public/spot",
        symbols_per_connection=200,
        symbols_per_message=1,  # ten are allowed, but one unknown symbol refuses them all
        connects=Limit(200, 300.0),  # 500 are allowed per address
        messages=Limit(10, 1.0),
        silence_seconds=15.0,
        ping_text='{"op":"ping"}',
    )

    def items(self, document: object) -> Items | None:
        """Return the trades of a `publicTrade` frame."""
        if not isinstance(document, dict):
            raise Unusable("bad_frame", f"not an object: {shown(document)}")
        topic = document.get("topic")
        if isinstance(topic, str) and topic.startswith(TOPIC):
            return self.trades(document.get("data"), event_us=self.as_time(document, "ts"))
        if isinstance(topic, str) or "op" in document or "success" in document:
            return None
        raise Unusable("unknown_frame", f"topic {shown(topic)}")

    def request(self, symbols: list[str], number: int, *, subscribe: bool) -> object:
        """Return `{"req_id":"1","op":"subscribe","args":["publicTrade.BTCUSDT"]}`."""
        return {"req_id": str(number), "op": "subscribe" if subscribe else "unsubscribe", "args": [TOPIC + symbol for symbol in symbols]}

    def said(self, document: object) -> Notice | None:
        """Read replies to requests; they repeat `req_id` and name no symbols."""
        if not isinstance(document, dict) or document.get("op") not in ("subscribe", "unsubscribe"):
            return None
        text, detail = document.get("req_id"), str(document.get("ret_msg", ""))
        request = digits(text) if isinstance(text, str) else None
        if document.get("success") is not True:
            return Notice(NoticeKind.REFUSED if document["op"] == "subscribe" else NoticeKind.ERROR, request=request, detail=detail)
        if document["op"] != "subscribe" or request is None:
            return None
        return Notice(NoticeKind.CONFIRMED, request=request)
