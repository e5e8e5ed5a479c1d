from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

from simulator.exchange import Conditions
from simulator.faults import fault_of
from tests.unit.simulator.venue_double import START_US, Client, Venue

_TRADE = re.compile(
    r'\{"symbol":"[A-Z]+/USD","side":"(buy|sell)","price":\d+\.\d+,"qty":\d+\.\d{8},"ord_type":"(limit|market)","trade_id":\d+,'
    r'"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"\}'
)
RELAXED = Conditions(enforces_limits=False)


def subscribed(venue: Venue, *symbols: str, snapshot: bool = False) -> Client:
    client = venue.connect("/v2")
    client.say({"method": "subscribe", "params": {"channel": "trade", "symbol": list(symbols), "snapshot": snapshot}, "req_id": 3})
    return client


def trades_of(client: Client, kind: str = "update") -> list[dict[str, Any]]:
    return [trade for frame in client.heard() if frame.get("channel") == "trade" and frame["type"] == kind for trade in frame["data"]]


def test_status_then_one_answer_a_symbol() -> None:
    venue = Venue("kraken")
    status, first, second, third = subscribed(venue, "BTC/USD", "ETH/USD", "NO/USD").heard()
    assert status["channel"] == "status"
    assert status["data"][0]["system"] == "online"
    assert status["data"][0]["connection_id"] > 2**53
    assert list(first) == ["method", "req_id", "result", "success", "time_in", "time_out"]
    assert first["result"] == {"channel": "trade", "snapshot": False, "symbol": "BTC/USD"}
    assert second["result"]["symbol"] == "ETH/USD"
    assert (third["success"], third["symbol"], third["error"]) == (False, "NO/USD", "Currency pair not supported NO/USD")


def test_the_fills_of_an_order_come_in_one_frame_with_numbers_of_full_precision() -> None:
    venue = Venue("kraken")
    client = subscribed(venue, "BTC/USD")
    client.texts()
    venue.run(2)
    frames = [text for text in client.texts() if "trade_id" in text]
    ids: list[int] = []
    for frame in frames:
        body = frame.removeprefix('{"channel":"trade","type":"update","data":[').removesuffix("]}")
        assert all(_TRADE.fullmatch(text + "}") for text in body.removesuffix("}").split("},"))
        trades = json.loads(frame)["data"]
        assert len({trade["timestamp"] for trade in trades}) == 1
        ids += [trade["trade_id"] for trade in trades]
    assert ids == venue.ids("BTC/USD")
    assert len(frames) < len(ids)


def test_a_snapshot_holds_the_latest_fifty() -> None:
    venue = Venue("kraken")
    venue.run(2)
    client = subscribed(venue, "BTC/USD", snapshot=True)
    assert [trade["trade_id"] for trade in trades_of(client, "snapshot")] == venue.ids("BTC/USD")[-50:]
    venue.run(0.5)
    assert trades_of(client)[0]["trade_id"] > venue.ids("BTC/USD")[49]


def test_heartbeats_come_when_nothing_else_does() -> None:
    venue = Venue("kraken", rate=0.01)
    client, other = subscribed(venue, "BTC/USD"), venue.connect("/v2")
    client.texts(), other.texts()
    venue.run(5.5, tick=0.1)
    assert client.texts() == ['{"channel":"heartbeat"}'] * 5
    assert other.texts() == []
    venue.run(60, tick=0.5)
    assert other.socket.ended == ["1000 idle"]


def test_requests_that_cannot_be_served() -> None:
    venue = Venue("kraken", conditions=RELAXED)
    client = venue.connect("/v2")
    client.texts()
    client.say("{")
    client.say({"method": "dance", "req_id": 1})
    client.say({"method": "subscribe", "params": {"channel": "book", "symbol": ["BTC/USD"]}})
    client.say({"method": "subscribe", "params": {"channel": "trade", "symbol": "BTC/USD"}})
    assert [answer["success"] for answer in client.heard()] == [False] * 4
    client.say({"method": "ping", "req_id": 42})
    (pong,) = client.heard()
    assert (pong["method"], pong["req_id"]) == ("pong", 42)


def test_subscribing_twice_and_unsubscribing() -> None:
    venue = Venue("kraken")
    client = subscribed(venue, "BTC/USD", "BTC/USD")
    assert [answer.get("error") for answer in client.heard()[1:]] == [None, "Already subscribed"]
    client.say({"method": "unsubscribe", "params": {"channel": "trade", "symbol": ["BTC/USD", "ETH/USD"]}})
    done, failed = client.heard()
    assert done["result"] == {"channel": "trade", "symbol": "BTC/USD"}
    assert failed["success"] is False
    venue.run(0.5)
    assert client.texts() == []


def test_messages_beyond_the_limit_are_refused() -> None:
    venue = Venue("kraken")
    client = venue.connect("/v2")
    for _ in range(51):
        client.say({"method": "ping"})
    assert client.heard()[-1]["error"] == "Exceeded msg rate"


