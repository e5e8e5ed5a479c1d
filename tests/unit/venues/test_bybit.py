from __future__ import annotations

import json
from decimal import Decimal

import pytest

from connectors.venues.feeding import Notice, NoticeKind
from connectors.venues.registry import VENUES, build_instruments
from market.ids import id_texts
from market.instrument import Instrument
from tests import frames as f
from tests.decoding import rejects, rows
from tests.recorded import decode, decode_frames, recorded

BYBIT = VENUES["bybit"]
LISTED = build_instruments("bybit", ["BTC/USDT", "ETH/USDT", "SOL/USDT", "DOGE/USDT"])
LINEAR = build_instruments("bybit_linear", ["BTC/USDT", "ETH/USDT", "SOL/USDT", "DOGE/USDT"])
TRADE = b'{"i":"2290000001189048101","T":1767225600000,"p":"65140.5","v":"0.002705","S":"Buy","seq":112488547164,"s":"BTCUSDT","BT":false,"RPI":false}'
FRAME = b'{"topic":"publicTrade.BTCUSDT","ts":1767225600001,"type":"snapshot","data":[' + TRADE + b"]}"


def test_the_spot_trades_of_the_recording_are_found_and_those_of_contracts_refused() -> None:
    frames = recorded("bybit", LISTED)
    decoded = decode("bybit", LISTED, frames)
    documents = [json.loads(one.payload) for one in frames]
    trades = [(d["ts"], t) for d in documents if d.get("topic", "").startswith("publicTrade.") for t in d["data"]]
    spot = [(ts, t) for ts, t in trades if t["i"].isdigit()]
    assert (len(trades), len(spot)) == (158, 8)
    assert [
        (r["trade_id"], r["time_us"], r["event_us"], r["price"], r["quantity"], r["is_buy"], r["is_snapshot"]) for r in rows(decoded.trades)
    ] == [(int(t["i"]), t["T"] * 1000, ts * 1000, Decimal(t["p"]), Decimal(t["v"]), t["S"] == "Buy", False) for ts, t in spot]
    assert {reason for _, reason in rejects(decoded)} == {"bad_trade_id"}
    assert len(decoded.rejected) == 150


def test_the_trades_of_contracts_keep_their_uuids() -> None:
    frames = recorded("bybit_linear", LISTED)
    decoded = decode("bybit_linear", LINEAR, frames)
    documents = [json.loads(one.payload) for one in frames]
    trades = [t for d in documents if d.get("topic", "").startswith("publicTrade.") for t in d["data"] if not t["i"].isdigit()]
    assert decoded.trades.id_tail is not None
    texts = id_texts(decoded.trades.trade_id, decoded.trades.id_tail).to_pylist()
    assert (len(trades), texts) == (150, [t["i"] for t in trades])
    assert [(r["time_us"], r["price"], r["quantity"], r["is_buy"]) for r in rows(decoded.trades)] == [
        (t["T"] * 1000, Decimal(t["p"]), Decimal(t["v"]), t["S"] == "Buy") for t in trades
    ]
    assert [reason for _, reason in rejects(decoded)] == ["bad_trade_id"] * 8


@pytest.mark.parametrize(
    "text", ["A9188A0A-82BC-50DE-BE60-03EEDBE3CDD7", "a9188a0a-82bc-50de-ce60-03eedbe3cdd7", "a9188a0a82bc50debe6003eedbe3cdd7", "5"]
)
def test_other_ids_of_contracts_are_refused(text: str) -> None:
    good = FRAME.replace(b"2290000001189048101", b"a9188a0a-82bc-50de-be60-03eedbe3cdd7")
    decoded = decode_frames("bybit_linear", LINEAR, [good, FRAME.replace(b"2290000001189048101", text.encode())], "BTC-USDT")
    assert rejects(decoded) == [(1, "bad_trade_id")]
    assert decoded.trades.row.tolist() == [0]


