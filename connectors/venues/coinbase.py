"""Coinbase Advanced Trade: channel `market_trades`.

    {"channel":"market_trades","timestamp":"…228568804Z","sequence_num":9,"events":[    (older: `client_id` after the channel)
      {"type":"update","trades":[                                                       (type `snapshot`: the last 100)
        {"product_id":"BTC-USD","trade_id":"1068572091","price":"65083.67","size":"0.01034361",
         "time":"2026-08-09T21:05:48.167634Z","side":"SELL"},…]}]}

`side` is the *maker's*: the taker did the opposite (a recording shows trades at the ask as SELL). Trades are newest first. Ids
are strings of digits, contiguous per product. Snapshots come again on every subscription.

Source: docs.cdp.coinbase.com, Advanced Trade WebSocket channels, and the maker rule in the Exchange API's trades, read 2026-08;
recording in tests/data/coinbase.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import orjson

from connectors.venues import coinbase_rest, scan
from connectors.venues.base import Venue
from connectors.venues.columns import TRADES, UNREAD, WANTED, Bytes, Columns, Frames, Symbols, texts
from connectors.venues.feeding import FeedRules, Limit, Notice, NoticeKind, PageRequest, RestRules, Subscription, Wanted
from connectors.venues.reading import Item, Items, ReadTrade
from connectors.venues.routing import route_of
from connectors.venues.scan import (
    FAILED,
    NO_TIME,
    TEXT,
    Spans,
    decimal,
    integer,
    is_text,
    literal,
    number_end,
    rfc3339,
    scan_object,
    spans_for,
    symbol_code,
    text_end,
)
from connectors.venues.text import Unusable, digits, mantissa, rfc3339_us, shown
from market.instrument import Instrument
from market.jit import compiled_scan

CHANNELS: Final = frozenset(
    ("subscriptions", "heartbeats", "ticker", "ticker_batch", "level2", "l2_data", "candles", "status", "user", "futures_balance_summary")
)

# How frames begin that have nothing to say to a feed.
_QUIET_STARTS: Final = (b'{"channel":"market_trades",', b'{"channel":"heartbeats",')
_NUMBER: Final = b'"sequence_num":'
_NUMBER_ENDS: Final = re.compile(rb"[0-9]+")
_LISTED: Final = re.compile(r"[A-Z0-9]+-[A-Z0-9]+")

_PRODUCT, _ID, _PRICE, _SIZE, _TIME, _SIDE = range(6)
_KEYS: Final = scan.names("product_id", "trade_id", "price", "size", "time", "side")
_START: Final = scan.plain('{"channel":"market_trades",')
_CLIENT: Final = scan.plain('"client_id":"",')
_STAMP: Final = scan.plain('"timestamp":"')
_SEQUENCE: Final = scan.plain('","sequence_num":')
_EVENTS: Final = scan.plain(',"events":[')
_UPDATE: Final = scan.plain('{"type":"update","trades":[')
_SNAPSHOT: Final = scan.plain('{"type":"snapshot","trades":[')
_NEXT: Final = scan.plain(",")
_EVENT_END: Final = scan.plain("]}")
_END: Final = scan.plain("]}")
_BUY: Final = scan.plain("BUY")
_SELL: Final = scan.plain("SELL")


@compiled_scan
def _trade(data: Bytes, spans: Spans, out: Columns, n: int) -> bool:
    # Read the fields of one trade of the record's own symbol into out[n].
    for k in range(_ID, _SIDE + 1):
        if spans[k, 0] != TEXT:
            return False
    out.is_buy[n] = is_text(data, spans[_SIDE, 1], spans[_SIDE, 2], _SELL)
    if not out.is_buy[n] and not is_text(data, spans[_SIDE, 1], spans[_SIDE, 2], _BUY):
        return False
    out.vendor[n] = 0
    out.trade_id[n] = integer(data, spans[_ID, 1], spans[_ID, 2])
    out.time_us[n] = rfc3339(data, spans[_TIME, 1], spans[_TIME, 2])
    if out.trade_id[n] < 0 or out.time_us[n] == NO_TIME:
        return False
    return decimal(data, spans[_PRICE, 1], spans[_PRICE, 2], out.price, n) and decimal(
        data, spans[_SIZE, 1], spans[_SIZE, 2], out.quantity, n
    )


@compiled_scan
def _envelope(data: Bytes, start: int, end: int) -> tuple[int, int]:
    # Position of the first event, and the frame's own time.
    at = literal(data, start, end, _START)
    client = literal(data, at, end, _CLIENT)
    if client >= 0:
        at = client
    at = literal(data, at, end, _STAMP)
    if at < 0:
        return FAILED, NO_TIME
    stop = text_end(data, at, end)
    event_us = rfc3339(data, at, stop) if stop >= 0 else NO_TIME
    at = literal(data, stop, end, _SEQUENCE)
    if at < 0 or event_us == NO_TIME:
        return FAILED, NO_TIME
    return literal(data, number_end(data, at, end), end, _EVENTS), event_us


@compiled_scan
def _frame(frames: Frames, row: int, symbols: Symbols, out: Columns, first: int, spans: Spans) -> int:
    # Read one frame into out[first:]; returns the number of trades, 0 if it must be read the slow way.
    data, end, key = frames.data, int(frames.starts[row + 1]), int(frames.codes[row])
    at, event_us = _envelope(data, int(frames.starts[row]), end)
    n = first
    while True:  # events
        begun = literal(data, at, end, _UPDATE)
        is_snapshot = begun < 0
        if is_snapshot:
            begun = literal(data, at, end, _SNAPSHOT)
        at = begun
        while True:  # trades
            at = scan_object(data, at, end, _KEYS, spans)
            if at < 0 or spans[_PRODUCT, 0] != TEXT or n >= len(out.row):
                return 0
            code = symbol_code(data, spans[_PRODUCT, 1], spans[_PRODUCT, 2], symbols, key)
            if code < 0:
                return 0
            if code == key:
                if not _trade(data, spans, out, n):
                    return 0
                out.row[n], out.symbol[n], out.event_us[n], out.is_snapshot[n] = row, code, event_us, is_snapshot
                n += 1
            following = literal(data, at, end, _NEXT)
            if following < 0:
                break
            at = following
        at = literal(data, at, end, _EVENT_END)
        following = literal(data, at, end, _NEXT)
        if following < 0:
            break
        at = following
    return n - first if literal(data, at, end, _END) == end else 0


@compiled_scan
def scan_frames(frames: Frames, symbols: Symbols, out: Columns, spans: Spans) -> int:
    """Read the frames of known layouts into `out` and mark each frame's status; returns the number of trades."""
    n = 0
    for row in range(len(frames.status)):
        if frames.status[row] == WANTED:
            count = _frame(frames, row, symbols, out, n, spans)
            frames.status[row] = TRADES if count > 0 else UNREAD
            n += count
    return n