def test_trades_since_a_moment_miss_none() -> None:
    venue = Venue("kraken", rate=3000.0, conditions=RELAXED)
    client = subscribed(venue, "BTC/USD")
    venue.run(2)
    live = {trade["trade_id"]: trade for trade in trades_of(client)}
    found: list[list[Any]] = []
    since = "0"
    while True:
        result = venue.rest("/0/public/Trades", pair="XBTUSD", since=since, count="100")["result"]
        if not result["XXBTZUSD"]:
            break
        assert len(result["XXBTZUSD"]) >= 100 or result["XXBTZUSD"][-1][6] == venue.ids("BTC/USD")[-1]
        found += result["XXBTZUSD"]
        since = result["last"]
    assert [row[6] for row in found] == venue.ids("BTC/USD")
    for row in found:
        trade = live[row[6]]
        assert (float(row[0]), float(row[1])) == (trade["price"], trade["qty"])
        assert (row[3], row[4]) == (trade["side"][0], trade["ord_type"][0])


def test_latest_trades_without_a_moment() -> None:
    venue = Venue("kraken")
    venue.run(1)
    rows = venue.rest("/0/public/Trades", pair="BTC/USD", count="3")["result"]["XXBTZUSD"]
    assert [row[6] for row in rows] == venue.ids("BTC/USD")[-3:]


def test_candles_hold_empty_minutes_and_the_running_one() -> None:
    venue = Venue("kraken", rate=0.03, conditions=RELAXED)
    venue.run(600, tick=5)
    answer = venue.rest("/0/public/OHLC", pair="XBTUSD", interval="1")["result"]
    rows = answer["XXBTZUSD"]
    assert [b[0] - a[0] for a, b in pairwise(rows)] == [60] * (len(rows) - 1)
    assert answer["last"] == rows[-2][0]
    assert rows[-1][0] == (START_US // 1_000_000 + 600) // 60 * 60
    empty = [n for n, row in enumerate(rows) if row[7] == 0]
    assert empty
    for n in empty:
        assert rows[n][1:5] == [rows[n - 1][4]] * 4
        assert rows[n][5:7] == ["0.0", "0.00000000"]


def test_pairs_have_the_names_of_rest() -> None:
    venue = Venue("kraken", symbols=("BTC/USD", "ETH/USD", "DOGE/USD", "SOL/USD", "ETH/BTC"), conditions=RELAXED)
    pairs = venue.rest("/0/public/AssetPairs")["result"]
    assert {key: pair["wsname"] for key, pair in pairs.items()} == {
        "XXBTZUSD": "XBT/USD", "XETHZUSD": "ETH/USD", "XDGUSD": "XDG/USD", "SOLUSD": "SOL/USD", "XETHXXBT": "ETH/XBT",
    }  # fmt: skip
    assert venue.rest("/0/public/Trades", pair="XDGUSD")["error"] == []


def test_errors_come_with_status_200() -> None:
    venue = Venue("kraken", conditions=RELAXED)
    assert venue.rest("/0/public/Trades", pair="NOPE")["error"] == ["EQuery:Unknown asset pair"]
    assert venue.rest("/0/public/OHLC", pair="XBTUSD", interval="7")["error"] == ["EGeneral:Invalid arguments"]
    assert venue.rest("/0/public/Depth")["error"] == ["EGeneral:Unknown method"]
    assert venue.rest("/0/public/Time")["result"]["unixtime"] == START_US // 1_000_000
    assert venue.exchange.answer("/1/x", {}).status == 404


def test_requests_beyond_the_limit_are_refused() -> None:
    venue = Venue("kraken")
    answers = [venue.rest("/0/public/Time") for _ in range(16)]
    assert answers[14]["error"] == []
    assert answers[15]["error"] == ["EGeneral:Too many requests"]


def test_maintenance_is_told_by_the_status_frame() -> None:
    venue = Venue("kraken", faults=(fault_of({"kind": "maintenance", "at": 1, "seconds": 2, "exchange": "kraken"}),))
    client = subscribed(venue, "BTC/USD")
    venue.run(1.1)
    assert [frame["data"][0]["system"] for frame in client.heard() if frame.get("channel") == "status"] == ["online", "maintenance"]
    assert client.socket.ended == ["1001 maintenance"]
    venue.exchange.closed(client.session)
    late = subscribed(venue, "BTC/USD")
    status, refused = late.heard()
    assert status["data"][0]["system"] == "maintenance"
    assert refused["error"] == "EService:Unavailable"
    assert venue.rest("/0/public/Time")["error"] == ["EService:Unavailable"]
    venue.run(2)
    assert late.heard()[0]["data"][0]["system"] == "online"
    assert venue.rest("/0/public/Time")["error"] == []
