"""Kraken WebSocket v2: channel `trade`.

    {"channel":"trade","type":"update","data":[                              (type `snapshot`: the last 50 trades)
      {"symbol":"BTC/USD","side":"buy","price":63501.9,"qty":0.00004134,"ord_type":"limit","trade_id":103436768,
       "timestamp":"2026-07-07T23:00:04.590753Z"},…]}

Prices and quantities are JSON *numbers*: they are read from their text. `side` is the taker's. Trade ids are contiguous per
book. The frame carries no time of its own.

Source: docs.kraken.com, WebSocket v2, Trade, Status, Ping, read 2026-07; recording in tests/data/kraken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import orjson

from connectors.venues import kraken_rest
from connectors.venues.columns import texts
from connectors.venues.feeding import FeedRules, Limit, Notice, NoticeKind, PageRequest, RestError, RestRules, Subscription, Wanted
from connectors.venues.kraken_rest import OLD_NAMES
from connectors.venues.layout import Layout, TableReader, control_document
from connectors.venues.reading import Item, Items
from connectors.venues.routing import route_of
from connectors.venues.scan_layout import RFC3339
from connectors.venues.symbols import spellings, split
from connectors.venues.text import Unusable, shown
from market.instrument import Instrument

CHANNELS: Final = frozenset(("book", "ticker", "ohlc", "instrument", "level3", "status", "heartbeat", "executions", "balances"))
METHODS: Final = frozenset(("subscribe", "unsubscribe", "pong", "ping"))

# Assets that Kraken's older interfaces name differently; v2 uses today's names.
_NEW_NAMES: Final = {old: new for new, old in OLD_NAMES.items()}
# Assets with a class letter in REST pair keys (`XXBTZUSD`).
_COINS: Final = frozenset(("XBT", "XDG", "ETH", "ETC", "LTC", "MLN", "REP", "XLM", "XMR", "XRP", "ZEC"))
_MONEY: Final = frozenset(("USD", "EUR", "GBP", "CAD", "JPY", "AUD"))

# How frames begin that have nothing to say to a feed.
_QUIET_STARTS: Final = (b'{"channel":"trade",', b'{"channel":"heartbeat"')
_PAIR: Final = re.compile(r"[A-Z0-9.]+/[A-Z0-9.]+")


class Kraken(TableReader):
    """Kraken spot."""

    exchange = "kraken"
    separator = "/"
    quotes = "USD EUR GBP CAD JPY AUD CHF AED USDT USDC DAI PYUSD RLUSD USDG XBT BTC ETH SOL DOT"
    vendor_field = "ord_type"
    vendor_words = ("limit", "market")
    trade_marks = (b'"trade"',)
    other_channels = texts(
        *(f'{{"channel":"{name}","type":' for name in ("book", "ticker", "ohlc", "instrument", "level3")),
        '{"channel":"heartbeat"}',
    )
    route = route_of((('{"channel":"trade",', "trade"),), "symbol")
    layout = Layout(
        frames=('{"channel":"trade","type":"<update|snapshot>","data":<[]>}',),
        texts=frozenset(("symbol", "side", "ord_type", "timestamp")),
        symbol="symbol",
        id="trade_id",
        time="timestamp",
        price="price",
        quantity="qty",
        side="side",
        buy="buy",
        sell="sell",
        unit_us=RFC3339,
    )
    feed = FeedRules(
        websocket_url="wss://ws.kraken.com/v2",
        symbols_per_connection=250,
        symbols_per_message=100,
        connects=Limit(75, 600.0),  # about 150 attempts in any 10 min per address
        messages=Limit(10, 1.0),  # the venue's limit moves and is not published
        silence_seconds=10.0,  # heartbeats come each second
        ping_seconds=30.0,
        ping_text='{"method":"ping"}',
        proof_seconds=0.5,
    )
    rest = RestRules(
        rest_url="https://api.kraken.com",
        requests=Limit(1, 1.0),  # about one a second per address; the figure is not published
        wholly_by_time=True,
    )

    def aliases(self, canonical: str) -> tuple[str, ...]:
        """Return `BTC/USD`, `XBT/USD`, `XBTUSD`, `XXBTZUSD` and the like."""
        base, _, quote = canonical.partition("/")
        old = OLD_NAMES.get(base, base), OLD_NAMES.get(quote, quote)
        pairs = [(b, q) for b in (base, old[0]) for q in (quote, old[1])]
        return spellings(pairs, *_pair_key(*old))

    def canonical(self, spelling: str) -> str | None:
        """Return `BTC/USD` for `XBTUSD` or `XXBTZUSD`."""
        pair = _split_pair_key(spelling) or split(spelling, self.quotes.split())
        return None if pair is None else "/".join(_NEW_NAMES.get(name, name) for name in pair)

    def items(self, document: object) -> Items | None:
        """Return the trades of a `trade` frame."""
        if not isinstance(document, dict):
            raise Unusable("bad_frame", f"not an object: {shown(document)}")
        channel = document.get("channel")
        if channel != "trade":
            if (
                _is_known(channel, CHANNELS)
                or _is_known(document.get("method"), METHODS)
                or ("error" in document and "success" in document)
            ):
                return None
            raise Unusable("unknown_frame", f"channel {shown(channel)}, method {shown(document.get('method'))}")
        trades, kind = document.get("data"), document.get("type")
        if kind not in ("update", "snapshot"):
            raise Unusable("bad_frame", f"type {shown(kind)}")
        if not isinstance(trades, list):
            raise Unusable("bad_frame", f"data is not a list: {shown(trades)}")
        return [self.trade(trade, is_snapshot=kind == "snapshot") for trade in trades]

    def time_us(self, item: Item) -> int | None:
        """Return `timestamp` in µs; REST rows have seconds there."""
        stamp = item.fields.get("timestamp")
        return kraken_rest.seconds_us(stamp) if isinstance(stamp, kraken_rest.Seconds) else super().time_us(item)

    def page_request(self, instrument: Instrument, wanted: Wanted) -> PageRequest:
        """Return the request for a page by time."""
        return kraken_rest.page_request(instrument, wanted, self.rest.page_rows)

    def rest_items(self, body: object, symbol: object) -> Items:
        """Return the trades of a page."""
        return kraken_rest.items(body, symbol)

    def rest_error(self, document: object) -> RestError | None:
        """Return what the answer's `error` says."""
        return kraken_rest.error(document)

    def acknowledged(self, document: dict[str, object]) -> list[object]:
        """Return the symbol of a trade subscription's ack; there is one ack per symbol."""
        result = document.get("result")
        if document.get("method") != "subscribe" or document.get("success") is not True or not isinstance(result, dict):
            return []
        return [result.get("symbol")] if result.get("channel") == "trade" else []

    def subscriptions(self, instruments: Sequence[Instrument], first_request: int) -> list[Subscription]:
        """Return `subscribe` requests with a snapshot: the last 50 trades fill small holes after a reconnect."""
        return self._requests("subscribe", {"snapshot": True}, instruments, first_request)

    def unsubscriptions(self, instruments: Sequence[Instrument], first_request: int) -> list[Subscription]:
        """Return `unsubscribe` requests."""
        return self._requests("unsubscribe", {}, instruments, first_request)

    def notice(self, frame: bytes) -> Notice | None:
        """Read answers to requests, one a symbol, and the system's status."""
        document = control_document(frame, _QUIET_STARTS)
        if document is None:
            return None
        if document.get("channel") == "status":
            return _status(document)
        if "error" in document:
            return _refusal(document)
        symbols = tuple(name for name in self.acknowledged(document) if isinstance(name, str))
        return Notice(NoticeKind.CONFIRMED, symbols, _request(document)) if symbols else None

    def _requests(self, method: str, options: dict[str, bool], instruments: Sequence[Instrument], first_request: int) -> list[Subscription]:
        size = self.feed.symbols_per_message
        found = []
        for request, start in enumerate(range(0, len(instruments), size), first_request):
            part = tuple(instruments[start : start + size])
            params = {"channel": "trade", "symbol": [instrument.venue_symbol for instrument in part], **options}
            message = orjson.dumps({"method": method, "params": params, "req_id": request}).decode()
            found.append(Subscription(message, part, request))
        return found


