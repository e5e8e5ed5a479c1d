from __future__ import annotations

import re
from itertools import count
from typing import Any

from simulator.exchange import Conditions
from simulator.faults import fault_of
from tests.unit.simulator.venue_double import START_US, Client, Venue

RELAXED = Conditions(enforces_limits=False)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,5}[1-9])?Z")


def subscribed(venue: Venue, *products: str, heartbeats: bool = True) -> Client:
    client = venue.connect("/")
    client.say({"type": "subscribe", "product_ids": list(products), "channel": "market_trades"})
    if heartbeats:
        client.say({"type": "subscribe", "channel": "heartbeats"})
    return client


def trades_in(frames: list[Any], kind: str = "update") -> list[dict[str, Any]]:
    events = [event for frame in frames if frame["channel"] == "market_trades" for event in frame["events"]]
    return [trade for event in events if event["type"] == kind for trade in event["trades"]]


def test_snapshots_then_the_state_of_subscriptions() -> None:
    venue = Venue("coinbase")
    venue.run(2)
    frames = subscribed(venue, "BTC-USD", "ETH-USD").heard()
    assert [frame["channel"] for frame in frames] == ["market_trades", "market_trades", "subscriptions", "subscriptions"]
    assert [list(frame) for frame in frames] == [["channel", "timestamp", "sequence_num", "events"]] * 4
    assert frames[2]["events"] == [{"subscriptions": {"market_trades": ["BTC-USD", "ETH-USD"]}}]
    assert frames[3]["events"] == [{"subscriptions": {"heartbeats": ["heartbeats"], "market_trades": ["BTC-USD", "ETH-USD"]}}]
    trades = frames[0]["events"][0]["trades"]
    assert len(trades) == 100
    assert list(trades[0]) == ["product_id", "trade_id", "price", "size", "time", "side"]
    ids = [int(trade["trade_id"]) for trade in trades]
    assert ids == sorted(ids, reverse=True)


def test_updates_go_on_behind_the_snapshot_newest_first() -> None:
    venue = Venue("coinbase")
    venue.run(1.1)
    client = subscribed(venue, "BTC-USD")
    venue.run(3)
    frames = client.heard()
    newest = int(trades_in(frames, "snapshot")[0]["trade_id"])
    updates = [frame["events"][0]["trades"] for frame in frames if frame["events"][0].get("type") == "update"]
    told: list[int] = []
    for trades in updates:
        assert len({trade["product_id"] for trade in trades}) == 1
        ids = [int(trade["trade_id"]) for trade in trades]
        assert ids == sorted(ids, reverse=True)
        told += ids[::-1]
    assert told == list(range(newest + 1, newest + 1 + len(told)))
    assert any(len(trades) > 1 for trades in updates)


def test_frames_are_numbered_over_all_channels() -> None:
    venue = Venue("coinbase")
    client = subscribed(venue, "BTC-USD", "ETH-USD")
    venue.run(3.5)
    frames = client.heard()
    assert [frame["sequence_num"] for frame in frames] == list(range(len(frames)))
    beats = [frame["events"][0] for frame in frames if frame["channel"] == "heartbeats"]
    assert len(beats) == 3
    assert [b["heartbeat_counter"] - beats[0]["heartbeat_counter"] for b in beats] == [0, 1, 2]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{9} \+0000 UTC m=\+\d+\.\d+", beats[0]["current_time"])


def test_numbers_have_no_padding_and_sides_are_the_makers() -> None:
    venue = Venue("coinbase", rate=2000.0, conditions=RELAXED)
    client = subscribed(venue, "BTC-USD", "ETH-USD")
    venue.run(2)
    trades = trades_in(client.heard())
    assert all(_TIME.fullmatch(trade["time"]) for trade in trades)
    assert not any("." in trade[name] and trade[name].endswith("0") for trade in trades for name in ("price", "size"))
    tape = venue.exchange.tape.symbols[0]
    rows = tape.rows(0, tape.released)
    is_buy = dict(zip(rows.trade_id.tolist(), (rows.flags & 1).tolist(), strict=True))
    for trade in trades:
        if trade["product_id"] == "BTC-USD":
            assert trade["side"] == ("SELL" if is_buy[int(trade["trade_id"])] else "BUY")


def test_a_second_subscription_changes_nothing_and_an_end_is_told() -> None:
    venue = Venue("coinbase")
    client = subscribed(venue, "BTC-USD", heartbeats=False)
    client.texts()
    client.say({"type": "subscribe", "product_ids": ["BTC-USD"], "channel": "market_trades"})
    assert [frame["channel"] for frame in client.heard()] == ["subscriptions"]
    client.say({"type": "unsubscribe", "product_ids": ["BTC-USD"], "channel": "market_trades"})
    assert client.heard()[0]["events"] == [{"subscriptions": {}}]
    venue.run(1)
    assert client.texts() == []