class Coinbase(Venue):
    """Coinbase Advanced Trade."""

    exchange = "coinbase"
    native_side_is_maker = True
    separator = "-"
    quotes = "USD USDC USDT EUR GBP DAI BTC ETH INR SGD"
    trade_marks = (b'"market_trades"',)
    other_channels = texts(
        *(f'{{"channel":"{name}","timestamp":' for name in ("l2_data", "ticker", "ticker_batch", "candles", "heartbeats", "status")),
        *(f'{{"channel":"{name}","client_id":' for name in ("l2_data", "ticker", "ticker_batch")),
    )
    route = route_of((('{"channel":"market_trades",', "trade"),), "product_id")
    feed = FeedRules(
        websocket_url="wss://advanced-trade-ws.coinbase.com",
        symbols_per_connection=100,
        symbols_per_message=50,
        connects=Limit(4, 1.0),  # 8 are allowed per address; a second feed may run beside this one
        messages=Limit(4, 1.0),  # as above
        silence_seconds=10.0,  # heartbeats come each second
        proof_seconds=1.5,
        numbers_frames=True,
    )
    rest = RestRules(
        rest_url="https://api.exchange.coinbase.com",
        requests=Limit(4, 1.0),  # about 10 a second are allowed per address
    )

    def scan(self, frames: Frames, symbols: Symbols, out: Columns) -> int:
        """Read the layouts shown above."""
        return scan_frames(frames, symbols, out, spans_for(_KEYS))

    def items(self, document: object) -> Items | None:
        """Return the trades of all events of a `market_trades` frame."""
        if not isinstance(document, dict):
            raise Unusable("bad_frame", f"not an object: {shown(document)}")
        channel = document.get("channel")
        if channel != "market_trades":
            if (isinstance(channel, str) and channel in CHANNELS) or (document.get("type") == "error" and "message" in document):
                return None
            raise Unusable("unknown_frame", f"channel {shown(channel)}, type {shown(document.get('type'))}")
        events = document.get("events")
        if not isinstance(events, list):
            raise Unusable("bad_frame", f"events is not a list: {shown(events)}")
        event_us = rfc3339_us(document.get("timestamp"))
        return [item for event in events for item in _items(event, event_us)]

    def read(self, item: Item) -> ReadTrade:
        """Return one trade, with the taker's side."""
        fields = item.fields
        text = fields.get("trade_id")
        number = digits(text) if type(text) is str else None
        if number is None:
            raise Unusable("bad_trade_id", f"trade_id {shown(text)}")
        price, quantity = mantissa(fields.get("price"), str, "price"), mantissa(fields.get("size"), str, "quantity")
        time = self.time_us(item)
        if time is None:
            raise Unusable("bad_time", f"time {shown(fields.get('time'))}")
        maker = fields.get("side")
        if maker not in ("BUY", "SELL"):
            raise Unusable("bad_side", f"side {shown(maker)}")
        return ReadTrade(number, time, item.event_us, maker == "SELL", price, quantity)

    def page_request(self, instrument: Instrument, wanted: Wanted) -> PageRequest:
        """Return the request for a page by id, of the Exchange API."""
        return coinbase_rest.page_request(instrument, wanted)

    def rest_items(self, body: object, symbol: object) -> Items:
        """Return the trades of a page of the Exchange API."""
        return coinbase_rest.items(body, symbol)

    def time_us(self, item: Item) -> int | None:
        """Return `time` in µs."""
        return rfc3339_us(item.fields.get("time"))

    def acknowledged(self, document: dict[str, object]) -> list[object]:
        """Return the products of the `market_trades` subscription; an ack lists the whole state of the connection."""
        events = document.get("events")
        found: list[object] = []
        for event in events if document.get("channel") == "subscriptions" and isinstance(events, list) else ():
            state = event.get("subscriptions") if isinstance(event, dict) else None
            products = state.get("market_trades") if isinstance(state, dict) else None
            found += products if isinstance(products, list) else []
        return found

    def subscriptions(self, instruments: Sequence[Instrument], first_request: int) -> list[Subscription]:
        """Return `subscribe` messages, and with a connection's first ones that of the channel which keeps it alive."""
        found = self._requests("subscribe", instruments)
        if first_request == 1:
            found.append(Subscription('{"type":"subscribe","channel":"heartbeats"}', ()))
        return found

    def unsubscriptions(self, instruments: Sequence[Instrument], first_request: int) -> list[Subscription]:  # noqa: ARG002 - no ids here
        """Return `unsubscribe` messages."""
        return self._requests("unsubscribe", instruments)

    def notice(self, frame: bytes) -> Notice | None:
        """Read acks, which list every product of the connection, and errors.

        A subscription counts from its ack, although the products' snapshots come before it: later is safe.
        """
        if frame.startswith(_QUIET_STARTS):
            return None
        try:
            document = orjson.loads(frame)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(document, dict):
            return None
        if document.get("type") == "error":
            return _complaint(f"{document.get('message')} {document.get('reason', '')}".strip())
        products = tuple(name for name in self.acknowledged(document) if isinstance(name, str))
        return Notice(NoticeKind.CONFIRMED, products) if products else None

    def frame_number(self, frame: bytes) -> int | None:
        """Return `sequence_num`: it counts the frames of all channels of the connection, from 0."""
        at = frame.find(_NUMBER)
        found = _NUMBER_ENDS.match(frame, at + len(_NUMBER)) if at >= 0 else None
        return int(found[0]) if found is not None else None

    def _requests(self, kind: str, instruments: Sequence[Instrument]) -> list[Subscription]:
        size = self.feed.symbols_per_message
        parts = [tuple(instruments[start : start + size]) for start in range(0, len(instruments), size)]
        return [Subscription(_message(kind, part), part) for part in parts]