def _request(document: dict[str, object]) -> int | None:
    number = document.get("req_id")
    return number if isinstance(number, int) else None


def _refusal(document: dict[str, object]) -> Notice:
    detail, symbol = str(document["error"]), document.get("symbol")
    symbols = (symbol,) if isinstance(symbol, str) else tuple(_PAIR.findall(detail))
    if "already subscribed" in detail.lower() and symbols:
        return Notice(NoticeKind.CONFIRMED, symbols, _request(document), detail)
    # Not about a symbol: too many messages, a request that cannot be read, a service that is not there (`EService:Unavailable`,
    # for every symbol of a request in maintenance). It is asked again.
    about_symbols = document.get("method") == "subscribe" and bool(symbols) and not detail.startswith("EService")
    return Notice(NoticeKind.REFUSED if about_symbols else NoticeKind.ERROR, symbols, _request(document), detail)


def _status(document: dict[str, object]) -> Notice | None:
    data = document.get("data")
    states = [part.get("system") for part in data if isinstance(part, dict)] if isinstance(data, list) else []
    other = [str(state) for state in states if state not in ("online", None)]
    return Notice(NoticeKind.ERROR, detail=f"system {other[0]}") if other else None


def _is_known(name: object, known: frozenset[str]) -> bool:
    return isinstance(name, str) and name in known


def _pair_key(base: str, quote: str) -> tuple[str, ...]:
    # `XXBTZUSD`: REST keys of the oldest pairs, with a class letter before each asset.
    return (f"X{base}{'X' if quote in _COINS else 'Z'}{quote}",) if base in _COINS and quote in _COINS | _MONEY else ()


def _split_pair_key(spelling: str) -> tuple[str, str] | None:
    text = spelling.strip().upper()
    base, quote = text[1:4], text[5:]
    return (base, quote) if (text,) == _pair_key(base, quote) else None