def test_errors() -> None:
    venue = Venue("coinbase", conditions=RELAXED)
    client = venue.connect("/")
    for document in (
        "{",
        {"type": "subscribe", "channel": "level2", "product_ids": ["BTC-USD"]},
        {"type": "subscribe", "channel": "market_trades"},
        {"type": "subscribe", "channel": "market_trades", "product_ids": ["BTC-USD", "NO-USD"]},
    ):
        client.say(document)
    answers = client.heard()
    assert [answer["type"] for answer in answers] == ["error"] * 4
    assert "NO-USD" in answers[3]["message"]
    assert client.session.wanted == 0


def test_a_connection_must_subscribe_and_have_something_to_hear() -> None:
    venue = Venue("coinbase", rate=0.001, conditions=RELAXED)
    silent, quiet, beating = venue.connect("/"), subscribed(venue, "BTC-USD", heartbeats=False), subscribed(venue, "BTC-USD")
    venue.run(5.2, tick=0.1)
    assert silent.socket.ended == ["1008 no subscription in time"]
    venue.run(90, tick=0.5)
    assert quiet.socket.ended == ["1000 no updates"]
    assert beating.socket.ended == []


def test_messages_beyond_the_limit_are_refused() -> None:
    venue = Venue("coinbase")
    client = venue.connect("/")
    for _ in range(9):
        client.say({"type": "subscribe", "channel": "heartbeats"})
    assert client.heard()[-1] == {"type": "error", "message": "rate limit exceeded"}


def test_past_trades_by_id_newest_first() -> None:
    venue = Venue("coinbase", rate=2000.0, conditions=RELAXED)
    venue.run(3)
    ids = venue.ids("BTC/USD")
    found: list[int] = []
    after = ids[-1] + 1
    for _ in count():
        page = venue.rest("/products/BTC-USD/trades", after=str(after), limit="1000")
        if not page:
            break
        found += [row["trade_id"] for row in page]
        after = found[-1]
    assert found[::-1] == ids
    newer = venue.rest("/products/BTC-USD/trades", before=str(ids[-4]))
    assert [row["trade_id"] for row in newer] == ids[:-4:-1]
    older = venue.exchange.answer("/products/BTC-USD/trades", {"after": str(ids[10]), "limit": "3"})
    assert (older.headers["CB-BEFORE"], older.headers["CB-AFTER"]) == (str(ids[9]), str(ids[7]))
    newest_of_those = venue.rest("/products/BTC-USD/trades", before=str(ids[0]), limit="2")
    assert [row["trade_id"] for row in newest_of_those] == [ids[-1], ids[-2]]


def test_ticker_and_candles() -> None:
    venue = Venue("coinbase", conditions=RELAXED)
    venue.run(3)
    base, now = "/api/v3/brokerage/market/products", START_US // 1_000_000
    ids = venue.ids("BTC/USD")
    ticker = venue.rest(f"{base}/BTC-USD/ticker", limit="2")
    assert [int(trade["trade_id"]) for trade in ticker["trades"]] == [ids[-1], ids[-2]]
    spanned = venue.rest(f"{base}/BTC-USD/ticker", limit="1000", start=str(now + 1), end=str(now + 2))["trades"]
    assert 0 < len(spanned) < len(ids)
    candles = venue.rest(f"{base}/BTC-USD/candles", granularity="ONE_DAY", start=str(now - 86_400), end=str(now + 60))["candles"]
    assert list(candles[0]) == ["start", "low", "high", "open", "close", "volume"]
    assert {product["product_id"] for product in venue.rest(base)["products"]} == {"BTC-USD", "ETH-USD"}
    assert venue.exchange.answer(f"{base}/NO-USD/ticker", {}).status == 404
    assert venue.exchange.answer(f"{base}/BTC-USD/candles", {"granularity": "ONE_MINUTE", "start": "0", "end": str(now)}).status == 400
    assert venue.exchange.answer(f"{base}/BTC-USD/candles", {"start": "0", "end": "1"}).status == 400
    assert venue.exchange.answer("/products/BTC-USD/book", {}).status == 404
    assert venue.exchange.answer("/nothing", {}).status == 404


def test_requests_beyond_the_limit_are_refused() -> None:
    venue = Venue("coinbase")
    answers = [venue.exchange.answer("/products/BTC-USD/trades", {}) for _ in range(11)]
    assert [answer.status for answer in answers] == [200] * 10 + [429]


def test_skipped_frames_leave_a_hole_in_the_numbers_and_lost_trades_do_not() -> None:
    for kind, jumps in (("skip", True), ("lost", False)):
        fault = fault_of({"kind": kind, "at": 1, "count": 3, "symbols": ["BTC/USD"], "exchange": "coinbase"})
        venue = Venue("coinbase", faults=(fault,))
        client = subscribed(venue, "BTC-USD")
        venue.run(3)
        frames = client.heard()
        numbers = [frame["sequence_num"] for frame in frames]
        assert (numbers != list(range(len(numbers)))) is jumps
        told = {int(trade["trade_id"]) for trade in trades_in(frames)}
        ((first, last),) = venue.records[0].ids["BTC/USD"]
        assert told.isdisjoint(range(first, last + 1))
        assert last - first == 2
