"""Binance spot: `<symbol>@trade` and `<symbol>@aggTrade`, raw or combined frames.

    {"stream":"btcusdt@trade","data":                                       (combined streams only)
     {"e":"trade","E":ms,"s":"BTCUSDT","t":id,"p":"1.0","q":"1.0","b":id,"a":id,"T":ms,"m":true,"M":true}
    }                                                                       (`b`, `a`: order ids, until 2024-06)

Aggregate trades merge the fills of one taker order at one price: `a` is their id, a numbering of its own, `f` and `l` are the
first and last trade. Times are ms, or µs (16 digits) where the connection asked for it. `m`: the buyer was the maker, so the
taker sold. Trade ids are contiguous per symbol.

Source: binance-spot-api-docs `web-socket-streams.md`, trade and aggregate trade streams, limits, live subscribing, read 2026-07-21; recordings in
tests/data/binance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

import orjson

from connectors.venues import binance_rest, scan
from connectors.venues.base import Venue
from connectors.venues.columns import CONTROL, TRADES, UNREAD, WANTED, Bytes, Columns, Frames, Symbols, texts
from connectors.venues.feeding import FeedRules, Limit, Notice, NoticeKind, PageRequest, RestRules, Subscription, Wanted
from connectors.venues.reading import Item, Items, ReadTrade
from connectors.venues.routing import route_of
from connectors.venues.scan import (
    ABSENT,
    FAILED,
    FALSE,
    NUMBER,
    TEXT,
    TRUE,
    Spans,
    decimal,
    integer,
    is_text,
    literal,
    scan_object,
    spans_for,
    symbol_code,
    unwrapped,
)
from connectors.venues.text import Unusable, mantissa, shown, whole
from market.instrument import Instrument
from market.jit import compiled_scan

# How frames begin that have nothing to say to a feed: raw events of the two trade streams.
_TRADE_STARTS: Final = (b'{"e":"trade",', b'{"e":"aggTrade",')

_MICROSECONDS: Final = 10**15  # a time with 16 digits is in µs
_LATEST: Final = 10**16

# Events and replies that carry no single trades.
CHANNELS: Final = frozenset(
    (
        *("depthUpdate", "bookTicker", "kline", "continuous_kline", "24hrTicker", "24hrMiniTicker", "1hTicker", "4hTicker", "1dTicker"),
        *("avgPrice", "blockTrade", "serverShutdown", "referencePrice", "tradingSession", "contractInfo", "forceOrder"),
        *("markPriceUpdate", "indexPriceUpdate", "compositeIndex", "assetIndexUpdate"),
    )
)
# Frames without `e`: bookTicker, partial depth, replies and errors.
_UNNAMED: Final = ({"u", "s", "b", "B", "a", "A"}, {"lastUpdateId", "bids", "asks"}, {"result", "id"}, {"code", "msg"}, {"error", "id"})

_E, _EVENT_TIME, _S, _T, _A, _P, _Q, _TIME, _M, _X = range(10)
_KEYS: Final = scan.names("e", "E", "s", "t", "a", "p", "q", "T", "m", "X")
_END: Final = scan.plain("}")
_TRADE: Final = scan.plain("trade")
_AGG_TRADE: Final = scan.plain("aggTrade")
_MARKET: Final = scan.plain("MARKET")


@compiled_scan
def _time_us(value: int) -> int:
    if value < 0 or value >= _LATEST:
        return FAILED
    return value if value >= _MICROSECONDS else value * 1000


@compiled_scan
def _whose(frames: Frames, row: int, symbols: Symbols, spans: Spans) -> int:
    # Read one frame into `spans`; returns its status, `TRADES` if it is a trade of the record's own symbol.
    data, start, end = frames.data, int(frames.starts[row]), int(frames.starts[row + 1])
    at = unwrapped(data, start, end)
    wrapped = at != start
    at = scan_object(data, at, end, _KEYS, spans)
    if wrapped:
        at = literal(data, at, end, _END)
    if at != end or spans[_E, 0] != TEXT or spans[_S, 0] != TEXT:
        return UNREAD
    aggregate = is_text(data, spans[_E, 1], spans[_E, 2], _AGG_TRADE)
    if not aggregate and not is_text(data, spans[_E, 1], spans[_E, 2], _TRADE):
        return UNREAD
    key = int(frames.codes[row])
    code = symbol_code(data, spans[_S, 1], spans[_S, 2], symbols, key)
    if code >= 0 and symbols.aggregate[code] != aggregate:
        return CONTROL
    return TRADES if code >= 0 and code == key else UNREAD


@compiled_scan
def _has_kinds(spans: Spans, number: int) -> bool:
    if spans[_EVENT_TIME, 0] != NUMBER or spans[_TIME, 0] != NUMBER or spans[number, 0] != NUMBER:
        return False
    if spans[_P, 0] != TEXT or spans[_Q, 0] != TEXT or (spans[_X, 0] != ABSENT and spans[_X, 0] != TEXT):
        return False
    return bool(spans[_M, 0] == TRUE or spans[_M, 0] == FALSE)


@compiled_scan
def _trade(data: Bytes, spans: Spans, number: int, out: Columns, n: int) -> bool:
    # Read the fields of one trade into out[n]; `number` is the key of its id.
    if not _has_kinds(spans, number):
        return False
    out.vendor[n] = 0
    if spans[_X, 0] == TEXT:
        if not is_text(data, spans[_X, 1], spans[_X, 2], _MARKET):
            return False
        out.vendor[n] = 1
    out.is_snapshot[n], out.is_buy[n] = False, spans[_M, 0] == FALSE
    out.trade_id[n] = integer(data, spans[number, 1], spans[number, 2])
    out.time_us[n] = _time_us(integer(data, spans[_TIME, 1], spans[_TIME, 2]))
    out.event_us[n] = _time_us(integer(data, spans[_EVENT_TIME, 1], spans[_EVENT_TIME, 2]))
    if out.trade_id[n] < 0 or out.time_us[n] < 0 or out.event_us[n] < 0:
        return False
    return decimal(data, spans[_P, 1], spans[_P, 2], out.price, n) and decimal(data, spans[_Q, 1], spans[_Q, 2], out.quantity, n)


@compiled_scan
def scan_frames(frames: Frames, symbols: Symbols, out: Columns, spans: Spans) -> int:
    """Read the frames of known layouts into `out` and mark each frame's status; returns the number of trades."""
    n = 0
    for row in range(len(frames.status)):
        if frames.status[row] != WANTED:
            continue
        status = _whose(frames, row, symbols, spans) if n < len(out.row) else UNREAD
        if status == TRADES:
            code = frames.codes[row]
            if _trade(frames.data, spans, _A if symbols.aggregate[code] else _T, out, n):
                out.row[n], out.symbol[n] = row, code
                n += 1
            else:
                status = UNREAD
        frames.status[row] = status
    return n


