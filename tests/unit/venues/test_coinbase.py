from __future__ import annotations

from decimal import Decimal

import pytest

from connectors.venues.registry import VENUES, build_instruments
from market.trade import Decoded
from tests import frames as f
from tests.decoding import rejects, rows
from tests.recorded import decode_frames

COINBASE = VENUES["coinbase"]
LISTED = build_instruments("coinbase", ["BTC/USD", "ETH/USD"])


def decode(frames: list[bytes], key: str = "BTC-USD") -> Decoded:
    return decode_frames("coinbase", LISTED, frames, key)


def trade(trade_id: int = 1068572091, **more: object) -> f.T:
    return f.T("BTC-USD", trade_id, "65083.67", "0.01034361", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("client", [False, True])
def test_the_side_is_turned_from_maker_to_taker(client: bool) -> None:
    frame = f.coinbase_frame([trade(is_buy=True), trade(5, is_buy=False)], client=client)
    assert frame.index(b"SELL") < frame.index(b"BUY")
    assert rows(decode([frame]).trades)[0] == {
        "row": 0,
        "symbol": 0,
        "trade_id": 1068572091,
        "time_us": f.NOW_US,
        "event_us": f.NOW_US + 60_000,
        "is_buy": True,
        "is_snapshot": False,
        "price": Decimal("65083.67"),
        "quantity": Decimal("0.01034361"),
        "quote_volume": Decimal("673.2000998487"),
    }
    assert decode([frame]).trades.is_buy.tolist() == [True, False]


@pytest.mark.parametrize("fraction", [0, 500_000, 504_360, 167_634, 1])
def test_fractions_without_trailing_zeros(fraction: int) -> None:
    assert decode([f.coinbase_frame([trade(time_us=f.NOW_US - 1_000_000 + fraction)])]).trades.time_us.tolist() == [
        f.NOW_US - 1_000_000 + fraction
    ]


def test_snapshots_and_updates_of_one_frame() -> None:
    update, snapshot = f.coinbase_frame([trade(3), trade(2)]), f.coinbase_frame([trade(1)], kind="snapshot")
    start, end = update[: update.index(b"[{") + 1], b"]}"
    events = [frame[frame.index(b"[{") + 1 : -2] for frame in (snapshot, update)]
    both = start + b",".join(events) + end
    decoded = decode([both])
    assert decoded.trades.trade_id.tolist() == [1, 3, 2]
    assert decoded.trades.is_snapshot.tolist() == [True, False, False]
    assert len(COINBASE.event_times(both)) == 2


@pytest.mark.parametrize(
    "frame",
    [
        b'{"channel":"subscriptions","timestamp":"x","sequence_num":2,"events":[{"subscriptions":{"market_trades":["BTC-USD"]}}]}',
        b'{"channel":"heartbeats","timestamp":"x","sequence_num":35,"events":[{"current_time":"2026-08-09 21:05:48 +0000 UTC m=+1.2","heartbeat_counter":1}]}',
        b'{"sequence_num":6,"channel":"l2_data","events":[]}',
        b'{"channel":"ticker","timestamp":"x","sequence_num":6,"events":[]}',
        b'{"type":"error","message":"authentication failure"}',
        b'{"channel":"market_trades","timestamp":"x","sequence_num":6,"events":[]}',
        b'{"channel":"market_trades","timestamp":"x","sequence_num":6,"events":[{"type":"update","trades":[]}]}',
    ],
)
def test_other_frames_are_control_frames(frame: bytes) -> None:
    assert decode([frame], "").control_frames == 1
    assert COINBASE.symbols_in(frame, LISTED) == []


def test_acks_confirm_the_products_of_the_trade_channel() -> None:
    state = b'{"subscriptions":{"candles":["ETH-USD"],"market_trades":["ETH-USD","DOGE-USD","BTC-USD",5]}}'
    ack = b'{"channel":"subscriptions","timestamp":"x","sequence_num":2,"events":[%s]}'
    assert COINBASE.confirmed_by(ack % state, LISTED) == ["ETH/USD", "BTC/USD"]
    for body in (b"", b"5", b'{"subscriptions":5}', b'{"subscriptions":{"market_trades":5}}', b'{"subscriptions":{"ticker":["BTC-USD"]}}'):
        assert COINBASE.confirmed_by(ack % body, LISTED) == []
    assert COINBASE.confirmed_by((ack % state).replace(b'"subscriptions",', b'"other",'), LISTED) == []
    assert COINBASE.confirmed_by(b'["subscriptions"]', LISTED) == []


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"trade_id":"1068572091"', b'"trade_id":1068572091', "bad_trade_id"),
        (b'"trade_id":"1068572091"', b'"trade_id":"-5"', "bad_trade_id"),
        (b'"trade_id":"1068572091"', b'"trade_id":"1068572091x"', "bad_trade_id"),
        (b'"trade_id":"1068572091"', b'"trade_id":"9223372036854775808"', "bad_trade_id"),
        (b'"price":"65083.67"', b'"price":65083.67', "bad_price"),
        (b'"price":"65083.67"', b'"price":""', "bad_price"),
        (b'"size":"0.01034361"', b'"size":"0"', "bad_quantity"),
        (b'"size":"0.01034361"', b'"size":"1.0000000000000000001"', "too_many_decimals"),
        (b'"size":"0.01034361"', b'"size":"1000000000000000"', "out_of_range"),
        (b'"time":"2026-01-01T00:00:00Z"', b'"time":"2026-01-01T00:00:00"', "bad_time"),
        (b'"time":"2026-01-01T00:00:00Z"', b'"time":1767225600', "bad_time"),
        (b'"time":"2026-01-01T00:00:00Z"', b'"time":"0001-01-01T00:00:00.000000Z"', "implausible_time"),
        (b'"side":"SELL"', b'"side":"sell"', "bad_side"),
        (b'"side":"SELL"', b'"side":{}', "bad_side"),
        (b'"product_id":"BTC-USD"', b'"product_id":7', "bad_symbol"),
        (b'"product_id":"BTC-USD"', b'"product_id":"DOGE-USD"', "unknown_symbol"),
        (b'"product_id":"BTC-USD"', b'"product_id":"ETH-USD"', "key_mismatch"),
        (b'"type":"update"', b'"type":"changed"', "bad_frame"),
        (b'"trades":[', b'"trade":[', "bad_frame"),
        (b'"trades":[', b'"trades":[5,', "bad_frame"),
        (b'"events":[', b'"event":[', "bad_frame"),
        (b'"market_trades"', b'"market_trade"', "unknown_frame"),
        (b'"sequence_num":9', b'"sequence_num":09', "bad_json"),
    ],
)
def test_what_is_wrong_with_a_trade_is_named(old: bytes, new: bytes, reason: str) -> None:
    frame = f.coinbase_frame([trade()])
    assert old in frame
    decoded = decode([frame, frame.replace(old, new), frame])
    assert rejects(decoded) == [(1, reason)]
    assert set(decoded.trades.row.tolist()) - {1} == {0, 2}


