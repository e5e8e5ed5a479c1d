"""Exchanges as the far side of a socket, scripted: who is connected, what each has subscribed to, what goes wrong.

Three of them, one for each way to answer: by request id (Binance), one answer a symbol (Kraken), the whole state (Coinbase).
No I/O: `tests.live_wire` joins them to the driver in memory, an integration test over real sockets.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from connectors.venues.base import Venue
from connectors.venues.registry import venue
from market.instrument import Instrument, Instruments

SYMBOLS = ("BTC/USD", "ETH/USD", "SOL/USD", "XRP/USD", "ADA/USD", "DOT/USD", "LTC/USD", "UNI/USD")


@dataclass(eq=False)
class Session:
    """One connection, seen from the exchange."""

    number: int
    subscribed: set[str] = field(default_factory=set)
    heard: list[str] = field(default_factory=list)
    frames_sent: int = 0
    is_half_open: bool = False


class Exchange(ABC):
    """What the exchanges share: instruments, trades with ids from 1 for each symbol, faults."""

    exchange: str

    def __init__(self) -> None:
        self.venue: Venue = venue(self.exchange)
        listed = tuple(Instrument(symbol, self.venue.venue_symbol(symbol)) for symbol in SYMBOLS)
        self.instruments = Instruments(self.exchange, listed)
        self.sessions: list[Session] = []
        self.refused: set[str] = set()  # venue symbols
        self.is_mute = False  # answers nothing
        self.is_down = False  # refuses connections
        self.made = 0
        self.last_id: dict[str, int] = {}

    def instruments_of(self, *symbols: str) -> list[Instrument]:
        return [self.instruments.listed[self.instruments.by_canonical[symbol]] for symbol in symbols]

    def connect(self) -> Session:
        self.made += 1
        session = Session(self.made)
        self.sessions.append(session)
        return session

    def disconnect(self, session: Session) -> None:
        if session in self.sessions:
            self.sessions.remove(session)

    def hear(self, session: Session, text: str) -> list[bytes]:
        """Take a message; returns the frames that answer it."""
        session.heard.append(text)
        frames = self.answers(session, json.loads(text))
        return [] if self.is_mute else frames

    @abstractmethod
    def answers(self, session: Session, message: dict[str, Any]) -> list[bytes]:
        """Return the frames that answer a message."""

    def next_trade(self, symbol: str) -> int:
        """Return the id of a new trade of a venue symbol."""
        self.last_id[symbol] = self.last_id.get(symbol, 0) + 1
        return self.last_id[symbol]

    @abstractmethod
    def trade(self, session: Session, symbol: str, number: int) -> bytes:
        """Return a frame with a trade of that id."""

    @abstractmethod
    def heartbeat(self, session: Session) -> bytes | None:
        """Return the frame that says the venue lives, if it sends any."""

    def trades_in(self, frame: bytes) -> list[tuple[str, int]]:
        """Return (venue symbol, id) of each trade of a frame."""
        items = self.venue.items(json.loads(frame)) or []
        return [(str(item.symbol), int(self._id(item.fields))) for item in items if hasattr(item, "fields")]

    def _id(self, fields: dict[str, Any]) -> Any:
        return fields.get("t", fields.get("trade_id"))


class BinanceLike(Exchange):
    exchange = "binance"
    shutdown = b'{"e":"serverShutdown","E":1700000000000}'

    def answers(self, session: Session, message: dict[str, Any]) -> list[bytes]:
        names = [stream.partition("@")[0].upper() for stream in message["params"]]
        if any(name in self.refused for name in names) and message["method"] == "SUBSCRIBE":
            return [json.dumps({"code": 2, "msg": "Invalid request", "id": message["id"]}).encode()]
        change = session.subscribed.update if message["method"] == "SUBSCRIBE" else session.subscribed.difference_update
        change(names)
        return [json.dumps({"result": None, "id": message["id"]}, separators=(",", ":")).encode()]

    def trade(self, session: Session, symbol: str, number: int) -> bytes:
        return b'{"e":"trade","E":1,"s":"%s","t":%d,"p":"1.00000000","q":"1.00000000","T":1,"m":true,"M":true}' % (symbol.encode(), number)

    def heartbeat(self, session: Session) -> bytes | None:
        return None


class KrakenLike(Exchange):
    exchange = "kraken"

    def answers(self, session: Session, message: dict[str, Any]) -> list[bytes]:
        if message["method"] == "ping":
            return [b'{"method":"pong","time_in":"2026-07-07T23:00:04.590753Z","time_out":"2026-07-07T23:00:04.590753Z"}']
        return [self._answer(session, message, symbol) for symbol in message["params"]["symbol"]]

    def _answer(self, session: Session, message: dict[str, Any], symbol: str) -> bytes:
        base = {"method": message["method"], "req_id": message["req_id"]}
        if message["method"] == "unsubscribe":
            session.subscribed.discard(symbol)
        elif symbol in self.refused:
            detail = f"Currency pair not supported {symbol}"
            return json.dumps({"error": detail, **base, "success": False, "symbol": symbol}).encode()
        else:
            session.subscribed.add(symbol)
        result = {"channel": "trade", "snapshot": True, "symbol": symbol}
        return json.dumps({**base, "result": result, "success": True}).encode()

    def trade(self, session: Session, symbol: str, number: int) -> bytes:
        return (
            b'{"channel":"trade","type":"update","data":[{"symbol":"%s","side":"buy","price":1.0,"qty":1.0,"ord_type":"limit",'
            b'"trade_id":%d,"timestamp":"2026-07-07T23:00:04.590753Z"}]}'
        ) % (symbol.encode(), number)

    def heartbeat(self, session: Session) -> bytes | None:
        return b'{"channel":"heartbeat"}' if session.subscribed else None


class CoinbaseLike(Exchange):
    exchange = "coinbase"

    def answers(self, session: Session, message: dict[str, Any]) -> list[bytes]:
        names = message.get("product_ids", [])
        bad = [name for name in names if name in self.refused and message["type"] == "subscribe"]
        if bad:
            return [json.dumps({"type": "error", "message": f"{bad[0]} is not a valid product"}).encode()]
        change = session.subscribed.update if message["type"] == "subscribe" else session.subscribed.difference_update
        change(names)
        state = {"heartbeats": ["heartbeats"]}
        if session.subscribed:
            state["market_trades"] = sorted(session.subscribed)
        return [self._frame(session, "subscriptions", [{"subscriptions": state}])]

    def trade(self, session: Session, symbol: str, number: int) -> bytes:
        fields = {"product_id": symbol, "trade_id": str(number), "price": "1", "size": "1"}
        trade = {**fields, "time": "2026-08-09T21:05:48.167634Z", "side": "SELL"}
        return self._frame(session, "market_trades", [{"type": "update", "trades": [trade]}])

    def heartbeat(self, session: Session) -> bytes | None:
        beat = {"current_time": "2026-08-09 21:05:48.854840045 +0000 UTC m=+41691.26", "heartbeat_counter": 1}
        return self._frame(session, "heartbeats", [beat])

    def _frame(self, session: Session, channel: str, events: list[dict[str, Any]]) -> bytes:
        head = {"channel": channel, "timestamp": "2026-08-09T21:05:48.228568804Z", "sequence_num": session.frames_sent}
        session.frames_sent += 1
        return json.dumps({**head, "events": events}, separators=(",", ":")).encode()


EXCHANGES = (BinanceLike, KrakenLike, CoinbaseLike)