def test_a_frame_may_hold_many_trades_of_its_symbol() -> None:
    several = b",".join(TRADE.replace(b"8101", b"%d" % n).replace(b"Buy", b"Sell") for n in range(8101, 8147))
    decoded = decode_frames("bybit", LISTED, [FRAME, FRAME.replace(TRADE, several)], "BTC-USDT")
    assert decoded.trades.trade_id.tolist() == [2290000001189048101, *range(2290000001189048101, 2290000001189048147)]
    assert decoded.trades.is_buy.tolist() == [True] + [False] * 46


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"2290000001189048101"', b'"9223372036854775808"', "bad_trade_id"),
        (b'"2290000001189048101"', b"2290000001189048101", "bad_trade_id"),
        (b'"p":"65140.5"', b'"p":65140.5', "bad_price"),
        (b'"v":"0.002705"', b'"v":"0"', "bad_quantity"),
        (b'"T":1767225600000', b'"T":"1767225600000"', "bad_time"),
        (b'"T":1767225600000', b'"T":17672256000000000', "bad_time"),
        (b'"S":"Buy"', b'"S":"buy"', "bad_side"),
        (b'"s":"BTCUSDT"', b'"s":"XRPUSDT"', "unknown_symbol"),
        (b'"s":"BTCUSDT"', b'"s":"ETHUSDT"', "key_mismatch"),
        (b'"data":[', b'"data":[[],', "bad_frame"),
        (b'"topic":"publicTrade.BTCUSDT"', b'"top":"publicTrade.BTCUSDT"', "unknown_frame"),
        (FRAME, b"[]", "bad_frame"),
        (FRAME, b'{"topic":"publicTrade.BTCUSDT","data":{}}', "bad_frame"),
    ],
)
def test_what_is_wrong_with_a_trade_is_named(old: bytes, new: bytes, reason: str) -> None:
    decoded = decode_frames("bybit", LISTED, [FRAME, FRAME.replace(old, new), FRAME], "BTC-USDT")
    assert rejects(decoded) == [(1, reason)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"2290000001189048101"', b'"9223372036854775807"'),
        (b'"ts":1767225600001,"type":"snapshot"', b'"type":"snapshot","ts":1767225600001'),
        (b'"ts":1767225600001,', b""),
        (b'"ts":1767225600001', b'"ts":"soon"'),
        (b'"p":"65140.5"', b'"p":"6.51405e4"'),
        (b',"RPI":false', b',"RPI":false,"new":"field"'),
        (b',"RPI":false', b',"RPI":null'),
    ],
)
def test_unusual_writing_is_read_all_the_same(old: bytes, new: bytes) -> None:
    decoded = decode_frames("bybit", LISTED, [FRAME, FRAME.replace(old, new)], "BTC-USDT")
    first, second = rows(decoded.trades)
    assert {**second, "row": 0, "trade_id": 0, "event_us": 0} == {**first, "trade_id": 0, "event_us": 0}
    assert second["event_us"] in (f.NOW_US, f.NOW_US + 1000)


@pytest.mark.parametrize(
    "frame",
    [
        b'{"success":true,"ret_msg":"pong","conn_id":"x","op":"ping"}',
        b'{"req_id":"","op":"pong","args":["1767225600000"],"conn_id":"x"}',
        b'{"topic":"tickers.BTCUSDT","ts":1,"type":"snapshot","data":{}}',
        b'{"topic":"kline.1.BTCUSDT","data":[],"ts":1,"type":"snapshot"}',
    ],
)
def test_other_frames_are_control_frames_and_say_nothing(frame: bytes) -> None:
    assert decode_frames("bybit", LISTED, [frame], "").control_frames == 1
    assert BYBIT.notice(frame) is None
    assert BYBIT.symbols_in(frame, LISTED) == []


def test_each_symbol_has_a_request_of_its_own() -> None:
    one, two = BYBIT.subscriptions(LISTED.listed[:2], 7)
    assert json.loads(one.message) == {"req_id": "7", "op": "subscribe", "args": ["publicTrade.BTCUSDT"]}
    assert (two.request, two.instruments) == (8, (Instrument("ETH/USDT", "ETHUSDT"),))
    (end,) = BYBIT.unsubscriptions(LISTED.listed[:1], 9)
    assert json.loads(end.message)["op"] == "unsubscribe"


@pytest.mark.parametrize(
    ("frame", "notice"),
    [
        (b'{"success":true,"ret_msg":"","conn_id":"x","req_id":"7","op":"subscribe"}', Notice(NoticeKind.CONFIRMED, request=7)),
        (b'{"success":true,"ret_msg":"subscribe","conn_id":"x","op":"subscribe"}', None),
        (
            b'{"success":false,"ret_msg":"Invalid symbol :[publicTrade.X]","conn_id":"x","req_id":"7","op":"subscribe"}',
            Notice(NoticeKind.REFUSED, request=7, detail="Invalid symbol :[publicTrade.X]"),
        ),
        (b'{"success":false,"ret_msg":"no","req_id":"8","op":"unsubscribe"}', Notice(NoticeKind.ERROR, request=8, detail="no")),
        (b'{"success":true,"req_id":"8","op":"unsubscribe"}', None),
        (FRAME, None),
        (b'["op":', None),
        (b'["op"]', None),
    ],
)
def test_replies_are_understood(frame: bytes, notice: Notice | None) -> None:
    assert BYBIT.notice(frame) == notice
