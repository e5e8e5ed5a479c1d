"""Binance spot: `/ws` and `/stream` sockets and `/api/v3` REST.

    {"stream":"btcusdt@trade","data":{"e":"trade","E":ms,"s":"BTCUSDT","t":id,"p":"61837.63000000","q":"0.02000000",
     "T":ms,"m":true,"M":true}}

Source: binance-spot-api-docs `web-socket-streams.md` and `rest-api.md`, read 2026-07-21; recordings of 2024-08.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Final

from simulator.block import IS_BUY, Rows
from simulator.exchange import Exchange, columns, limited
from simulator.http import Reply, json_reply
from simulator.klines import Kline, filled, klines, last_before
from simulator.recording import RecordedTrade
from simulator.session import Session
from simulator.tape import SymbolTape
from simulator.text import cut, padded
from simulator.wire import text_frame

_WIDTH: Final = 8  # decimals on the wire
_MOST_STREAMS: Final = 1024
_MINUTE_US: Final = 60_000_000
INTERVALS_US: Final = {
    name: int(name[:-1]) * {"s": 1_000_000, "m": _MINUTE_US, "h": 60 * _MINUTE_US, "d": 1440 * _MINUTE_US}[name[-1]]
    for name in ["1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d"]
}
_QUOTES: Final = ("USDT", "USDC", "FDUSD", "TUSD", "BTC", "ETH", "BNB", "EUR", "TRY", "BRL", "JPY")


class Binance(Exchange):
    """Binance spot."""

    name = "binance"
    quote = "USDT"
    lot_digits = _WIDTH
    resolution_us = 1000
    connects = (300, 300.0)
    messages = (5, 1.0)
    requests = (6000, 60.0)
    sockets: ClassVar[tuple[str, ...]] = ("/ws", "/stream")
    api: ClassVar[str] = "/api/v3/"
    width: ClassVar[int] = 8  # decimals of prices and quantities on the wire; 0: as many as the symbol has
    most_rows: ClassVar[int] = 1000  # of a page of trades
    row_tail: ClassVar[str] = ',"isBestMatch":true}'
    weights: ClassVar[Mapping[str, float]] = {"historicalTrades": 25.0, "trades": 25.0, "klines": 2.0, "exchangeInfo": 20.0}

    def symbol_of(self, tape: SymbolTape) -> str:
        """Return `BTCUSDT`."""
        return tape.listing.base + tape.listing.quote

    @staticmethod
    def recorded(document: Any) -> Sequence[RecordedTrade]:
        """Return the trade of an event, wrapped or not."""
        event = document.get("data", document)
        if not isinstance(event, dict) or event.get("e") != "trade":
            return []
        symbol, time_ms = event["s"], event["T"]
        quote = next((quote for quote in _QUOTES if symbol.endswith(quote)), "")
        return [
            RecordedTrade(
                f"{symbol.removesuffix(quote)}/{quote}",
                event["t"],
                time_ms * 1000,
                (event["E"] - time_ms) * 1000,
                event["p"].rstrip("0"),  # Binance always writes eight decimals
                event["q"].rstrip("0"),
                is_buy=not event["m"],
                is_market=False,
            )
        ]

    # Socket

    def serves(self, path: str) -> bool:
        """Whether it is `/ws`, `/ws/<streams>` or `/stream`."""
        return path in self.sockets or path.startswith(f"{self.sockets[0]}/")

    def opened(self, session: Session, path: str, query: Mapping[str, str]) -> None:
        """Subscribe what the URL names."""
        session.combined = path == self.sockets[1]
        session.micro = query.get("timeUnit", "").lower() == "microsecond"
        named = query.get("streams", "") if session.combined else path.removeprefix(self.sockets[0])
        session.notes["streams"] = {}
        for stream in filter(None, named.split("/")):
            self._subscribe(session, stream, wanted=True)

    def _subscribe(self, session: Session, stream: str, *, wanted: bool) -> None:
        # A stream that does not exist is acknowledged too, and stays silent.
        streams: dict[str, None] = session.notes["streams"]
        if wanted:
            streams[stream] = None
        else:
            streams.pop(stream, None)
        symbol, _, kind = stream.partition("@")
        code = self.codes.get(symbol.upper()) if symbol == symbol.lower() else None
        if code is not None and kind == "trade":
            session.want(code, wanted=wanted)

    def message(self, session: Session, text: str) -> None:
        """Answer a request."""
        try:
            request = json.loads(text)
        except ValueError as error:
            self._error(session, 3, f"Invalid JSON: {error}", None)
            return
        identity = request.get("id") if isinstance(request, dict) else None
        if not isinstance(request, dict) or not isinstance(identity, int | str | None):
            self._error(session, 2, "Invalid request: request ID must be an unsigned integer", None)
            return
        method, params = request.get("method"), request.get("params", [])
        if method == "LIST_SUBSCRIPTIONS":
            self._result(session, list(session.notes["streams"]), identity)
        elif method in ("GET_PROPERTY", "SET_PROPERTY"):
            self._property(session, method, params, identity)
        elif method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            self._error(session, 2, f"Invalid request: unknown variant {json.dumps(method)}", identity)
        elif not isinstance(params, list) or not params or not all(isinstance(stream, str) for stream in params):
            self._error(session, 2, "Invalid request: missing field `params`", identity)
        elif method == "SUBSCRIBE" and len(session.notes["streams"]) + len(params) > _MOST_STREAMS:
            self._error(session, 2, "Invalid request: too many streams", identity)
        elif method == "SUBSCRIBE" and self.refused_subscriptions > 0:
            self.refused_subscriptions -= 1
            self._error(session, 2, "Invalid request: unable to subscribe now", identity)
        else:
            for stream in params:
                self._subscribe(session, stream, wanted=method == "SUBSCRIBE")
            self._result(session, None, identity)

    def _property(self, session: Session, method: str, params: Any, identity: Any) -> None:
        if not isinstance(params, list) or params[:1] != ["combined"]:
            self._error(session, 0, "Unknown property", identity)
        elif method == "GET_PROPERTY":
            self._result(session, session.combined, identity)
        elif len(params) == 2 and isinstance(params[1], bool):
            session.combined = params[1]
            self._result(session, None, identity)
        else:
            self._error(session, 1, "Invalid value type: expected Boolean", identity)

    def _result(self, session: Session, result: Any, identity: Any) -> None:
        self.say(session, json.dumps({"result": result, "id": identity}, separators=(",", ":")))

    def _error(self, session: Session, code: int, message: str, identity: Any) -> None:
        document = {"code": code, "msg": message} | ({} if identity is None else {"id": identity})
        self.say(session, json.dumps(document, separators=(",", ":")))

    def broadcast(self, rows: Rows) -> None:
        """Send one frame a trade; each way of wrapping it is rendered once."""
        rendered: dict[tuple[bool, bool], list[bytes]] = {}
        for session in self.sessions.values():
            if session.wanted and session.is_open:
                form = session.combined, session.micro
                if form not in rendered:
                    rendered[form] = self.frames(rows, combined=form[0], micro=form[1])
                self.deliver_wanted(session, rendered[form], rows.symbol)

    def frames(self, rows: Rows, *, combined: bool, micro: bool = False) -> list[bytes]:
        """Return the frames of trades, ready to be written."""
        texts = self.event_texts(rows, 1 if micro else 1000)
        if combined:
            heads = self._heads
            texts = [f"{heads[s]}{text}}}" for s, text in zip(rows.symbol.tolist(), texts, strict=True)]
        return [text_frame(text.encode()) for text in texts]

    def event_texts(self, rows: Rows, unit: int) -> list[str]:
        """Return the events of trades; times in units of so many µs."""
        symbols = self.symbols
        return [
            f'{{"e":"trade","E":{(time + push) // unit},"s":"{symbols[s]}","t":{number},"p":"{p}","q":"{q}",'
            f'"T":{time // unit},"m":{"false" if flags & IS_BUY else "true"},"M":true}}'
            for s, number, time, push, p, q, flags in self.told(rows)
        ]

    @cached_property
    def _heads(self) -> list[str]:
        return [f'{{"stream":"{symbol.lower()}@trade","data":' for symbol in self.symbols]

    @cached_property
    def _forms(self) -> tuple[list[tuple[int, int]], list[tuple[str, str]]]:
        # By symbol: the units of price and quantity, and how both are written.
        decimals = [(tape.listing.price_decimals, tape.listing.lot_decimals) for tape in self.tape.symbols]
        pads = [tuple("0" * (self.width - digits) for digits in both) for both in decimals]
        forms = [(f"%d.%0{d[0]}d{pad[0]}", f"%d.%0{d[1]}d{pad[1]}") for d, pad in zip(decimals, pads, strict=True)]
        return [(10**price, 10**lot) for price, lot in decimals], forms

    def told(self, rows: Rows) -> list[tuple[int, int, int, int, str, str, int]]:
        """Return symbol, id, time, push, price, quantity, flags of trades; prices and quantities as the venue writes them."""
        scales, forms = self._forms
        return [
            (s, number, time, push, forms[s][0] % divmod(p, scales[s][0]), forms[s][1] % divmod(q, scales[s][1]), flags)
            for s, number, time, push, p, q, flags in columns(
                rows, "symbol", "trade_id", "time_us", "push_us", "price", "quantity", "flags"
            )
        ]

    def repeat(self, session: Session, rows: Rows) -> None:
        """Send trades again."""
        self.deliver(session, self.frames(rows, combined=session.combined, micro=session.micro))

    def snapshot(self, session: Session, code: int) -> None:
        """Do nothing: Binance repeats no trades."""

    def beat(self, session: Session, now: float) -> None:
        """Send a ping from time to time; a client that does not answer is dropped."""
        if now - session.pinged_at >= self.conditions.ping_seconds:
            session.pinged_at = now
            session.notes.setdefault("unanswered_since", now)
            session.socket.ping(str(self.now_us() // 1000).encode())
        if now - session.notes.get("unanswered_since", now) > self.conditions.pong_seconds:
            self.end(session, "no pong", 1008)

    def shut_down_notice(self, session: Session) -> None:
        """Send the event `serverShutdown`."""
        event = f'{{"e":"serverShutdown","E":{self.now_us() // 1000}}}'
        self.say(session, f'{{"stream":"!serverShutdown","data":{event}}}' if session.combined else event)

    # REST

    def weight(self, path: str) -> float:
        """Return the weight of a request."""
        return self.weights.get(path.rpartition("/")[2], 1.0)

    def too_many(self, seconds: float) -> Reply:
        """Answer 429."""
        text = "Too many requests; current limit is 6000 request weight per 1 MINUTE. Please use WebSocket Streams to avoid polling."
        return json_reply({"code": -1003, "msg": text}, 429, Retry_After=str(int(seconds) + 1))

    def rest(self, path: str, query: Mapping[str, str]) -> Reply:  # noqa: PLR0911 - one a case
        """Answer `historicalTrades`, `trades`, `klines`, `exchangeInfo`, `time` and `ping`."""
        if not path.startswith(self.api):
            return Reply(404)
        name = path.removeprefix(self.api)
        if name == "ping":
            return json_reply({})
        if name == "time":
            return json_reply({"serverTime": self.now_us() // 1000})
        if name == "exchangeInfo":
            return json_reply(
                {"timezone": "UTC", "serverTime": self.now_us() // 1000, "symbols": [self.listed_as(n) for n in range(len(self.symbols))]}
            )
        if name not in ("historicalTrades", "trades", "klines"):
            return Reply(404)
        if "symbol" not in query:
            return json_reply({"code": -1102, "msg": "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."}, 400)
        code = self.codes.get(query["symbol"])
        if code is None:
            return json_reply({"code": -1121, "msg": "Invalid symbol."}, 400)
        tape = self.tape.symbols[code]
        try:
            body = self._klines(tape, query) if name == "klines" else self._trades(tape, query, by_id=name == "historicalTrades")
        except (ValueError, KeyError) as error:
            return json_reply({"code": -1100, "msg": f"Illegal characters found in a parameter: {error}"}, 400)
        return Reply(200, body.encode(), {"X-MBX-USED-WEIGHT-1M": str(int(self.request_pace.used))})

    def listed_as(self, code: int) -> dict[str, Any]:
        """Return what `exchangeInfo` says of a symbol."""
        listing = self.tape.symbols[code].listing
        return {"symbol": self.symbols[code], "status": "TRADING", "baseAsset": listing.base, "quoteAsset": listing.quote}

    def _trades(self, tape: SymbolTape, query: Mapping[str, str], *, by_id: bool) -> str:
        limit = limited(query, "limit", 500, self.most_rows)
        if by_id and query.get("fromId"):
            rows = tape.page_from(tape.row_of(int(query["fromId"])), limit)
        else:
            rows = tape.page_until(tape.released, limit)
        decimals = tape.listing.price_decimals + tape.listing.lot_decimals
        values = rows.price.tolist(), rows.quantity.tolist()
        quotes = [cut(price * quantity, decimals, _WIDTH) for price, quantity in zip(*values, strict=True)]
        told = [
            f'{{"id":{number},"price":"{p}","qty":"{q}","quoteQty":"{quote}","time":{time // 1000},'
            f'"isBuyerMaker":{"false" if flags & IS_BUY else "true"}{self.row_tail}'
            for (_, number, time, _, p, q, flags), quote in zip(self.told(rows), quotes, strict=True)
        ]
        return f"[{','.join(told)}]"

    def _klines(self, tape: SymbolTape, query: Mapping[str, str]) -> str:
        interval_us, limit = INTERVALS_US[query["interval"]], limited(query, "limit", 500, 1000)
        now_us = self.now_us()
        last_us = min(int(query["endTime"]) * 1000, now_us) if query.get("endTime") else now_us
        if query.get("startTime"):
            start_us = -(-int(query["startTime"]) * 1000 // interval_us) * interval_us
            start_us = max(start_us, tape.first_time_us // interval_us * interval_us)
            end_us = min(start_us + limit * interval_us, last_us + 1)
        else:
            end_us = last_us // interval_us * interval_us + 1
            start_us = end_us - 1 - (limit - 1) * interval_us
        found = klines(tape, interval_us, start_us, end_us)
        rows = filled(found, interval_us, last_before(tape, interval_us, start_us), start_us, end_us)
        return f"[{','.join(self.kline_row(tape, kline, interval_us) for kline in rows)}]"

    def kline_row(self, tape: SymbolTape, kline: Kline, interval_us: int) -> str:
        """Return a candle as Binance writes it."""
        price, lot = tape.listing.price_decimals, tape.listing.lot_decimals
        prices = ",".join(f'"{padded(value, price, _WIDTH)}"' for value in (kline.open, kline.high, kline.low, kline.close))
        return (
            f'[{kline.start_us // 1000},{prices},"{padded(kline.quantity, lot, _WIDTH)}",{(kline.start_us + interval_us) // 1000 - 1},'
            f'"{cut(kline.quote, price + lot, _WIDTH)}",{kline.trades},"{padded(kline.buy_quantity, lot, _WIDTH)}",'
            f'"{cut(kline.buy_quote, price + lot, _WIDTH)}","0"]'
        )
