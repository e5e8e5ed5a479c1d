from __future__ import annotations

import json
import re

from simulator.exchange import Conditions
from simulator.http import Reply, Request
from tests.unit.simulator.venue_double import START_US, Socket, binance

_TRADE = re.compile(
    r'\{"stream":"btcusdt@trade","data":\{"e":"trade","E":\d{13},"s":"BTCUSDT","t":\d+,"p":"\d+\.\d{8}","q":"\d+\.\d{8}",'
    r'"T":\d{13},"m":(true|false),"M":true\}\}'
)


def test_streams_of_the_url_are_sent_wrapped() -> None:
    venue = binance()
    client = venue.connect("/stream", streams="btcusdt@trade")
    venue.run(1)
    texts = client.texts()
    assert texts
    assert all(_TRADE.fullmatch(text) for text in texts)
    assert [json.loads(text)["data"]["t"] for text in texts] == venue.ids("BTC/USDT")


def test_subscriptions_are_acknowledged_and_trades_are_not_wrapped() -> None:
    venue = binance()
    client = venue.connect("/ws")
    client.say({"method": "SUBSCRIBE", "params": ["ethusdt@trade", "nosuch@trade"], "id": 7})
    assert client.texts() == ['{"result":null,"id":7}']
    venue.run(0.5)
    assert {event["s"] for event in client.heard()} == {"ETHUSDT"}
    client.say({"method": "LIST_SUBSCRIPTIONS", "id": 8})
    assert client.heard() == [{"result": ["ethusdt@trade", "nosuch@trade"], "id": 8}]
    client.say({"method": "UNSUBSCRIBE", "params": ["ethusdt@trade"], "id": "u"})
    assert client.heard() == [{"result": None, "id": "u"}]
    venue.run(0.5)
    assert client.texts() == []


def test_a_path_names_streams_and_times_may_be_in_microseconds() -> None:
    venue = binance()
    client = venue.connect("/ws/btcusdt@trade/ethusdt@trade", timeUnit="MICROSECOND")
    venue.run(0.5)
    events = client.heard()
    assert {event["s"] for event in events} == {"BTCUSDT", "ETHUSDT"}
    assert all(START_US <= event["T"] < START_US + 1_000_000 for event in events)


def test_what_is_no_request_is_an_error() -> None:
    venue = binance(conditions=Conditions(enforces_limits=False))
    client = venue.connect("/ws")
    client.say("not JSON")
    client.say({"method": "JUMP", "id": 1})
    client.say({"method": "SUBSCRIBE", "params": "btcusdt@trade", "id": 2})
    client.say({"method": "SUBSCRIBE", "params": ["x@trade"], "id": [1]})
    client.say({"method": "SUBSCRIBE", "params": [f"{n}@trade" for n in range(1025)], "id": 3})
    assert [(answer["code"], answer.get("id")) for answer in client.heard()] == [(3, None), (2, 1), (2, 2), (2, None), (2, 3)]


def test_the_combined_property_can_be_set() -> None:
    venue = binance(conditions=Conditions(enforces_limits=False))
    client = venue.connect("/ws/btcusdt@trade")
    for params in (["combined", True], ["combined", "yes"], ["other"]):
        client.say({"method": "SET_PROPERTY", "params": params, "id": 1})
    client.say({"method": "GET_PROPERTY", "params": ["combined"], "id": 2})
    assert [answer.get("code", answer.get("result")) for answer in client.heard()] == [None, 1, 0, True]
    venue.run(0.3)
    assert all("stream" in event for event in client.heard())


def test_too_many_messages_end_the_connection() -> None:
    client = binance().connect("/ws")
    for number in range(6):
        client.say({"method": "LIST_SUBSCRIPTIONS", "id": number})
    assert client.socket.ended == ["1008 too many messages"]


def test_too_many_connections_are_refused() -> None:
    venue = binance()
    for _ in range(300):
        venue.connect("/ws")
    refused = venue.exchange.connect(Request("GET", "/ws", {}, {}), "/ws", Socket())
    assert isinstance(refused, Reply)
    assert refused.status == 429
    assert int(refused.headers["Retry-After"]) > 290


