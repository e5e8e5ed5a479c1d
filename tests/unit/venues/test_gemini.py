from __future__ import annotations

import json
from decimal import Decimal

import pytest

from connectors.venues.feeding import Notice, NoticeKind
from connectors.venues.registry import VENUES, build_instruments
from tests.decoding import rejects, rows
from tests.recorded import decode, decode_frames, recorded

GEMINI = VENUES["gemini"]
PERPETUALS = [{"symbol": f"{base}/USDC", "venue_symbol": f"{base}USDCPERP"} for base in ("SOL", "BTC", "ETH")]
LISTED = build_instruments("gemini", ["BTC/USD", "BTC/USDT", "SOL/USD", "ETH/USDT", "BTC/GBP", "ETH/USD", "BTC/EUR", *PERPETUALS])
FRAME = (
    b'{"event_id":1764551741926942,"price":"65206.29","quantity":"0.00007667","side":"buy","symbol":"BTCUSD",'
    b'"tid":2840141017904555,"timestamp":1767225600000,"type":"trade"}'
)
FIRST = b'{"auction_events":[],"changes":[["buy","1.0","2.0"]],"symbol":"BTCUSD","trades":[' + FRAME + b'],"type":"l2_updates"}'


def test_the_trades_of_the_recording_are_found() -> None:
    frames = recorded("gemini", LISTED)
    decoded = decode("gemini", LISTED, frames)
    documents = [json.loads(one.payload) for one in frames]
    trades = [t for d in documents for t in ([d] if d["type"] == "trade" else d.get("trades", ()))]
    assert (len(trades), int(decoded.trades.is_snapshot.sum()), decoded.rejected) == (812, 810, [])
    assert [(r["trade_id"], r["time_us"], r["price"], r["quantity"], r["is_buy"]) for r in rows(decoded.trades)] == [
        (t["tid"], t["timestamp"] * 1000, Decimal(t["price"]), Decimal(t["quantity"]), t["side"] == "buy") for t in trades
    ]
    notices = [notice for one in frames if (notice := GEMINI.notice(one.payload)) is not None]
    assert {notice.kind for notice in notices} == {NoticeKind.CONFIRMED}
    assert sorted(s for notice in notices for s in notice.symbols) == sorted(i.venue_symbol for i in LISTED.listed)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"side":"buy"', b'"side":"block"', "bad_side"),
        (b'"tid":2840141017904555', b'"tid":-1', "bad_trade_id"),
        (b'"price":"65206.29"', b'"price":65206.29', "bad_price"),
        (b'"quantity":"0.00007667"', b'"quantity":""', "bad_quantity"),
        (b'"timestamp":1767225600000', b'"timestamp":null', "bad_time"),
        (b'"symbol":"BTCUSD"', b'"symbol":"XXXUSD"', "unknown_symbol"),
        (b'"type":"trade"', b'"type":"trades"', "unknown_frame"),
        (b'"type":"trade"', b'"type":7', "unknown_frame"),
        (FRAME, b'"text"', "bad_frame"),
        (FRAME, b'{"type":"l2_updates","trades":{}}', "bad_frame"),
    ],
)
def test_what_is_wrong_with_a_trade_is_named(old: bytes, new: bytes, reason: str) -> None:
    assert rejects(decode_frames("gemini", LISTED, [FRAME, FRAME.replace(old, new)], "BTC-USD")) == [(1, reason)]


@pytest.mark.parametrize(
    "frame",
    [
        b'{"timestamp":1786313195331,"type":"heartbeat"}',
        b'{"changes":[["buy","65205.5","0.0"]],"symbol":"BTCUSD","type":"l2_updates"}',
        b'{"type":"l2_updates","symbol":"BTCUSD","changes":[]}',
        b'{"result":"ok"}',
    ],
)
def test_other_frames_are_control_frames_and_say_nothing(frame: bytes) -> None:
    assert decode_frames("gemini", LISTED, [frame], "").control_frames == 1
    assert GEMINI.notice(frame) is None


def test_only_live_trades_tell_of_delays() -> None:
    assert GEMINI.event_times(FRAME) == [1767225600000000]
    assert GEMINI.event_times(FIRST) == []
    assert GEMINI.symbols_in(FIRST, LISTED) == ["BTC/USD"]


def test_one_request_names_several_symbols() -> None:
    (subscription,) = GEMINI.subscriptions(LISTED.listed[:2], 1)
    assert json.loads(subscription.message) == {"type": "subscribe", "subscriptions": [{"name": "l2", "symbols": ["BTCUSD", "BTCUSDT"]}]}
    (end,) = GEMINI.unsubscriptions(LISTED.listed[:2], 2)
    assert json.loads(end.message)["type"] == "unsubscribe"


@pytest.mark.parametrize(
    ("frame", "notice"),
    [
        (FIRST, Notice(NoticeKind.CONFIRMED, ("BTCUSD",))),
        (FIRST.replace(FRAME, b""), Notice(NoticeKind.CONFIRMED, ("BTCUSD",))),
        (b'{"result":"error","reason":"InvalidJson","message":"bad"}', Notice(NoticeKind.REFUSED, detail="InvalidJson bad")),
        (b'{"result":"error"', None),
        (b'[{"trades":[]}]', None),
        (FRAME, None),
    ],
)
def test_a_symbols_first_frame_is_its_ack(frame: bytes, notice: Notice | None) -> None:
    assert GEMINI.notice(frame) == notice
