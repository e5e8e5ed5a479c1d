"""What four venues are told and what they say, as their protocols and recordings have it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from connectors.files.capture import read_capture
from connectors.pacing import Pacer
from connectors.venues.base import Venue
from connectors.venues.feeding import FeedRules, Notice, NoticeKind
from connectors.venues.registry import VENUES, build_instruments, venue
from market.instrument import Instrument

DATA = Path(__file__).parents[2] / "data"
CONFIRMED, REFUSED, RECONNECT, ERROR = NoticeKind.CONFIRMED, NoticeKind.REFUSED, NoticeKind.RECONNECT, NoticeKind.ERROR

LIVE = [name for name, found in VENUES.items() if found.feed is not None]
every_live_venue = pytest.mark.parametrize("exchange", LIVE)


def instruments(exchange: str, *symbols: str) -> list[Instrument]:
    return list(build_instruments(exchange, symbols).listed)


def rules(found: Venue) -> FeedRules:
    assert found.feed is not None
    return found.feed


def test_binance_asks_for_lower_case_streams_with_an_id() -> None:
    entries = ["BTC/USDT", {"symbol": "ETH/USDT", "stream": "aggTrade"}]
    listed = list(build_instruments("binance", entries).listed)
    (asked,) = venue("binance").subscriptions(listed, 7)
    assert json.loads(asked.message) == {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "ethusdt@aggTrade"], "id": 7}
    assert asked.request == 7
    (ended,) = venue("binance").unsubscriptions(listed[:1], 8)
    assert json.loads(ended.message) == {"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 8}


def test_kraken_always_says_whether_it_wants_a_snapshot() -> None:
    listed = instruments("kraken", "BTC/USD", "ETH/USD")
    (asked,) = venue("kraken").subscriptions(listed, 3)
    assert json.loads(asked.message) == {
        "method": "subscribe",
        "params": {"channel": "trade", "symbol": ["BTC/USD", "ETH/USD"], "snapshot": True},
        "req_id": 3,
    }
    (ended,) = venue("kraken").unsubscriptions(listed, 4)
    assert json.loads(ended.message) == {
        "method": "unsubscribe",
        "params": {"channel": "trade", "symbol": ["BTC/USD", "ETH/USD"]},
        "req_id": 4,
    }


def test_coinbase_asks_for_heartbeats_with_a_connection_s_first_messages() -> None:
    listed = instruments("coinbase", "BTC/USD", "ETH/USD")
    trades, beats = venue("coinbase").subscriptions(listed, 1)
    assert json.loads(trades.message) == {"type": "subscribe", "product_ids": ["BTC-USD", "ETH-USD"], "channel": "market_trades"}
    assert json.loads(beats.message) == {"type": "subscribe", "channel": "heartbeats"}
    assert beats.instruments == ()
    assert len(venue("coinbase").subscriptions(listed, 3)) == 1
    (ended,) = venue("coinbase").unsubscriptions(listed, 4)
    assert json.loads(ended.message) == {"type": "unsubscribe", "product_ids": ["BTC-USD", "ETH-USD"], "channel": "market_trades"}


@every_live_venue
def test_no_message_asks_for_more_than_the_venue_takes_and_none_is_forgotten(exchange: str) -> None:
    found = venue(exchange)
    size = rules(found).symbols_per_message
    listed = [Instrument(f"A{n}/USD", found.venue_symbol(f"A{n}/USD")) for n in range(2 * size + 1)]
    endings = [found.unsubscriptions] if found.unsubscriptions(listed, 1) else []  # or only a new connection ends them
    for make in (found.subscriptions, *endings):
        messages = make(listed, 1)
        assert all(len(message.instruments) <= size for message in messages)
        assert [instrument for message in messages for instrument in message.instruments] == listed
        numbers = [message.request for message in messages if message.instruments]
        assert numbers == [None] * len(numbers) or numbers == list(range(1, len(numbers) + 1))


@every_live_venue
def test_rules_make_sense(exchange: str) -> None:
    found = rules(venue(exchange))
    assert found.websocket_url.startswith("wss://")
    assert found.proof_seconds * 3 <= found.silence_seconds
    assert found.messages.count / found.messages.seconds > 1 / found.proof_seconds


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ('{"result":null,"id":12}', Notice(CONFIRMED, request=12)),
        ('{"result":["btcusdt@trade"],"id":3}', Notice(CONFIRMED, request=3)),
        (
            '{"code":2,"msg":"Invalid request: unknown method","id":5}',
            Notice(REFUSED, request=5, detail="2: Invalid request: unknown method"),
        ),
        ('{"error":{"code":2,"msg":"Invalid request"},"id":5}', Notice(REFUSED, request=5, detail="2: Invalid request")),
        ('{"code":3,"msg":"Invalid JSON"}', Notice(ERROR, detail="3: Invalid JSON")),
        ('{"e":"serverShutdown","E":1770123456789}', Notice(RECONNECT, detail="serverShutdown")),
        ('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}', Notice(RECONNECT, detail="serverShutdown")),
        ('{"e":"trade","E":1,"s":"BTCUSDT","t":1,"p":"1.0","q":"1.0","T":1,"m":true,"M":true}', None),
        ('{"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","t":1,"p":"1.0","q":"1.0","T":1,"m":true,"M":true}}', None),
        ('{"u":400900217,"s":"BNBUSDT","b":"25.35190000","B":"31.21000000","a":"25.36520000","A":"40.66000000"}', None),
        ("[]", None),
        ('{"result":nu', None),
    ],
)
def test_binance_says(frame: str, said: Notice | None) -> None:
    assert venue("binance").notice(frame.encode()) == said


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (
            '{"method":"subscribe","req_id":4,"result":{"channel":"trade","snapshot":true,"symbol":"BTC/USD"},"success":true}',
            Notice(CONFIRMED, ("BTC/USD",), 4),
        ),
        ('{"method":"subscribe","result":{"channel":"book","symbol":"BTC/USD"},"success":true}', None),
        ('{"method":"unsubscribe","req_id":4,"result":{"channel":"trade","symbol":"BTC/USD"},"success":true}', None),
        (
            '{"error":"Currency pair not supported DUMMY/USD","method":"subscribe","req_id":1,"success":false,"symbol":"DUMMY/USD"}',
            Notice(REFUSED, ("DUMMY/USD",), 1, "Currency pair not supported DUMMY/USD"),
        ),
        (
            '{"error":"Currency pair not supported DUMMY/USD","method":"subscribe","success":false}',
            Notice(REFUSED, ("DUMMY/USD",), None, "Currency pair not supported DUMMY/USD"),
        ),
        (
            '{"error":"Already subscribed to one or more symbols","method":"subscribe","req_id":2,"success":false,"symbol":"BTC/USD"}',
            Notice(CONFIRMED, ("BTC/USD",), 2, "Already subscribed to one or more symbols"),
        ),
        ('{"error":"Exceeded msg rate","method":"subscribe","success":false}', Notice(ERROR, detail="Exceeded msg rate")),
        ('{"channel":"status","type":"update","data":[{"version":"2.0.9","system":"online","api_version":"v2","connection_id":1}]}', None),
        ('{"channel":"status","type":"update","data":[{"system":"maintenance"}]}', Notice(ERROR, detail="system maintenance")),
        (
            '{"error":"EService:Unavailable","method":"subscribe","req_id":1,"success":false,"symbol":"BTC/USD"}',
            Notice(ERROR, ("BTC/USD",), 1, "EService:Unavailable"),
        ),
        ('{"channel":"heartbeat"}', None),
        ('{"method":"pong","time_in":"2026-07-07T23:00:04.590753Z","time_out":"2026-07-07T23:00:04.590761Z"}', None),
        ('{"channel":"trade","type":"update","data":[]}', None),
        ("[1]", None),
        ('{"channel":', None),
        ('{"channel":"status","data":7}', None),
    ],
)
def test_kraken_says(frame: str, said: Notice | None) -> None:
    assert venue("kraken").notice(frame.encode()) == said


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (
            '{"channel":"subscriptions","sequence_num":2,"events":[{"subscriptions":{"market_trades":["BTC-USD","ETH-USD"]}}]}',
            Notice(CONFIRMED, ("BTC-USD", "ETH-USD")),
        ),
        ('{"channel":"subscriptions","sequence_num":2,"events":[{"subscriptions":{"heartbeats":["heartbeats"]}}]}', None),
        (
            '{"type":"error","message":"GIBBERISH-USD is not a valid product"}',
            Notice(REFUSED, ("GIBBERISH-USD",), detail="GIBBERISH-USD is not a valid product"),
        ),
        (
            '{"type":"error","message":"Failed to subscribe","reason":"ABC-USD is not a valid product"}',
            Notice(REFUSED, ("ABC-USD",), detail="Failed to subscribe ABC-USD is not a valid product"),
        ),
        ('{"type":"error","message":"failure to subscribe"}', Notice(REFUSED, detail="failure to subscribe")),
        ('{"type":"error","message":"rate limit exceeded"}', Notice(ERROR, detail="rate limit exceeded")),
        ('{"channel":"heartbeats","client_id":"","sequence_num":1,"events":[]}', None),
        ('{"channel":"market_trades","sequence_num":1,"events":[]}', None),
        ('{"channel":"ticker","sequence_num":1,"events":[]}', None),
        ("7", None),
        ("{", None),
    ],
)
def test_coinbase_says(frame: str, said: Notice | None) -> None:
    assert venue("coinbase").notice(frame.encode()) == said


@pytest.mark.parametrize(
    ("frame", "number"),
    [
        ('{"channel":"market_trades","timestamp":"2026-08-09T21:05:48Z","sequence_num":17,"events":[]}', 17),
        ('{"channel":"heartbeats","sequence_num":0}', 0),
        ('{"type":"error","message":"failure to subscribe"}', None),
        ('{"sequence_num":null}', None),
        ('{"sequence_num":' + 5_000 * "1" + "}", None),
    ],
)
def test_coinbase_numbers_its_frames(frame: str, number: int | None) -> None:
    assert venue("coinbase").frame_number(frame.encode()) == number


@pytest.mark.parametrize("exchange", ["binance", "kraken"])
def test_other_venues_number_nothing(exchange: str) -> None:
    assert venue(exchange).frame_number(b'{"sequence_num":1}') is None
    assert not rules(venue(exchange)).numbers_frames


def test_the_recorded_connection_of_coinbase_is_unbroken_and_confirms_both_products() -> None:
    found = venue("coinbase")
    frames = [frame.payload for frame in read_capture(DATA / "coinbase" / "COINBASE_part1.jsonl.gz")]
    numbers = [number for frame in frames if (number := found.frame_number(frame)) is not None]
    assert numbers == list(range(585))
    notices = [notice for frame in frames if (notice := found.notice(frame)) is not None]
    assert notices[0] == Notice(CONFIRMED, ("BTC-USD", "ETH-USD"))
    assert {notice.kind for notice in notices} == {CONFIRMED}


def test_the_recorded_connection_of_kraken_confirms_each_pair_once() -> None:
    found = venue("kraken")
    frames = [frame.payload for frame in read_capture(DATA / "kraken" / "live-btc-eth_20260707.ndjson.gz")]
    notices = [notice for frame in frames if (notice := found.notice(frame)) is not None]
    assert sorted(notice.symbols for notice in notices) == [("BTC/USD",), ("ETH/USD",)]
    assert {notice.kind for notice in notices} == {CONFIRMED}


def test_no_recorded_frame_of_binance_says_anything_to_a_feed() -> None:
    found = venue("binance")
    frames = [frame.payload for frame in read_capture(DATA / "binance" / "btcusdt_20240808.gz")][:5_000]
    assert not any(found.notice(frame) for frame in frames)


@pytest.mark.parametrize(("exchange", "allowed"), [("binance", 5), ("binance_usdm", 10)])
def test_binance_s_message_limit_holds_also_where_messages_are_held_up_on_their_way(exchange: str, allowed: int) -> None:
    pacer, now, went = Pacer(rules(venue(exchange)).messages), 0.0, list[float]()
    while len(went) < 50:
        now += pacer.wait_seconds(now)
        pacer.take(now)
        went.append(now)
    for held_up_to in went:
        arrived = sorted(max(at, held_up_to) if held_up_to - 0.4 < at else at for at in went)
        assert all(later - earlier >= 1.0 for earlier, later in zip(arrived, arrived[allowed:], strict=False))