def test_pings_must_be_answered() -> None:
    venue = binance(rate=1.0, conditions=Conditions(ping_seconds=2, pong_seconds=5))
    deaf, alive = venue.connect("/ws"), venue.connect("/ws")
    for _ in range(10):
        venue.run(1, tick=0.1)
        venue.exchange.ponged(alive.session)
    assert deaf.socket.ended == ["1008 no pong"]
    assert alive.socket.ended == []
    assert alive.socket.pings >= 4


def test_old_connections_are_cut() -> None:
    venue = binance(rate=1.0, conditions=Conditions(max_age_seconds=3))
    client = venue.connect("/ws")
    venue.run(2.9, tick=0.1)
    assert client.socket.ended == []
    venue.run(0.3, tick=0.1)
    assert client.socket.ended == ["1001 max age reached"]


def test_past_trades_come_by_id() -> None:
    venue = binance(rate=2000.0)
    client = venue.connect("/stream", streams="btcusdt@trade")
    venue.run(2)
    live = {event["data"]["t"]: event["data"] for event in client.heard()}
    ids = venue.ids("BTC/USDT")
    rows = venue.rest("/api/v3/historicalTrades", symbol="BTCUSDT", fromId=str(ids[3]), limit="5")
    assert [row["id"] for row in rows] == ids[3:8]
    for row in rows:
        event = live[row["id"]]
        assert (row["price"], row["qty"], row["time"], row["isBuyerMaker"]) == (event["p"], event["q"], event["T"], event["m"])
    assert len(venue.rest("/api/v3/historicalTrades", symbol="BTCUSDT", fromId="1", limit="5000")) == 1000
    assert [row["id"] for row in venue.rest("/api/v3/trades", symbol="BTCUSDT", limit="2")] == ids[-2:]
    assert venue.rest("/api/v3/historicalTrades", symbol="BTCUSDT", fromId=str(ids[-1] + 1)) == []


def test_candles_are_as_the_venue_writes_them() -> None:
    venue = binance(rate=2000.0)
    venue.run(3)
    (row, *_) = venue.rest("/api/v3/klines", symbol="BTCUSDT", interval="1m", startTime=str(START_US // 1000 // 60_000 * 60_000))
    trades = []
    while page := venue.rest("/api/v3/historicalTrades", symbol="BTCUSDT", fromId=str(1_000_000 + len(trades)), limit="1000"):
        trades += page
    minute = [t for t in trades if t["time"] // 60_000 * 60_000 == row[0]]
    assert row[1] == minute[0]["price"]
    assert row[2] == max((t["price"] for t in minute), key=float)
    assert row[4] == minute[-1]["price"]
    assert row[6] == row[0] + 59_999
    assert row[8] == len(minute)
    assert [type(value) for value in row] == [int, str, str, str, str, str, int, str, int, str, str, str]
    seconds = venue.rest("/api/v3/klines", symbol="BTCUSDT", interval="1s", limit="2")
    assert len(seconds) == 2
    assert seconds[1][0] - seconds[0][0] == 1000


def test_bad_rest_requests_are_refused_as_the_venue_does() -> None:
    venue = binance()
    for path, query, status in (
        ("/api/v3/trades", {"symbol": "NOPE"}, 400),
        ("/api/v3/trades", {}, 400),
        ("/api/v3/historicalTrades", {"symbol": "BTCUSDT", "fromId": "x"}, 400),
        ("/api/v3/klines", {"symbol": "BTCUSDT", "interval": "7m"}, 400),
        ("/api/v3/depth", {"symbol": "BTCUSDT"}, 404),
        ("/api/v1/trades", {"symbol": "BTCUSDT"}, 404),
    ):
        assert venue.exchange.answer(path, query).status == status, path
    assert venue.rest("/api/v3/ping") == {}
    assert venue.rest("/api/v3/time")["serverTime"] == START_US // 1000
    assert [s["symbol"] for s in venue.rest("/api/v3/exchangeInfo")["symbols"]] == ["BTCUSDT", "ETHUSDT"]


def test_weights_are_counted() -> None:
    venue = binance()
    venue.run(0.1)
    answers = [venue.exchange.answer("/api/v3/historicalTrades", {"symbol": "BTCUSDT", "fromId": "0"}) for _ in range(241)]
    assert [answer.status for answer in answers[:240]] == [200] * 240
    assert answers[239].headers["X-MBX-USED-WEIGHT-1M"] == "6000"
    assert answers[240].status == 429
    venue.now += 61
    assert venue.exchange.answer("/api/v3/ping", {}).status == 200
