"""Bitfinex WebSocket v2: channel `trades`.

    {"event":"subscribed","channel":"trades","chanId":232959,"symbol":"tBTCUSD","pair":"BTCUSD"}
    [232959,[[669899159,1618665870435,166.391496,0.076989],…]]                      (up to 30 past trades, newest first)
    [232959,"te",[669899160,1618665870440,-0.5,0.076985]]                           (id, ms, amount, price)
    [232959,"tu",[669899160,1618665870440,-0.5,0.076985]]                           (the same again, a moment later)

Frames name a number that the connection gave the symbol (`router`); a record's key says which it was. A positive amount is
a taker that bought. Ids come from one numbering of all pairs: they jump. Further values may follow in any list.

Source: docs.bitfinex.com, WebSocket general and public trades, read 2026-08; recording in tests/data/bitfinex.
"""

from __future__ import annotations

import orjson

from connectors.venues.base import Router
from connectors.venues.columns import texts
from connectors.venues.feeding import FeedRules, Limit, Notice, NoticeKind
from connectors.venues.layout import Layout, TableVenue
from connectors.venues.reading import OWN_KEY, Item, Items
from connectors.venues.symbols import spellings
from connectors.venues.text import NumberText, Unusable, shown, whole
from market.instrument import Instruments

OTHERS = frozenset(("hb", "cs", "tu", "fte", "ftu"))
RECONNECT = (20051, 20061)  # a restart; the end of a maintenance, which ended all subscriptions
_TRADE = ("id", "time", "amount", "price")
_EARLIEST_MS = 10**11

# Assets that are named differently here, by the names others use.
_NAMES = {"USDT": "UST", "USDC": "UDC", "IOTA": "IOT", "DASH": "DSH", "MANA": "MNA", "ODEM": "ODE", "SNGLS": "SNG"}
_USUAL = {theirs: ours for ours, theirs in _NAMES.items()}


class _Channels:
    # Which symbol each channel number of a connection stands for.
    def __init__(self) -> None:
        self._symbols: dict[int, str] = {}

    def symbols_in(self, frame: bytes, instruments: Instruments, /) -> list[str]:
        if not frame.startswith((b"[", b'{"event":"subscribed"', b'{"event":"unsubscribed"')):
            return []
        try:
            document = orjson.loads(frame)
        except orjson.JSONDecodeError:
            return []
        if isinstance(document, list):
            is_trades = len(document) > 1 and (document[1] == "te" or (isinstance(document[1], list) and _is_past(document[1])))
            symbol = self._symbols.get(document[0]) if is_trades and isinstance(document[0], int) else None
            code = instruments.by_venue_symbol.get(symbol) if symbol is not None else None
            return [] if code is None else [instruments.listed[code].canonical]
        channel, symbol = document.get("chanId"), document.get("symbol")
        if isinstance(channel, int):
            self._symbols.pop(channel, None)
            if document["event"] == "subscribed" and document.get("channel") == "trades" and isinstance(symbol, str):
                self._symbols[channel] = symbol
        return []