@pytest.mark.parametrize("body", [b"5", b"null", b'"x"', b"[]"])
def test_events_that_are_none_are_bad_frames(body: bytes) -> None:
    frame = f.coinbase_frame([trade()])
    assert rejects(decode([frame.replace(b'"events":[', b'"events":[' + body + b",")])) == [(0, "bad_frame")]
    assert rejects(decode([body])) == [(0, "bad_frame")]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"65083.67"', b'"6.508367e4"'),
        (b'"timestamp":"', b'"timestamp": "'),
        (b'"sequence_num":9', b'"sequence_num":-9'),
        (b'"market_trades",', b'"market_trades","client_id":"me",'),
    ],
)
def test_unusual_writing_of_the_same_trade_is_read_all_the_same(old: bytes, new: bytes) -> None:
    frame = f.coinbase_frame([trade()])
    first, second = rows(decode([frame, frame.replace(old, new)]).trades)
    assert second == {**first, "row": 1}


def test_a_bad_frame_time_costs_no_trade() -> None:
    frame = f.coinbase_frame([trade()])
    stamp = frame[frame.index(b'"timestamp":"') : frame.index(b',"sequence')]
    for other in (b'"timestamp":"soon"', b'"timestamp":5', b'"timestamp":"0001-01-01T00:00:00Z"', b'"stamp":""'):
        assert decode([frame.replace(stamp, other)]).trades.event_us.tolist() == [f.NOW_US]
