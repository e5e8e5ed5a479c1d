"""OKX v5: channels `trades-all` (each fill) and `trades` (fills of one order at one price may be merged).

    {"arg":{"channel":"trades-all","instId":"BTC-USDT"},"data":[
      {"instId":"BTC-USDT","tradeId":"338476308","px":"30243.5","sz":"0.001","side":"buy","ts":"1652459226050"}]}

All values are strings, `side` is the taker's. Ids step by one. A merged trade of `trades` says how many it stands for in
`count` and has the last one's id: with more than one it is refused (`merged_trade`), since the others could come alone over
REST and would count twice. The first frame after subscribing holds the latest past trade and does not say so
(`replays_last`). Quantities of swaps and futures are contracts. `pong` answers the text `ping`, neither is JSON.

REST returns past trades by id, newest first, for three months: `/api/v5/market/history-trades?instId=BTC-USDT&type=1&after=<id>`
gives those next below an id, `before=` the newest above one; `{"code":"0","msg":"","data":[…]}`, rows as above.

Source: okx.com/docs-v5, WebSocket, Trades and All trades channel; REST, trades history; read 2026-08; recording in tests/data/okx.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from connectors.venues.columns import texts
from connectors.venues.feeding import FeedRules, Limit, Notice, NoticeKind, PageRequest, RestError, RestRules, Wanted
from connectors.venues.layout import Layout, TableVenue
from connectors.venues.reading import Item, Items, ReadTrade
from connectors.venues.routing import route_of
from connectors.venues.text import Unusable, digits, shown
from market.instrument import Instrument

CHANNELS = ("trades-all", "trades")
_INSTRUMENT = re.compile(r"instId:([A-Z0-9-]+)")


class Okx(TableVenue):
    """OKX: spot, and swaps and futures where an entry names their `venue_symbol` (`BTC-USDT-SWAP`)."""

    exchange = "okx"
    replays_last = True
    separator = "-"
    quotes = "USDT USDC USD EUR USDG AED AUD BRL TRY SGD BTC ETH OKB DAI"
    trade_marks = (b'"channel":"trades',)
    control_marks = (b'"event":',)
    answers_by_number = True
    other_channels = texts(
        "pong", *(f'{{"arg":{{"channel":"{name}","instId":' for name in ("tickers", "books", "books5", "bbo-tbt", "mark-price"))
    )
    route = route_of((('{"arg":{"channel":"trades', "trade"),), "instId")
    layout = Layout(
        frames=tuple(f'{{"arg":{{"channel":"{name}","instId":"<~>"}},"data":<[]>}}' for name in CHANNELS),
        texts=frozenset(("instId", "tradeId", "px", "sz", "side", "ts", "count")),
        symbol="instId",
        id="tradeId",
        time="ts",
        price="px",
        quantity="sz",
        side="side",
        buy="buy",
        sell="sell",
        fixed="count",
        fixed_text="1",
    )
    feed = FeedRules(
        websocket_url="wss://ws.okx.com:8443/ws/v5/business",  # where trades-all is
        symbols_per_connection=100,
        symbols_per_message=20,
        connects=Limit(2, 1.0),  # 3 are allowed per address
        messages=Limit(2, 1.0),  # 480 requests an hour are allowed in a connection
        silence_seconds=15.0,
        ping_text="ping",  # with nothing for 30 s the venue closes
    )
    rest = RestRules(
        rest_url="https://www.okx.com",
        requests=Limit(8, 2.0),  # 20 are allowed per address
        page_rows=100,
    )

    def items(self, document: object) -> Items | None:
        """Return the trades of a frame of either channel."""
        if not isinstance(document, dict):
            raise Unusable("bad_frame", f"not an object: {shown(document)}")
        if "event" in document:
            return None
        arg = document.get("arg")
        channel = arg.get("channel") if isinstance(arg, dict) else None
        if not isinstance(channel, str):
            raise Unusable("unknown_frame", f"channel {shown(channel)}")
        return self.trades(document.get("data")) if channel in CHANNELS else None

    def read(self, item: Item) -> ReadTrade:
        """Return one trade that stands for one fill."""
        if item.fields.get("count", "1") != "1":
            raise Unusable("merged_trade", f"count {shown(item.fields['count'])}: it stands for several fills")
        return super().read(item)

    def page_request(self, instrument: Instrument, wanted: Wanted) -> PageRequest:
        """Return the request for the page that holds `wanted.first_id`, or for the newest page above it."""
        cursor = f"before={wanted.first_id - 1}" if wanted.last_id is None else f"after={wanted.first_id + wanted.rows}"
        name = quote(instrument.venue_symbol, safe="")
        return PageRequest(f"/api/v5/market/history-trades?instId={name}&type=1&{cursor}&limit={wanted.rows}", wanted.rows)

    def rest_items(self, body: object, symbol: object) -> Items:  # noqa: ARG002 - rows name it
        """Return the trades of a page."""
        if not isinstance(body, dict):
            raise Unusable("bad_frame", f"the page is not an object: {shown(body)}")
        return self.trades(body.get("data"))

    def rest_error(self, document: object) -> RestError | None:
        """Return what an answer complains about; codes from 51000 on are about what was asked for."""
        code = document.get("code") if isinstance(document, dict) else None
        if not isinstance(document, dict) or code == "0":
            return None
        return RestError(f"{code} {document.get('msg', '')}"[:200], is_final=isinstance(code, str) and code.startswith("51"))

    def request(self, symbols: list[str], number: int, *, subscribe: bool) -> object:
        """Return `{"id":"1","op":"subscribe","args":[{"channel":"trades-all","instId":"BTC-USDT"}]}`."""
        args = [{"channel": CHANNELS[0], "instId": symbol} for symbol in symbols]
        return {"id": str(number), "op": "subscribe" if subscribe else "unsubscribe", "args": args}

    def said(self, document: object) -> Notice | None:
        """Read acks, one for each instrument, and errors, which name the instrument in their text if at all."""
        if not isinstance(document, dict):
            return None
        event, arg, number = document.get("event"), document.get("arg"), document.get("id")
        request = digits(number) if isinstance(number, str) else None
        if event == "subscribe" and isinstance(arg, dict) and arg.get("channel") in CHANNELS and isinstance(arg.get("instId"), str):
            return Notice(NoticeKind.CONFIRMED, (arg["instId"],), request)
        if event == "notice":  # the service is about to restart
            return Notice(NoticeKind.RECONNECT, detail=str(document.get("msg", "")))
        if event != "error":
            return None
        detail = str(document.get("msg", ""))
        named = tuple(dict.fromkeys(_INSTRUMENT.findall(detail)))
        return Notice(NoticeKind.REFUSED if named or request is not None else NoticeKind.ERROR, named, request, detail)
