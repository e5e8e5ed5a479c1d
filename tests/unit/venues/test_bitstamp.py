from __future__ import annotations

import json
from decimal import Decimal

import pytest

from connectors.venues.feeding import Notice, NoticeKind
from connectors.venues.registry import VENUES, build_instruments
from tests.decoding import rejects, rows
from tests.recorded import decode, decode_frames, recorded

BITSTAMP = VENUES["bitstamp"]
LISTED = build_instruments("bitstamp", ["ETH/USD", "XRP/EUR", "BTC/USD"])
DATA = (
    b'{"id":216000477,"timestamp":"1767225600","amount":0.0792,"amount_str":"0.07920000","price":3805.44,"price_str":"3805.44","type":0,'
    b'"microtimestamp":"1767225600596000","buy_order_id":1443875737346049,"sell_order_id":1443875731320832}'
)
FRAME = b'{"data":' + DATA + b',"channel":"live_trades_ethusd","event":"trade"}'


def test_the_trades_of_the_recording_are_found() -> None:
    frames = recorded("bitstamp", LISTED)
    decoded = decode("bitstamp", LISTED, frames)
    trades = [d["data"] for d in (json.loads(one.payload) for one in frames) if d["event"] == "trade"]
    assert (len(trades), decoded.rejected) == (10, [])
    assert [(r["trade_id"], r["time_us"], r["price"], r["quantity"], r["is_buy"]) for r in rows(decoded.trades)] == [
        (t["id"], int(t["microtimestamp"]), Decimal(t["price_str"]), Decimal(t["amount_str"]), t["type"] == 0) for t in trades
    ]
    assert [s for one in frames for s in BITSTAMP.confirmed_by(one.payload, LISTED)] == ["ETH/USD", "XRP/EUR"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"id":216000477', b'"id":"216000477"', "bad_trade_id"),
        (b'"price_str":"3805.44"', b'"price_str":3805.44', "bad_price"),
        (b'"amount_str":"0.07920000"', b'"amount_str":"0.0"', "bad_quantity"),
        (b'"microtimestamp":"1767225600596000"', b'"microtimestamp":"1767225600"', "implausible_time"),
        (b'"microtimestamp":"1767225600596000"', b'"microtimestamp":1767225600596000', "bad_time"),
        (b'"type":0', b'"type":2', "bad_side"),
        (b'"type":0', b'"type":"0"', "bad_side"),
        (b"live_trades_ethusd", b"live_trades_dogeusd", "unknown_symbol"),
        (b"live_trades_ethusd", b"live_trades_xrpeur", "key_mismatch"),
        (b"live_trades_ethusd", b"live_orders_ethusd", "unknown_frame"),
        (DATA, b"5", "bad_frame"),
        (FRAME, b"null", "bad_frame"),
    ],
)
def test_what_is_wrong_with_a_trade_is_named(old: bytes, new: bytes, reason: str) -> None:
    assert rejects(decode_frames("bitstamp", LISTED, [FRAME, FRAME.replace(old, new)], "ETH-USD")) == [(1, reason)]


@pytest.mark.parametrize(
    "frame",
    [
        b'{"event":"bts:heartbeat","channel":"","data":{"status":"success"}}',
        b'{"data":{"timestamp":"1641343691","bids":[]},"channel":"diff_order_book_batbtc","event":"data"}',
        b'{"event":"order_created","channel":"live_orders_btcusd","data":{}}',
        b'{"event":"bts:unsubscription_succeeded","channel":"live_trades_btcusd","data":{}}',
    ],
)
def test_other_frames_are_control_frames_and_say_nothing(frame: bytes) -> None:
    assert decode_frames("bitstamp", LISTED, [frame], "").control_frames == 1
    assert BITSTAMP.notice(frame) is None


def test_each_channel_has_a_request_of_its_own() -> None:
    messages = [json.loads(one.message) for one in BITSTAMP.subscriptions(LISTED.listed, 1)]
    assert [m["data"]["channel"] for m in messages] == ["live_trades_ethusd", "live_trades_xrpeur", "live_trades_btcusd"]
    assert {m["event"] for m in messages} == {"bts:subscribe"}
    assert "bts:unsubscribe" in BITSTAMP.unsubscriptions(LISTED.listed, 1)[0].message


@pytest.mark.parametrize(
    ("frame", "notice"),
    [
        (b'{"event":"bts:subscription_succeeded","channel":"live_trades_ethusd","data":{}}', Notice(NoticeKind.CONFIRMED, ("ethusd",))),
        (b'{"event":"bts:subscription_succeeded","channel":"diff_order_book_ethusd","data":{}}', None),
        (b'{"event":"bts:request_reconnect","channel":"","data":""}', Notice(NoticeKind.RECONNECT)),
        (
            b'{"event":"bts:error","channel":"live_trades_xyz","data":{"code":null,"message":"Bad subscription string."}}',
            Notice(NoticeKind.REFUSED, ("xyz",), detail="Bad subscription string."),
        ),
        (b'{"event":"bts:error","channel":"","data":""}', Notice(NoticeKind.REFUSED)),
        (b'["bts:"]', None),
        (b'{"bts:', None),
        (FRAME, None),
    ],
)
def test_replies_are_understood(frame: bytes, notice: Notice | None) -> None:
    assert BITSTAMP.notice(frame) == notice
