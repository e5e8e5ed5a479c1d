"""The exchanges that are read by a table, as the far side of a socket: they answer and trade as their documentation says."""

from __future__ import annotations

import json
from typing import Any

from tests.live_exchange import Exchange, Session

_MS = 1_700_000_000_000


def _text(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


class BybitLike(Exchange):
    exchange = "bybit"

    def answers(self, session: Session, message: dict[str, Any]) -> list[bytes]:
        if message["op"] == "ping":
            return [_text({"success": True, "ret_msg": "pong", "conn_id": "x", "op": "ping"})]
        names = [topic.removeprefix("publicTrade.") for topic in message["args"]]
        answer = {"ret_msg": "", "conn_id": "x", "req_id": message["req_id"], "op": message["op"]}
        if message["op"] == "unsubscribe":
            session.subscribed.difference_update(names)
        elif any(name in self.refused for name in names):
            return [_text({"success": False, **answer, "ret_msg": f"Invalid symbol :{message['args']}"})]
        else:
            session.subscribed.update(names)
        return [_text({"success": True, **answer})]

    def trade(self, session: Session, symbol: str, number: int) -> bytes:
        row = {"i": str(number), "T": _MS, "p": "1.5", "v": "2", "S": "Buy", "seq": number, "s": symbol, "BT": False, "RPI": False}
        return _text({"topic": f"publicTrade.{symbol}", "ts": _MS, "type": "snapshot", "data": [row]})

    def heartbeat(self, session: Session) -> bytes | None:
        return None

    def _id(self, fields: dict[str, Any]) -> Any:
        return fields["i"]


class OkxLike(Exchange):
    exchange = "okx"

    def trades_in(self, frame: bytes) -> list[tuple[str, int]]:
        return [] if frame == b"pong" else super().trades_in(frame)

    def hear(self, session: Session, text: str) -> list[bytes]:
        if text == "ping":
            session.heard.append(text)
            return [] if self.is_mute else [b"pong"]
        return super().hear(session, text)

    def answers(self, session: Session, message: dict[str, Any]) -> list[bytes]:
        return [self._answer(session, message, arg) for arg in message["args"]]

    def _answer(self, session: Session, message: dict[str, Any], arg: dict[str, str]) -> bytes:
        name, more = arg["instId"], {"id": message["id"], "connId": "x"}
        if message["op"] == "unsubscribe":
            session.subscribed.discard(name)
        elif name in self.refused:
            text = f"Wrong URL or channel:trades-all,instId:{name} doesn't exist."
            return _text({"event": "error", "code": "60018", "msg": text, **more})
        else:
            session.subscribed.add(name)
        return _text({"event": message["op"], "arg": arg, **more})

    def trade(self, session: Session, symbol: str, number: int) -> bytes:
        row = {"instId": symbol, "tradeId": str(number), "px": "1.5", "sz": "2", "side": "buy", "ts": str(_MS)}
        return _text({"arg": {"channel": "trades-all", "instId": symbol}, "data": [row]})

    def heartbeat(self, session: Session) -> bytes | None:
        return None

    def _id(self, fields: dict[str, Any]) -> Any:
        return fields["tradeId"]


class GeminiLike(Exchange):
    exchange = "gemini"

    def answers(self, session: Session, message: dict[str, Any]) -> list[bytes]:
        names = message["subscriptions"][0]["symbols"]
        if message["type"] == "unsubscribe":
            session.subscribed.difference_update(names)
            return []
        if any(name in self.refused for name in names):
            return [_text({"result": "error", "reason": "InvalidSymbol", "message": "unknown symbol"})]
        session.subscribed.update(names)
        past = {"auction_events": [], "changes": [["buy", "1.0", "2.0"]]}
        return [_text({**past, "symbol": name, "trades": [], "type": "l2_updates"}) for name in names]

    def trade(self, session: Session, symbol: str, number: int) -> bytes:
        row = {"event_id": number, "price": "1.5", "quantity": "2", "side": "buy", "symbol": symbol, "tid": number}
        return _text({**row, "timestamp": _MS, "type": "trade"})

    def heartbeat(self, session: Session) -> bytes | None:
        return _text({"timestamp": _MS, "type": "heartbeat"})

    def _id(self, fields: dict[str, Any]) -> Any:
        return fields["tid"]


class BitstampLike(Exchange):
    exchange = "bitstamp"
    shutdown = b'{"event":"bts:request_reconnect","channel":"","data":""}'

    def answers(self, session: Session, message: dict[str, Any]) -> list[bytes]:
        channel = message["data"]["channel"]
        name = channel.removeprefix("live_trades_")
        if message["event"] == "bts:unsubscribe":
            session.subscribed.discard(name)
            return [_text({"event": "bts:unsubscription_succeeded", "channel": channel, "data": {}})]
        if name in self.refused:
            return [_text({"event": "bts:error", "channel": channel, "data": {"code": None, "message": "Bad subscription string."}})]
        session.subscribed.add(name)
        return [_text({"event": "bts:subscription_succeeded", "channel": channel, "data": {}})]

    def trade(self, session: Session, symbol: str, number: int) -> bytes:
        values = {"amount": 2.0, "amount_str": "2.00000000", "price": 1.5, "price_str": "1.5", "type": 0}
        row = {"id": number, "timestamp": str(_MS // 1000), **values, "microtimestamp": str(_MS * 1000)}
        return _text({"data": row, "channel": f"live_trades_{symbol}", "event": "trade"})

    def heartbeat(self, session: Session) -> bytes | None:
        return None

    def _id(self, fields: dict[str, Any]) -> Any:
        return fields["id"]


class BitfinexLike(Exchange):
    """Gives each subscription of a connection a number of its own; only a new connection ends one."""

    exchange = "bitfinex"
    shutdown = b'{"event":"info","code":20051,"msg":"Stopping. Please try to reconnect"}'

    def answers(self, session: Session, message: dict[str, Any]) -> list[bytes]:
        if message["event"] == "ping":
            return [_text({"event": "pong", "ts": _MS, "cid": 0})]
        name = message["symbol"]
        if name in self.refused:
            error = {"event": "error", "msg": "symbol: invalid", "code": 10300}
            return [_text({**error, "channel": "trades", "symbol": name})]
        session.subscribed.add(name)
        channel = self._channel(session, name)
        ack = {"event": "subscribed", "channel": "trades", "chanId": channel, "symbol": name, "pair": name[1:]}
        return [_text(ack), _text([channel, []])]

    def trade(self, session: Session, symbol: str, number: int) -> bytes:
        return _text([self._channel(session, symbol), "te", [number, _MS, -2, 1.5]])

    def heartbeat(self, session: Session) -> bytes | None:
        return None

    def trades_in(self, frame: bytes) -> list[tuple[str, int]]:
        document = json.loads(frame)
        return [(self._names()[document[0] % 100], document[2][0])] if isinstance(document, list) and document[1] == "te" else []

    def _names(self) -> list[str]:
        return [instrument.venue_symbol for instrument in self.instruments.listed]

    def _channel(self, session: Session, name: str) -> int:
        return session.number * 100 + self._names().index(name)


TABLE_EXCHANGES: dict[str, type[Exchange]] = {kind.exchange: kind for kind in (BybitLike, OkxLike, GeminiLike, BitstampLike, BitfinexLike)}