class Binance(Venue):
    """Binance spot."""

    exchange = "binance"
    separator = ""
    quotes = (
        "USDT USDC FDUSD TUSD BUSD USDP USD1 USDE RLUSD BFUSD XUSD DAI EURI AEUR IDRT BIDR BKRW BTC ETH BNB XRP TRX DOGE SOL DOT VAI PAX "
        "EUR GBP TRY BRL AUD JPY ARS COP CZK IDR MXN NGN PLN RON RUB UAH ZAR"
    )
    streams = ("trade", "aggTrade")
    trade_marks = (b'"trade"', b'"aggTrade"')
    other_channels = texts(
        *(f'{{"e":"{name}","E":' for name in ("depthUpdate", "bookTicker", "kline", "24hrTicker", "24hrMiniTicker", "markPriceUpdate")),
        *('{"u":', '{"lastUpdateId":', '[{"e":"24hrTicker","E":', '[{"e":"24hrMiniTicker","E":'),
    )
    route = route_of((('{"e":"trade",', "trade"), ('{"e":"aggTrade",', "aggTrade")), "s")
    feed: ClassVar[FeedRules | None] = FeedRules(
        websocket_url="wss://stream.binance.com:9443/ws",
        symbols_per_connection=1024,
        symbols_per_message=100,
        connects=Limit(150, 300.0),  # 300 are allowed per address; a second feed may run beside this one
        # 5 a second are allowed, the pongs to the venue's own pings among them. One at a time: a loaded machine, or the way
        # there, pushes bursts that were a second apart into one second.
        messages=Limit(1, 0.3),
        silence_seconds=10.0,
        proof_seconds=0.5,  # no heartbeats come
        max_age_seconds=23 * 3600.0,  # cut after 24 h
    )
    rest: ClassVar[RestRules | None] = RestRules(
        rest_url="https://api.binance.com",
        requests=Limit(2_500, 60.0),  # 6,000 are allowed per address; a second feed may run beside this one
        weight=25,
    )
    rest_folder: ClassVar[str] = "/api/v3"

    def scan(self, frames: Frames, symbols: Symbols, out: Columns) -> int:
        """Read the layouts shown above."""
        return scan_frames(frames, symbols, out, spans_for(_KEYS))

    def items(self, document: object) -> Items | None:
        """Return the event of a frame if it is a trade of either stream."""
        if isinstance(document, list):  # all-market streams: lists of events
            if document and all(isinstance(event, dict) and _is_channel(event.get("e")) for event in document):
                return None
            raise Unusable("unknown_frame", "a list")
        if not isinstance(document, dict):
            raise Unusable("bad_frame", f"not an object: {shown(document)}")
        if "stream" in document and "data" in document:
            return self._event(document["data"])
        return self._event(document)

    def _event(self, event: object) -> Items | None:
        if isinstance(event, list):
            return self.items(event)
        if not isinstance(event, dict):
            raise Unusable("bad_frame", f"data is not an object: {shown(event)}")
        name = event.get("e")
        if name in ("trade", "aggTrade"):
            return [Item(event, event.get("s"), stream=str(name))]
        if _is_channel(name) or ("e" not in event and any(known <= event.keys() for known in _UNNAMED)):
            return None
        raise Unusable("unknown_frame", f"event {shown(name)}")

    def read(self, item: Item) -> ReadTrade:
        """Return the trade of an event."""
        fields = item.fields
        number = whole(fields.get("a" if item.stream == "aggTrade" else "t"))
        if number is None:
            raise Unusable("bad_trade_id", f"trade id {shown(fields.get('a' if item.stream == 'aggTrade' else 't'))}")
        price, quantity = mantissa(fields.get("p"), str, "price"), mantissa(fields.get("q"), str, "quantity")
        time = self.time_us(item)
        if time is None:
            raise Unusable("bad_time", f"time {shown(fields.get('T'))}")
        maker = fields.get("m")
        if not isinstance(maker, bool):
            raise Unusable("bad_side", f"m {shown(maker)}")
        return ReadTrade(number, time, _time(fields.get("E")), not maker, price, quantity, fields.get("X"))

    def page_request(self, instrument: Instrument, wanted: Wanted) -> PageRequest:
        """Return the request for a page by id."""
        return binance_rest.page_request(self.rest_folder, instrument, wanted)

    def newest_page(self, instrument: Instrument) -> PageRequest | None:
        """Return the request for the newest single trades; aggregate ones need no key anyway."""
        return binance_rest.newest_page(self.rest_folder, instrument) if instrument.stream == self.streams[0] else None

    def rest_items(self, body: object, symbol: object) -> Items:
        """Return the trades of a page of either stream."""
        return binance_rest.items(body, symbol)

    def time_us(self, item: Item) -> int | None:
        """Return `T` in µs."""
        return _time(item.fields.get("T"))

    def subscriptions(self, instruments: Sequence[Instrument], first_request: int) -> list[Subscription]:
        """Return `SUBSCRIBE` requests; unknown symbols are acknowledged like others and stay silent."""
        return self._requests("SUBSCRIBE", instruments, first_request)

    def unsubscriptions(self, instruments: Sequence[Instrument], first_request: int) -> list[Subscription]:
        """Return `UNSUBSCRIBE` requests."""
        return self._requests("UNSUBSCRIBE", instruments, first_request)

    def notice(self, frame: bytes) -> Notice | None:
        """Read replies (`{"result":null,"id":1}`, `{"code":2,"msg":"…","id":1}`) and `serverShutdown`."""
        if frame.startswith(_TRADE_STARTS):
            return None
        try:
            document = orjson.loads(frame)
        except orjson.JSONDecodeError:
            return None
        if isinstance(document, dict) and isinstance(document.get("data"), dict):
            document = document["data"]
        return _notice(document) if isinstance(document, dict) else None

    def _requests(self, method: str, instruments: Sequence[Instrument], first_request: int) -> list[Subscription]:
        size = self.feed.symbols_per_message if self.feed is not None else len(instruments)
        found = []
        for request, start in enumerate(range(0, len(instruments), size), first_request):
            part = tuple(instruments[start : start + size])
            streams = [f"{instrument.venue_symbol.lower()}@{instrument.stream}" for instrument in part]
            message = orjson.dumps({"method": method, "params": streams, "id": request}).decode()
            found.append(Subscription(message, part, request))
        return found


def _notice(document: dict[str, object]) -> Notice | None:
    if document.get("e") == "serverShutdown":
        return Notice(NoticeKind.RECONNECT, detail="serverShutdown")
    number = document.get("id")
    request = number if isinstance(number, int) else None
    nested = document.get("error")
    error = nested if isinstance(nested, dict) else document
    if "msg" in error and "code" in error:
        detail = f"{error['code']}: {error['msg']}"
        return Notice(NoticeKind.ERROR if request is None else NoticeKind.REFUSED, request=request, detail=detail)
    return Notice(NoticeKind.CONFIRMED, request=request) if "result" in document and request is not None else None


def _is_channel(name: object) -> bool:
    return isinstance(name, str) and name in CHANNELS


def _time(value: object) -> int | None:
    number = whole(value)
    if number is None or number >= _LATEST:
        return None
    return number if number >= _MICROSECONDS else number * 1000
