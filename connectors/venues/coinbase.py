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

from connectors.venues import coinbase_rest
from connectors.venues.columns import texts
from connectors.venues.feeding import FeedRules, Limit, Notice, NoticeKind, PageRequest, RestRules, Subscription, Wanted
from connectors.venues.layout import Layout, TableReader, control_document
from connectors.venues.reading import Items
from connectors.venues.routing import route_of
from connectors.venues.scan_layout import RFC3339
from connectors.venues.text import Unusable, rfc3339_us, shown
from market.instrument import Instrument

CHANNELS: Final = frozenset(
    ("subscriptions", "heartbeats", "ticker", "ticker_batch", "level2", "l2_data", "candles", "status", "user", "futures_balance_summary")
)

# How frames begin that have nothing to say to a feed.
_QUIET_STARTS: Final = (b'{"channel":"market_trades",', b'{"channel":"heartbeats",')
_NUMBER: Final = b'"sequence_num":'
_NUMBER_ENDS: Final = re.compile(rb"[0-9]{1,18}(?![0-9])")
_EVENTS: Final = '"sequence_num":<#>,"events":[<(>{"type":"<update|snapshot>","trades":<[]>}<,)>]}'
_LISTED: Final = re.compile(r"[A-Z0-9]+-[A-Z0-9]+")


class Coinbase(TableReader):
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
    layout = Layout(
        frames=tuple(f'{{"channel":"market_trades",{client}"timestamp":"<timestamp>",{_EVENTS}' for client in ("", '"client_id":"",')),
        texts=frozenset(("timestamp", "product_id", "trade_id", "price", "size", "time", "side")),
        symbol="product_id",
        id="trade_id",
        time="time",
        price="price",
        quantity="size",
        side="side",
        buy="SELL",  # the maker's
        sell="BUY",
        event="timestamp",
        unit_us=RFC3339,
    )
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
        return [item for event in events for item in self._trades_of(event, event_us)]

    def page_request(self, instrument: Instrument, wanted: Wanted) -> PageRequest:
        """Return the request for a page by id, of the Exchange API."""
        return coinbase_rest.page_request(instrument, wanted)

    def rest_items(self, body: object, symbol: object) -> Items:
        """Return the trades of a page of the Exchange API."""
        return coinbase_rest.items(body, symbol)

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
        document = control_document(frame, _QUIET_STARTS)
        if document is None:
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

    def _trades_of(self, event: object, event_us: int | None) -> Items:
        if not isinstance(event, dict):
            return [Unusable("bad_frame", f"an event is not an object: {shown(event)}")]
        trades, kind = event.get("trades"), event.get("type")
        if kind not in ("update", "snapshot"):
            return [Unusable("bad_frame", f"event type {shown(kind)}")]
        if not isinstance(trades, list):
            return [Unusable("bad_frame", f"trades is not a list: {shown(trades)}")]
        return [self.trade(trade, event_us=event_us, is_snapshot=kind == "snapshot") for trade in trades]

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
