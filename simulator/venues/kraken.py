"""Kraken: the `/v2` socket, channel `trade`, and `/0/public` REST.

    {"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":63501.9,"qty":0.00004134,
     "ord_type":"limit","trade_id":103436768,"timestamp":"2026-07-07T23:00:04.590753Z"},…]}

Numbers are written at the engine's precision, with their zeros. The fills of one order come in one frame.

Source: docs.kraken.com, WebSocket v2 and REST, read 2026-07; recording of 2026-07-07.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np

from simulator.block import IS_BUY, IS_MARKET, Ints, Rows, runs
from simulator.exchange import Exchange, columns, limited
from simulator.http import Reply, json_reply
from simulator.klines import Kline, filled, klines, last_before
from simulator.recording import RecordedTrade
from simulator.session import Session
from simulator.tape import SymbolTape
from simulator.text import cut, micros, padded, rfc3339
from simulator.wire import text_frame

_MINUTE_US: Final = 60_000_000
_INTERVALS: Final = frozenset((1, 5, 15, 30, 60, 240, 1440, 10_080, 21_600))
_MOST_CANDLES: Final = 720
_SNAPSHOT: Final = 50
_REST_DECIMALS: Final = 5  # of prices in REST trades, at least
_NS_SPREAD: Final = 99  # most ns by which trades of one µs are told apart
_IDLE_SECONDS: Final = 60.0
_OLD_NAMES: Final = {"BTC": "XBT", "DOGE": "XDG"}
_CLASS_X: Final = frozenset(["XBT", "XDG", "ETH", "ETC", "LTC", "MLN", "REP", "XLM", "XMR", "XRP", "ZEC"])
_CLASS_Z: Final = frozenset(["USD", "EUR", "GBP", "CAD", "JPY", "AUD"])


class Kraken(Exchange):
    """Kraken spot."""

    name = "kraken"
    quote = "USD"
    connects = (150, 600.0)
    messages = (50, 1.0)
    requests = (15, 15.0)

    def symbol_of(self, tape: SymbolTape) -> str:
        """Return `BTC/USD`."""
        return tape.listing.canonical

    @staticmethod
    def recorded(document: Any) -> Sequence[RecordedTrade]:
        """Return the trades of a `trade` frame."""
        if document.get("channel") != "trade":
            return []
        return [
            RecordedTrade(
                trade["symbol"],
                trade["trade_id"],
                micros(trade["timestamp"]),
                0,
                str(trade["price"]),
                str(trade["qty"]),
                is_buy=trade["side"] == "buy",
                is_market=trade["ord_type"] == "market",
            )
            for trade in document["data"]
        ]

    # Socket

    def serves(self, path: str) -> bool:
        """Whether it is `/v2`."""
        return path == "/v2"

    def accepts_in_maintenance(self) -> bool:
        """Clients may connect; the status frame tells them."""
        return True

    def opened(self, session: Session, path: str, query: Mapping[str, str]) -> None:
        """Send the status frame."""
        del path, query
        self._status(session)

    def _status(self, session: Session) -> None:
        system = "maintenance" if self.is_in_maintenance else "online"
        number = 4421894013101914413 + int(session.name.rpartition("-")[2])
        self.say(
            session,
            '{"channel":"status","type":"update","data":[{"version":"2.0.10",'
            f'"system":"{system}","api_version":"v2","connection_id":{number}}}]}}',
        )

    def maintenance_changed(self) -> None:
        """Send every client the new status."""
        for session in list(self.sessions.values()):
            self._status(session)

    def message(self, session: Session, text: str) -> None:
        """Answer a request."""
        time_in = rfc3339(self.now_us())
        try:
            request = json.loads(text)
        except ValueError:
            request = None
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            self._answer(session, {"error": "Malformed request", "success": False}, time_in)
            return
        method, params = request["method"], request.get("params")
        head: dict[str, Any] = {"method": method} | ({"req_id": request["req_id"]} if "req_id" in request else {})
        if method == "ping":
            self._answer(session, head | {"method": "pong"}, time_in)
        elif method not in ("subscribe", "unsubscribe"):
            self._answer(session, {"error": "Method not found", **head, "success": False}, time_in)
        elif not isinstance(params, dict) or params.get("channel") != "trade":
            self._answer(session, {"error": "Channel not supported", **head, "success": False}, time_in)
        elif not isinstance(params.get("symbol"), list) or not params["symbol"]:
            self._answer(session, {"error": "Symbol(s) not found", **head, "success": False}, time_in)
        else:
            snapshot = params.get("snapshot", True) is True
            known = [self._subscribe(session, head, symbol, time_in, snapshot=snapshot) for symbol in params["symbol"]]
            if method == "subscribe" and snapshot:
                for code in known:
                    if code is not None:
                        self.snapshot(session, code)

    def _subscribe(self, session: Session, head: dict[str, Any], symbol: Any, time_in: str, *, snapshot: bool) -> int | None:
        # One answer a symbol; returns the symbol's code if it is subscribed by this.
        wanted = head["method"] == "subscribe"
        code = self.codes.get(symbol) if isinstance(symbol, str) else None
        error = ""
        if code is None:
            error = f"Currency pair not supported {symbol}"
        elif wanted and self.is_in_maintenance:
            error = "EService:Unavailable"
        elif wanted and self.refused_subscriptions > 0:
            self.refused_subscriptions -= 1
            error = "ESession:Subscription not possible"
        elif not session.want(code, wanted=wanted):
            error = "Already subscribed" if wanted else "Subscription Not Found"
        if error:
            self._answer(session, {"error": error, **head, "success": False, "symbol": symbol}, time_in)
            return None
        result = {"channel": "trade"} | ({"snapshot": snapshot} if wanted else {}) | {"symbol": symbol}
        self._answer(session, {**head, "result": result, "success": True}, time_in)
        return code

    def _answer(self, session: Session, document: dict[str, Any], time_in: str) -> None:
        document |= {"time_in": time_in, "time_out": rfc3339(self.now_us())}
        self.say(session, json.dumps(document, separators=(",", ":")))

    def too_many_messages(self, session: Session) -> None:
        """Complain; the connection stays."""
        self._answer(session, {"error": "Exceeded msg rate", "success": False}, rfc3339(self.now_us()))

    def broadcast(self, rows: Rows) -> None:
        """Send one frame an order."""
        told = [session for session in self.sessions.values() if session.wanted and session.is_open]
        if told:
            frames, symbols = self.frames(rows)
            for session in told:
                self.deliver_wanted(session, frames, symbols)

    def frames(self, rows: Rows) -> tuple[list[bytes], Ints]:
        """Return the frames of trades and the symbol of each; the fills of an order share one."""
        orders = runs(rows.order)
        texts = self._told(rows)
        frames = [
            text_frame(f'{{"channel":"trade","type":"update","data":[{",".join(texts[start:stop])}]}}'.encode()) for start, stop in orders
        ]
        return frames, rows.symbol[[start for start, _ in orders]]

    @cached_property
    def _forms(self) -> tuple[list[tuple[int, int]], list[tuple[str, str]]]:
        # By symbol: the units of price and quantity, and how both are written.
        listings = [tape.listing for tape in self.tape.symbols]
        forms = [(f"%d.%0{listing.price_decimals}d", f"%d.%0{listing.lot_decimals}d") for listing in listings]
        return [(10**listing.price_decimals, 10**listing.lot_decimals) for listing in listings], forms

    def _told(self, rows: Rows) -> list[str]:
        units, forms = self._forms
        return [
            f'{{"symbol":"{self.symbols[s]}","side":"{"buy" if flags & IS_BUY else "sell"}","price":{forms[s][0] % divmod(p, units[s][0])},'
            f'"qty":{forms[s][1] % divmod(q, units[s][1])},"ord_type":"{"market" if flags & IS_MARKET else "limit"}","trade_id":{number},'
            f'"timestamp":"{rfc3339(time)}"}}'
            for s, number, time, p, q, flags in columns(rows, "symbol", "trade_id", "time_us", "price", "quantity", "flags")
        ]

    def repeat(self, session: Session, rows: Rows) -> None:
        """Send trades again, in one frame."""
        self.deliver(session, self.frames(rows)[0])

    def unavailable(self) -> Reply:
        """Answer as Kraken does: status 200 and an error."""
        return json_reply({"error": ["EService:Unavailable"]})

    def snapshot(self, session: Session, code: int) -> None:
        """Send the latest 50 trades, ascending."""
        tape = self.tape.symbols[code]
        rows = tape.page_until(tape.released, _SNAPSHOT)
        if len(rows):
            text = f'{{"channel":"trade","type":"snapshot","data":[{",".join(self._told(rows))}]}}'
            self.deliver(session, [text_frame(text.encode())])

    def beat(self, session: Session, now: float) -> None:
        """Send a heartbeat each second in which nothing else was sent; close what subscribes to nothing."""
        if session.wanted and now - session.sent_at >= 1.0:
            self.say(session, '{"channel":"heartbeat"}')
        elif not session.wanted and now - session.heard_at > _IDLE_SECONDS:
            self.end(session, "idle", 1000)

    # REST

    def too_many(self, seconds: float) -> Reply:
        """Answer as Kraken does: status 200 and an error."""
        del seconds
        return json_reply({"error": ["EGeneral:Too many requests"]})

    def rest(self, path: str, query: Mapping[str, str]) -> Reply:  # noqa: PLR0911 - one a case
        """Answer `Trades`, `OHLC`, `AssetPairs` and `Time`."""
        if not path.startswith("/0/public/"):
            return Reply(404)
        name = path.removeprefix("/0/public/")
        if name == "Time":
            return json_reply({"error": [], "result": {"unixtime": self.now_us() // 1_000_000}})
        if name == "AssetPairs":
            return json_reply({"error": [], "result": {pair_key(t): _asset_pair(t) for t in self.tape.symbols}})
        if name not in ("Trades", "OHLC"):
            return json_reply({"error": ["EGeneral:Unknown method"]})
        tape = self._pair(query.get("pair", ""))
        if tape is None:
            return json_reply({"error": ["EQuery:Unknown asset pair"]})
        try:
            rows, last = self._trades(tape, query) if name == "Trades" else self._ohlc(tape, query)
        except ValueError:
            return json_reply({"error": ["EGeneral:Invalid arguments"]})
        return Reply(200, f'{{"error":[],"result":{{"{pair_key(tape)}":[{",".join(rows)}],"last":{last}}}}}'.encode())

    def _pair(self, name: str) -> SymbolTape | None:
        for tape in self.tape.symbols:
            base, quote = old_names(tape)
            if name.upper() in (
                pair_key(tape),
                base + quote,
                f"{base}/{quote}",
                tape.listing.canonical,
                tape.listing.canonical.replace("/", ""),
            ):
                return tape
        return None

    def _trades(self, tape: SymbolTape, query: Mapping[str, str]) -> tuple[list[str], str]:
        limit = limited(query, "count", 1000, 1000)
        since = query.get("since", "")
        if since:
            since_ns = int(since) if len(since) > 12 else int(float(since) * 1e9)
            rows = self._after(tape, since_ns, limit)
        else:
            since_ns, rows = 0, tape.page_until(tape.released, limit)
        decimals = max(tape.listing.price_decimals, _REST_DECIMALS)
        moments = _moments_ns(tape, rows)
        told = [
            f'["{padded(p, tape.listing.price_decimals, decimals)}","{padded(q, tape.listing.lot_decimals, 8)}",{ns // 10**9}.{ns % 10**9 // 100:07d},'
            f'"{"b" if flags & IS_BUY else "s"}","{"m" if flags & IS_MARKET else "l"}","",{number}]'
            for (number, p, q, flags), ns in zip(columns(rows, "trade_id", "price", "quantity", "flags"), moments, strict=True)
        ]
        last = moments[-1] if moments else since_ns
        return told, f'"{last}"'

    def _after(self, tape: SymbolTape, since_ns: int, limit: int) -> Rows:
        # Trades later than `since`; a page never ends between two of one nanosecond, or the next would miss the second.
        first = tape.page_from(tape.row_at(since_ns // 1000), limit + 1100)
        moments = _moments_ns(tape, first)
        kept = [n for n, moment in enumerate(moments) if moment > since_ns]
        stop = limit
        while stop < len(kept) and moments[kept[stop]] == moments[kept[stop - 1]]:
            stop += 1
        return first.where(np.array(kept[:stop], dtype=np.int64))

    def _ohlc(self, tape: SymbolTape, query: Mapping[str, str]) -> tuple[list[str], str]:
        minutes = int(query.get("interval") or 1)
        if minutes not in _INTERVALS:
            raise ValueError(minutes)
        interval_us, now_us = minutes * _MINUTE_US, self.now_us()
        running_us = now_us // interval_us * interval_us
        start_us = max(
            running_us - _MOST_CANDLES * interval_us, (int(query.get("since") or 0) * 1_000_000 // interval_us + 1) * interval_us
        )
        before = last_before(tape, interval_us, start_us)
        rows = list(filled(klines(tape, interval_us, start_us, now_us + 1), interval_us, before, start_us, now_us + 1))
        return [_candle(tape, kline) for kline in rows], str((running_us - interval_us) // 1_000_000)


def old_names(tape: SymbolTape) -> tuple[str, str]:
    """Return base and quote as REST calls them: `XBT`, `USD`."""
    return _OLD_NAMES.get(tape.listing.base, tape.listing.base), _OLD_NAMES.get(tape.listing.quote, tape.listing.quote)


def pair_key(tape: SymbolTape) -> str:
    """Return the key of a pair in REST answers: `XXBTZUSD`, `SOLUSD`."""
    base, quote = old_names(tape)
    if base in _CLASS_X and base != "XDG" and quote in _CLASS_X | _CLASS_Z:
        return f"X{base}{'X' if quote in _CLASS_X else 'Z'}{quote}"
    return base + quote


def _asset_pair(tape: SymbolTape) -> dict[str, Any]:
    base, quote = old_names(tape)
    return {
        "altname": base + quote,
        "wsname": f"{base}/{quote}",
        "aclass_base": "currency",
        "base": f"X{base}" if base in _CLASS_X else base,
        "aclass_quote": "currency",
        "quote": f"Z{quote}" if quote in _CLASS_Z else quote,
        "lot": "unit",
        "cost_decimals": 5,
        "pair_decimals": tape.listing.price_decimals,
        "lot_decimals": tape.listing.lot_decimals,
        "lot_multiplier": 1,
        "tick_size": padded(1, tape.listing.price_decimals),
        "status": "online",
    }


def _candle(tape: SymbolTape, kline: Kline) -> str:
    price, lot = tape.listing.price_decimals, tape.listing.lot_decimals
    prices = ",".join(f'"{padded(value, price)}"' for value in (kline.open, kline.high, kline.low, kline.close))
    mean = f'"{padded(kline.quote // kline.quantity, price)}"' if kline.quantity else '"0.0"'
    return f'[{kline.start_us // 1_000_000},{prices},{mean},"{cut(kline.quantity, lot, 8)}",{kline.trades}]'


def _moments_ns(tape: SymbolTape, rows: Rows) -> list[int]:
    # Trades of one µs are nanoseconds apart, by their position among them.
    moments: list[int] = []
    for number, time_us in columns(rows, "trade_id", "time_us"):
        nth = number - tape.first_id - tape.row_at(time_us)
        moments.append(time_us * 1000 + min(nth, _NS_SPREAD))
    return moments
