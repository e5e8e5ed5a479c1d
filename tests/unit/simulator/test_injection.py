from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest

from market.errors import ConfigError
from simulator.exchange import Conditions
from simulator.faults import parse_fault
from simulator.http import Reply
from tests.unit.simulator.venue_double import Client, Venue, binance, frames_of

STREAM = {"streams": "btcusdt@trade/ethusdt@trade"}


def ids_told(client: Client, symbol: str = "BTCUSDT") -> list[int]:
    return ids_of(client.texts(), symbol)


def ids_of(texts: Iterable[str], symbol: str = "BTCUSDT") -> list[int]:
    events = [json.loads(text).get("data", {}) for text in texts]
    return [event["t"] for event in events if event.get("e") == "trade" and event["s"] == symbol]


def with_fault(text: str, **options: Any) -> tuple[Venue, Client]:
    venue = binance(faults=(parse_fault(f"{text}:exchange=binance"),), **options)
    return venue, venue.connect("/stream", **STREAM)


def test_dropped_connections_end() -> None:
    venue, client = with_fault("drop@1:how=reset")
    other = venue.connect("/ws")
    venue.run(0.9)
    assert client.socket.ended == []
    venue.run(0.2)
    assert client.socket.ended == other.socket.ended == ["reset"]
    assert venue.records[0].connections == ["binance-0001", "binance-0002"]
    assert venue.records[0].end_us is not None


@pytest.mark.parametrize(("which", "hit"), [("oldest", [True, False]), ("newest", [False, True])])
def test_one_connection_can_be_chosen(which: str, hit: list[bool]) -> None:
    venue, client = with_fault(f"drop@1:how=close:connections={which}")
    other = venue.connect("/ws")
    venue.run(1.1)
    assert [bool(c.socket.ended) for c in (client, other)] == hit
    assert sum(bool(c.socket.ended) for c in (client, other)) == 1


def test_a_half_open_connection_says_nothing_until_it_is_reset() -> None:
    venue, client = with_fault("half_open@1:seconds=3")
    venue.run(1.1)
    assert client.socket.is_frozen
    client.texts()
    venue.run(1)
    assert client.texts() == []
    late = venue.connect("/stream", **STREAM)
    venue.run(1)
    assert ids_told(late)
    venue.run(1.2)
    assert client.socket.ended == ["reset"]
    assert late.socket.ended == []


def test_delayed_frames_arrive_whole_and_in_order() -> None:
    venue, client = with_fault("delay@1:seconds=1:by=0.7")
    venue.run(0.99)
    before = len(ids_told(client))
    venue.run(0.5)
    assert before > 0
    assert len(ids_told(client)) <= 2
    venue.run(3)
    tail = ids_told(client)
    assert tail == venue.ids("BTC/USDT")[-len(tail) :]
    assert len(tail) > 100


def test_control_frames_can_overtake_what_is_delayed() -> None:
    venue, client = with_fault("delay@0:seconds=5:by=2:control=no")
    venue.run(0.5)
    client.say({"method": "LIST_SUBSCRIPTIONS", "id": 1})
    assert [json.loads(text)["id"] for text in client.texts()] == [1]
    venue.run(4)
    told = ids_told(client)
    assert told
    assert told == venue.ids("BTC/USDT")[: len(told)]


def test_duplicated_frames_come_twice() -> None:
    venue, client = with_fault("duplicate@0:seconds=1")
    venue.run(0.9)
    told = ids_told(client)
    assert told == [number for number in venue.ids("BTC/USDT") for _ in range(2)]


