"""Coinbase Advanced Trade: its socket, channels `market_trades` and `heartbeats`; candles; trades by id of the Exchange API.

    {"channel":"market_trades","timestamp":"…228568804Z","sequence_num":9,"events":[{"type":"update","trades":[
     {"product_id":"BTC-USD","trade_id":"1068572091","price":"65083.67","size":"0.01034361",
      "time":"2026-08-09T21:05:48.167634Z","side":"SELL"},…]}]}

Trades are collected for up to a quarter of a second and told newest first, one product a frame; `side` is the maker's. Every
frame of a connection has the next `sequence_num`.

Source: docs.cdp.coinbase.com, Advanced Trade WebSocket and REST, Exchange REST, read 2026-08; recording of 2026-08-09.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from simulator.block import IS_BUY, Rows, Source
from simulator.clock import Clock
from simulator.exchange import Conditions, Exchange, columns, limited
from simulator.http import Reply, json_reply
from simulator.klines import Kline, klines
from simulator.recording import RecordedTrade
from simulator.session import Session
from simulator.tape import SymbolTape
from simulator.text import cut, micros, rfc3339, rfc3339_ns, rfc3339_short, shortest
from simulator.wire import payload_of, text_frame

_SNAPSHOT: Final = 100
_COLLECT_SECONDS: Final = 0.25
_FIRST_SUBSCRIBE_SECONDS: Final = 5.0
_QUIET_SECONDS: Final = 90.0
_MOST_CANDLES: Final = 350
_GRANULARITIES: Final = {
    name: minutes * 60_000_000
    for name, minutes in {
        "ONE_MINUTE": 1, "FIVE_MINUTE": 5, "FIFTEEN_MINUTE": 15, "THIRTY_MINUTE": 30, "ONE_HOUR": 60, "TWO_HOUR": 120,
        "FOUR_HOUR": 240, "SIX_HOUR": 360, "ONE_DAY": 1440,
    }.items()
}  # fmt: skip
_NUMBER: Final = "@"  # stands for a frame's number until it leaves
_PLACE: Final = b'"sequence_num":@'
_ERROR: Final = b'{"type":"error"'
_PRODUCTS: Final = "/api/v3/brokerage/market/products/"


class Coinbase(Exchange):
    """Coinbase Advanced Trade."""

    name = "coinbase"
    stamps = True
    quote = "USD"
    connects = (8, 1.0)
    messages = (8, 1.0)
    requests = (10, 1.0)

    def __init__(self, source: Source, clock: Clock, conditions: Conditions) -> None:
        super().__init__(source, clock, conditions)
        self._decimals = [(tape.listing.price_decimals, tape.listing.lot_decimals) for tape in self.tape.symbols]
        self._collected: dict[int, list[str]] = {}  # by symbol: trades that no frame has told yet, oldest first
        self._since: dict[int, float] = {}
        self._told_id = [tape.first_id - 1 for tape in self.tape.symbols]  # the newest id that a frame has told
        self._newest_id = list(self._told_id)

    def symbol_of(self, tape: SymbolTape) -> str:
        """Return `BTC-USD`."""
        return tape.listing.canonical.replace("/", "-")

    @staticmethod
    def recorded(document: Any) -> Sequence[RecordedTrade]:
        """Return the trades of a `market_trades` frame."""
        if document.get("channel") != "market_trades":
            return []
        return [
            RecordedTrade(
                trade["product_id"].replace("-", "/"),
                int(trade["trade_id"]),
                micros(trade["time"]),
                0,
                trade["price"],
                trade["size"],
                is_buy=trade["side"] == "SELL",  # the maker's side
                is_market=False,
            )
            for event in document["events"]
            for trade in event["trades"]
        ]

    # Socket

    def opened(self, session: Session, path: str, query: Mapping[str, str]) -> None:
        """Say nothing: the client speaks first."""

    def message(self, session: Session, text: str) -> None:
        """Answer a request."""
        try:
            request = json.loads(text)
        except ValueError:
            request = None
        if not isinstance(request, dict) or request.get("type") not in ("subscribe", "unsubscribe"):
            self._error(session, "invalid message type")
            return
        wanted, channel = request["type"] == "subscribe", request.get("channel")
        if channel == "heartbeats":
            session.heartbeats = wanted
        elif channel == "market_trades":
            products = request.get("product_ids")
            if not isinstance(products, list) or not products:
                self._error(session, "product_ids is required")
                return
            unknown = [str(product) for product in products if product not in self.codes]
            if unknown:
                self._error(session, f"{', '.join(unknown)} is not a valid product_id")
                return
            if wanted and self.refused_subscriptions > 0:
                self.refused_subscriptions -= 1
                self._error(session, "failure to subscribe")
                return
            for product in products:
                if session.want(self.codes[product], wanted=wanted) and wanted:
                    self.snapshot(session, self.codes[product])
        else:
            self._error(session, f"channel {channel} is not supported")
            return
        self._state(session)

    def _error(self, session: Session, message: str) -> None:
        self.say(session, json.dumps({"type": "error", "message": message}, separators=(",", ":")))

    def too_many_messages(self, session: Session) -> None:
        """Complain; the connection stays."""
        self._error(session, "rate limit exceeded")

    def _state(self, session: Session) -> None:
        # The whole state of the connection's subscriptions.
        state: dict[str, list[str]] = {"heartbeats": ["heartbeats"]} if session.heartbeats else {}
        if session.wanted:
            state["market_trades"] = [symbol for code, symbol in enumerate(self.symbols) if session.mask[code]]
        self.deliver(
            session, [self._frame(session, "subscriptions", json.dumps({"subscriptions": state}, separators=(",", ":")))], is_control=True
        )

    def _frame(self, session: Session, channel: str, event: str) -> bytes:
        stamp = rfc3339_ns(self.now_us() * 1000 + session.sequence % 997)
        return text_frame(f'{{"channel":"{channel}","timestamp":"{stamp}","sequence_num":{_NUMBER},"events":[{event}]}}'.encode())

    def stamped(self, session: Session, frame: bytes) -> bytes:
        """Return a frame with the next number of its connection; frames of errors have none."""
        payload = payload_of(frame)
        if payload.startswith(_ERROR):
            return frame
        number, session.sequence = session.sequence, session.sequence + 1
        return text_frame(payload.replace(_PLACE, b'"sequence_num":%d' % number, 1))

    def frames_lost(self, session: Session) -> None:
        """Skip a number: the client can tell that it missed a frame."""
        session.sequence += 1

    def broadcast(self, rows: Rows) -> None:
        """Collect trades; `advance` sends them when they are old enough."""
        now = self.clock.real()
        for (code, number), text in zip(columns(rows, "symbol", "trade_id"), self._told(rows), strict=True):
            if code in self._collected:
                self._collected[code].append(text)
            else:
                self._collected[code], self._since[code] = [text], now
            self._newest_id[code] = number

    def advance(self) -> None:
        """Release trades, and send those that were collected long enough."""
        super().advance()
        now = self.clock.real()
        for code in [code for code, since in self._since.items() if now - since >= _COLLECT_SECONDS]:
            texts = self._collected.pop(code)
            del self._since[code]
            self._told_id[code] = self._newest_id[code]
            event = f'{{"type":"update","trades":[{",".join(reversed(texts))}]}}'
            for session in list(self.sessions.values()):
                if session.mask[code] and session.is_open and not session.is_frozen:
                    self.deliver(session, [self._frame(session, "market_trades", event)])

    def _told(self, rows: Rows) -> list[str]:
        decimals = self._decimals
        return [
            f'{{"product_id":"{self.symbols[s]}","trade_id":"{number}","price":"{shortest(p, decimals[s][0])}",'
            f'"size":"{shortest(q, decimals[s][1])}","time":"{rfc3339_short(time)}","side":"{"SELL" if flags & IS_BUY else "BUY"}"}}'
            for s, number, time, p, q, flags in columns(rows, "symbol", "trade_id", "time_us", "price", "quantity", "flags")
        ]

    def repeatable(self, code: int, count: int) -> Rows:
        """Return the latest trades of a symbol that a frame has told."""
        tape = self.tape.symbols[code]
        return tape.page_until(tape.row_of(self._told_id[code] + 1), count)

    def repeat(self, session: Session, rows: Rows) -> None:
        """Send trades again as an update."""
        event = f'{{"type":"update","trades":[{",".join(reversed(self._told(rows)))}]}}'
        self.deliver(session, [self._frame(session, "market_trades", event)])

    def snapshot(self, session: Session, code: int) -> None:
        """Send the latest 100 trades that other clients have been told, newest first."""
        rows = self.repeatable(code, _SNAPSHOT)
        event = f'{{"type":"snapshot","trades":[{",".join(reversed(self._told(rows)))}]}}'
        self.deliver(session, [self._frame(session, "market_trades", event)])

    def beat(self, session: Session, now: float) -> None:
        """Send heartbeats; close what never subscribed, or has heard nothing for long."""
        if session.heartbeats and now - session.pinged_at >= 1.0:
            session.pinged_at = now
            session.beats += 1
            second, micro = divmod(self.now_us(), 1_000_000)
            current = (
                f"{rfc3339(second * 1_000_000)[:19].replace('T', ' ')}.{micro * 1000:09d} +0000 UTC m=+{41_690 + session.beats}.260485341"
            )
            event = f'{{"current_time":"{current}","heartbeat_counter":{41_690 + session.beats}}}'
            self.deliver(session, [self._frame(session, "heartbeats", event)], is_control=True)
        subscribes = session.wanted or session.heartbeats
        if not subscribes and now - session.opened_at > _FIRST_SUBSCRIBE_SECONDS and session.sequence == 0:
            self.end(session, "no subscription in time", 1008)
        elif not session.heartbeats and now - session.sent_at > _QUIET_SECONDS:
            self.end(session, "no updates", 1000)

    # REST

    def too_many(self, seconds: float) -> Reply:
        """Answer 429."""
        return json_reply({"message": "Public rate limit exceeded"}, 429, Retry_After=str(int(seconds) + 1))

    def rest(self, path: str, query: Mapping[str, str]) -> Reply:
        """Answer Exchange trades by id, Advanced Trade ticker and candles, and the products."""
        exchange_style = path.startswith("/products/")
        if not exchange_style and not path.startswith(_PRODUCTS):
            return json_reply({"products": [{"product_id": s} for s in self.symbols]}) if path == _PRODUCTS[:-1] else Reply(404)
        product, _, what = path.removeprefix("/products/" if exchange_style else _PRODUCTS).partition("/")
        code = self.codes.get(product)
        if code is None:
            return json_reply({"message": "NotFound"}, 404)
        tape = self.tape.symbols[code]
        try:
            if exchange_style and what == "trades":
                return self._trades(tape, query)
            if not exchange_style and what in ("ticker", "candles"):
                return self._ticker(tape, query) if what == "ticker" else self._candles(tape, query)
        except (ValueError, KeyError) as error:
            return json_reply({"message": f"Invalid parameter {error}"}, 400)
        return Reply(404)

    def _trades(self, tape: SymbolTape, query: Mapping[str, str]) -> Reply:
        # `after`: older than that id; `before`: newer, and then the newest of those, not the ones next to it.
        limit = limited(query, "limit", 1000, 1000)
        stop = tape.row_of(int(query["after"])) if query.get("after") else tape.released
        rows = tape.page_until(stop, limit)
        if query.get("before"):
            rows = rows.where(rows.trade_id > int(query["before"]))
        price, lot = tape.listing.price_decimals, tape.listing.lot_decimals
        told = [
            f'{{"trade_id":{number},"side":"{"sell" if flags & IS_BUY else "buy"}","size":"{cut(q, lot, 8)}",'
            f'"price":"{cut(p, price, 8)}","time":"{rfc3339(time)}"}}'
            for number, time, p, q, flags in columns(rows, "trade_id", "time_us", "price", "quantity", "flags")
        ]
        ids = rows.trade_id.tolist()
        headers = {"CB-BEFORE": str(ids[-1]), "CB-AFTER": str(ids[0])} if ids else {}
        return Reply(200, f"[{','.join(reversed(told))}]".encode(), headers)

    def _ticker(self, tape: SymbolTape, query: Mapping[str, str]) -> Reply:
        limit = limited(query, "limit", 100, 1000)
        start = tape.row_at(int(query["start"]) * 1_000_000) if query.get("start") else 0
        stop = tape.row_at(int(query["end"]) * 1_000_000) if query.get("end") else tape.released
        rows = tape.page_until(stop, limit)
        told = self._told(rows.where(rows.trade_id >= tape.first_id + start))
        best = f',"best_bid":"{_last(tape)}","best_ask":"{_last(tape)}"'
        return Reply(200, f'{{"trades":[{",".join(reversed(told))}]{best}}}'.encode())

    def _candles(self, tape: SymbolTape, query: Mapping[str, str]) -> Reply:
        interval_us = _GRANULARITIES[query["granularity"]]
        start_us, end_us = int(query["start"]) * 1_000_000, int(query["end"]) * 1_000_000
        if (end_us - start_us) // interval_us > _MOST_CANDLES:
            return json_reply({"error": "INVALID_ARGUMENT", "message": "number of candles requested should be less than 350"}, 400)
        found: list[Any] = [_candle(tape, kline) for kline in klines(tape, interval_us, start_us, end_us + 1)]
        return json_reply({"candles": found[::-1]})


def _candle(tape: SymbolTape, kline: Kline) -> dict[str, str]:
    price = tape.listing.price_decimals
    return {
        "start": str(kline.start_us // 1_000_000),
        **{name: shortest(getattr(kline, name), price) for name in ("low", "high", "open", "close")},
        "volume": shortest(kline.quantity, tape.listing.lot_decimals),
    }


def _last(tape: SymbolTape) -> str:
    rows = tape.page_until(tape.released, 1)
    return shortest(int(rows.price[0]), tape.listing.price_decimals) if len(rows) else "0"