def _message(kind: str, instruments: Sequence[Instrument]) -> str:
    products = [instrument.venue_symbol for instrument in instruments]
    return orjson.dumps({"type": kind, "product_ids": products, "channel": "market_trades"}).decode()


def _complaint(detail: str) -> Notice:
    about_pace = "rate limit" in detail.lower()  # nothing is refused: it is asked again
    products = tuple(_LISTED.findall(detail))
    return Notice(NoticeKind.ERROR if about_pace else NoticeKind.REFUSED, products, detail=detail)


def _items(event: object, event_us: int | None) -> Items:
    if not isinstance(event, dict):
        return [Unusable("bad_frame", f"an event is not an object: {shown(event)}")]
    trades, kind = event.get("trades"), event.get("type")
    if kind not in ("update", "snapshot"):
        return [Unusable("bad_frame", f"event type {shown(kind)}")]
    if not isinstance(trades, list):
        return [Unusable("bad_frame", f"trades is not a list: {shown(trades)}")]
    return [_item(trade, event_us, is_snapshot=kind == "snapshot") for trade in trades]


def _item(trade: object, event_us: int | None, *, is_snapshot: bool) -> Item | Unusable:
    if not isinstance(trade, dict):
        return Unusable("bad_frame", f"a trade is not an object: {shown(trade)}")
    return Item(trade, trade.get("product_id"), is_snapshot=is_snapshot, event_us=event_us)