def test_reordered_frames_all_arrive_within_the_window() -> None:
    venue, client = with_fault("reorder@0:seconds=2:window=0.3")
    venue.run(1.5)
    early = ids_told(client)
    assert early != sorted(early)
    assert set(early) >= set(venue.ids("BTC/USDT")[: len(early) // 2])
    venue.run(2)
    assert sorted(early + ids_told(client)) == venue.ids("BTC/USDT")


def test_fragmented_messages_are_whole() -> None:
    venue, client = with_fault("fragment@0:seconds=1")
    venue.run(0.5)
    pieces = frames_of(bytes(client.socket.data))
    assert len(pieces) > 2 * len(venue.ids("BTC/USDT"))
    messages = [b""]
    for first, payload in pieces:
        messages[-1] += payload
        if first & 0x80:
            messages.append(b"")
    assert ids_of(message.decode() for message in messages[:-1]) == venue.ids("BTC/USDT")
    client.socket.data.clear()
    venue.run(1)
    client.socket.data.clear()
    venue.run(0.5)
    assert all(first == 0x81 for first, _ in frames_of(bytes(client.socket.data)))


@pytest.mark.parametrize("kind", ["skip", "lost"])
def test_withheld_trades_reach_no_client(kind: str) -> None:
    venue, client = with_fault(f"{kind}@1:count=5:symbols=BTC/USDT")
    other = venue.connect("/stream", **STREAM)
    venue.run(2)
    told, all_ids = ids_told(client), venue.ids("BTC/USDT")
    ((first, last),) = venue.records[0].ids["BTC/USDT"]
    assert sorted(set(all_ids) - set(told)) == list(range(first, last + 1))
    assert last - first == 4
    assert ids_told(other) == told
    rows = venue.rest("/api/v3/historicalTrades", symbol="BTCUSDT", fromId=str(first), limit="1")
    assert rows[0]["id"] == (first if kind == "skip" else last + 1)


def test_one_connection_misses_what_others_get() -> None:
    venue, client = with_fault("miss@1:count=8:connections=oldest")
    other = venue.connect("/stream", **STREAM)
    venue.run(2)
    texts = client.texts(), other.texts()
    noted = {symbol: {n for first, last in ranges for n in range(first, last + 1)} for symbol, ranges in venue.records[0].ids.items()}
    for symbol in ("BTC/USDT", "ETH/USDT"):
        name = symbol.replace("/", "")
        assert ids_of(texts[1], name) == venue.ids(symbol)
        assert set(venue.ids(symbol)) - set(ids_of(texts[0], name)) == noted.get(symbol, set())
    assert sum(map(len, noted.values())) == 8


def test_the_same_seed_loses_the_same_trades_at_any_pace() -> None:
    lost = []
    for tick in (0.003, 0.7):
        venue = binance(faults=(parse_fault("lost@1.05:count=9:exchange=binance"),))
        venue.run(5, tick=tick)
        lost.append(venue.records[0].ids)
    assert lost[0] == lost[1] != {}


def test_a_symbol_that_nobody_names_is_one_that_trades() -> None:
    for seed in range(5):
        venue = binance(
            symbols=("BTC/USDT", "ETH/USDT", "SOL/USDT"), quiet=2, seed=seed, faults=(parse_fault("lost@0:count=1:exchange=binance"),)
        )
        venue.run(2)
        assert list(venue.records[0].ids) == ["BTC/USDT"]


def test_a_fault_about_an_unknown_symbol_is_refused() -> None:
    with pytest.raises(ConfigError, match="lists no 'XXX/USDT'"):
        binance(faults=(parse_fault("lost@0:symbols=XXX/USDT:exchange=binance"),))


def test_repeated_trades_come_again() -> None:
    venue, client = with_fault("repeat@1:count=10:symbols=BTC/USDT")
    venue.run(1.5)
    told = ids_told(client)
    assert len(told) - len(set(told)) == 10
    assert sorted(set(told)) == venue.ids("BTC/USDT")
    ((first, last),) = venue.records[0].ids["BTC/USDT"]
    assert last - first == 9


@pytest.mark.parametrize(("name", "path"), [("kraken", "/v2"), ("coinbase", "/")])
def test_snapshots_and_repeats_come_unasked(name: str, path: str) -> None:
    faults = tuple(parse_fault(f"{kind}@1:exchange={name}") for kind in ("snapshot", "repeat"))
    venue = Venue(name, faults=faults)
    client = venue.connect(path)
    if name == "kraken":
        client.say({"method": "subscribe", "params": {"channel": "trade", "symbol": ["BTC/USD", "ETH/USD"], "snapshot": False}})
    else:
        client.say({"type": "subscribe", "product_ids": ["BTC-USD", "ETH-USD"], "channel": "market_trades"})
    client.texts()
    venue.run(2)
    texts = client.texts()
    assert sum('"type":"snapshot"' in text for text in texts) == 2
    ids = [trade["trade_id"] for text in texts if "trade_id" in text for trade in _trades(json.loads(text), "update")]
    assert len(ids) - len(set(ids)) == 20


def _trades(frame: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    events = frame.get("events", [frame])
    return [trade for event in events if event["type"] == kind for trade in event.get("trades", event.get("data"))]


def test_malformed_frames_are_no_json_and_their_trades_are_known() -> None:
    venue, client = with_fault("malformed@1:count=6")
    venue.run(2)
    broken, good = [], []
    for text in client.texts():
        try:
            json.loads(text)
            good.append(text)
        except ValueError:
            broken.append(text)
    assert len(broken) == 6
    missing = {symbol: set(venue.ids(symbol)) - set(ids_of(good, symbol.replace("/", ""))) for symbol in ("BTC/USDT", "ETH/USDT")}
    noted = {symbol: {n for first, last in ranges for n in range(first, last + 1)} for symbol, ranges in venue.records[0].ids.items()}
    assert {symbol: ids for symbol, ids in missing.items() if ids} == noted


def test_shutdown_is_announced() -> None:
    venue, client = with_fault("shutdown@1:grace=2")
    venue.run(1.2)
    assert any(json.loads(text)["data"]["e"] == "serverShutdown" for text in client.texts())
    late = venue.connect("/ws")
    venue.run(2)
    assert client.socket.ended == ["1001 server shutdown"]
    assert late.socket.ended == []


def test_subscriptions_are_refused_so_often_and_no_longer() -> None:
    venue, _ = with_fault("subscribe_error@0:count=2:seconds=1", conditions=Conditions(enforces_limits=False))
    client = venue.connect("/ws")
    venue.run(0.1)
    for number in range(3):
        client.say({"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": number})
    assert ["code" in answer for answer in client.heard()] == [True, True, False]


@pytest.mark.parametrize("kind", ["subscribe_error", "rest_429", "slow_rest"])
def test_a_fault_can_bring_clients_to_meet_it(kind: str) -> None:
    venue, client = with_fault(f"{kind}@1:drop=yes")
    venue.run(1.2)
    assert client.socket.ended == ["reset"]


def test_refusals_end_with_their_number() -> None:
    venue, _ = with_fault("subscribe_error@0:count=1:seconds=1", conditions=Conditions(enforces_limits=False))
    client = venue.connect("/ws")
    venue.run(0.1)
    for number in range(2):
        client.say({"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": number})
    assert ["code" in answer for answer in client.heard()] == [True, False]
    assert venue.exchange.refused_subscriptions == 0


def test_the_venues_clock_jumps_with_the_trades_of_its_moment() -> None:
    venue, client = with_fault("clock_offset@1:by=0.5")
    start_us = venue.clock.start_us
    venue.run(2)
    assert venue.exchange.now_us() - venue.clock.now_us() == 500_000
    times = [json.loads(text)["data"]["T"] * 1000 - start_us for text in client.texts()]
    jump = max((b - a, a, b) for a, b in pairwise(times))
    assert jump[0] > 490_000
    assert jump[1] < 1_000_000 <= jump[2] - 500_000 + 10_000


def test_a_clock_set_back_never_reverses_trades() -> None:
    venue, client = with_fault("clock_offset@1:by=-0.5")
    venue.run(3)
    times = [json.loads(text)["data"]["T"] for text in client.texts() if "BTCUSDT" in text]
    assert times == sorted(times)
    assert venue.exchange.offset_us == -500_000


@pytest.mark.parametrize(
    ("text", "status"), [("rest_429@0:retry_after=2", 429), ("rest_418@0:retry_after=3", 418), ("rest_5xx@0:status=502", 502)]
)
def test_rest_fails_for_a_while(text: str, status: int) -> None:
    venue, _ = with_fault(f"{text}:seconds=2")
    venue.run(0.1)
    reply = venue.exchange.answer("/api/v3/ping", {})
    assert reply.status == status
    assert ("Retry-After" in reply.headers) is (status != 502)
    venue.run(2.5)
    assert venue.exchange.answer("/api/v3/ping", {}).status == 200


def test_slow_rest_answers_late_but_rightly() -> None:
    venue, _ = with_fault("slow_rest@0:by=1.5")
    venue.run(0.1)
    reply = venue.exchange.answer("/api/v3/ping", {})
    assert (reply.status, reply.body, reply.delay) == (200, b"{}", 1.5)


def test_maintenance_refuses_everybody() -> None:
    venue, client = with_fault("maintenance@1:seconds=2")
    venue.run(1.1)
    assert client.socket.ended == ["1001 maintenance"]
    refused = venue.exchange.connect(_request(), "/ws", client.socket)
    assert isinstance(refused, Reply)
    assert refused.status == 503
    assert venue.exchange.answer("/api/v3/ping", {}).status == 503
    venue.run(2)
    assert venue.exchange.answer("/api/v3/ping", {}).status == 200
    assert not isinstance(venue.exchange.connect(_request(), "/ws", client.socket), Reply)


def _request() -> Any:
    from simulator.http import Request

    return Request("GET", "/ws", {}, {})


def test_faults_are_in_the_books() -> None:
    venue, _ = with_fault("lost@1:count=2:symbols=ETH/USDT:seconds=1")
    venue.run(3)
    shown = venue.records[0].shown()
    assert shown["kind"] == "lost"
    assert shown["exchange"] == "binance"
    assert shown["symbols"] == ["ETH/USDT"]
    assert shown["options"] == {"seconds": "1", "count": "2"}
    assert shown["start_us"] == 1_000_000
    assert 2_000_000 <= shown["end_us"] < 2_100_000
    assert list(shown["ids"]) == ["ETH/USDT"]