class Bitfinex(TableVenue):
    """Bitfinex spot."""

    exchange = "bitfinex"
    contiguous_ids = False
    separator = ""
    quotes = "USD USDT UST USDC UDC EUR GBP JPY TRY BTC ETH XAUT MXNT CNHT"
    trade_marks = (b',"te",', b",[[")
    control_marks = (b'"event":',)
    other_channels = texts()
    layout = Layout(
        frames=('[<#>,"te",[<id>,<time>,<sign><amount>,<price>]]', '[<#>,"te",[<id>,<time>,<sign><amount>,<price>],<#>]'),
        others=(
            '[<#>,"hb"]',
            '[<#>,"hb",<#>]',
            '[<#>,"tu",[<#>,<#>,<sign><#>,<#>]]',
            '[<#>,"tu",[<#>,<#>,<sign><#>,<#>],<#>]',
        ),
        texts=frozenset(("sign",)),
        id="id",
        time="time",
        price="price",
        quantity="amount",
        side="sign",
        buy="",
        sell="-",
    )
    feed = FeedRules(
        websocket_url="wss://api-pub.bitfinex.com/ws/2",
        symbols_per_connection=25,
        symbols_per_message=1,  # no request takes more
        connects=Limit(10, 60.0),  # 20 are allowed per address
        messages=Limit(10, 1.0),
        silence_seconds=15.0,
        ping_text='{"event":"ping"}',
    )

    def venue_symbol(self, canonical: str) -> str:
        """Return `tBTCUSD`, or `tMATIC:USD` where a name is long."""
        base, quote = (_NAMES.get(name, name) for name in canonical.split("/"))
        return f"t{base}{':' if max(len(base), len(quote)) > 3 else ''}{quote}"

    def aliases(self, canonical: str) -> tuple[str, ...]:
        """Return `BTC/USDT`, `BTCUST`, `tBTCUST` and the like."""
        base, _, quote = canonical.partition("/")
        return spellings([(base, quote), (_NAMES.get(base, base), _NAMES.get(quote, quote))], self.venue_symbol(canonical))

    def canonical(self, spelling: str) -> str | None:
        """Return `BTC/USDT` for `tBTCUST`."""
        plain = spelling.removeprefix("t") if spelling[1:].isupper() else spelling
        found = super().canonical(plain.replace(":", "/"))
        return None if found is None else "/".join(_USUAL.get(name, name) for name in found.split("/"))

    def router(self) -> Router:
        """Return what remembers the channels of a new connection."""
        return _Channels()

    def items(self, document: object) -> Items | None:
        """Return the trade of a `te` frame or the past trades that a subscription begins with."""
        if isinstance(document, dict):
            if "event" in document:
                return None
            raise Unusable("unknown_frame", "an object without an event")
        if not isinstance(document, list) or len(document) < 2 or whole(document[0]) is None:
            raise Unusable("bad_frame", f"not a channel's frame: {shown(document)}")
        body = document[1]
        if isinstance(body, list):
            return [_item(row, is_snapshot=True) for row in body] if _is_past(body) else None
        if body == "te":
            return [_item(document[2] if len(document) > 2 else None, is_snapshot=False)]
        if isinstance(body, str) and body in OTHERS:
            return None
        raise Unusable("unknown_frame", f"a frame of {shown(body)}")

    def request(self, symbols: list[str], number: int, *, subscribe: bool) -> object | None:  # noqa: ARG002 - as `subscribe`
        """Return `{"event":"subscribe","channel":"trades","symbol":"tBTCUSD"}`; unsubscribing takes a channel's number."""
        return {"event": "subscribe", "channel": "trades", "symbol": symbols[0]} if subscribe else None

    def said(self, document: object) -> Notice | None:
        """Read acks, errors, and the information that asks for a new connection."""
        if not isinstance(document, dict):
            return None
        event, symbol = document.get("event"), document.get("symbol")
        names = (symbol,) if isinstance(symbol, str) and document.get("channel") == "trades" else ()
        detail = str(document.get("msg", ""))
        if event == "subscribed":
            return Notice(NoticeKind.CONFIRMED, names) if names else None
        if event == "info" and document.get("code") in RECONNECT:
            return Notice(NoticeKind.RECONNECT, detail=detail)
        return Notice(NoticeKind.REFUSED if names else NoticeKind.ERROR, names, detail=detail) if event == "error" else None


def _is_past(body: list[object]) -> bool:
    # Rows of a trade channel, told from those of books, candles and funding.
    row = body[0] if body else None
    time = whole(row[1]) if isinstance(row, list) and len(row) == len(_TRADE) else None
    return time is not None and time >= _EARLIEST_MS


def _item(row: object, *, is_snapshot: bool) -> Item | Unusable:
    if not isinstance(row, list) or len(row) < len(_TRADE):
        return Unusable("bad_frame", f"not a trade: {shown(row)}")
    fields = dict(zip(_TRADE, row, strict=False))
    amount = fields["amount"]
    if isinstance(amount, NumberText):
        fields["sign"] = "-" if amount.startswith("-") else ""
        fields["amount"] = NumberText(amount.removeprefix("-"))
    return Item(fields, OWN_KEY, is_snapshot=is_snapshot)
