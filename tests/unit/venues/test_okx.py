from __future__ import annotations

import json
from decimal import Decimal

import pytest

from connectors.venues.envelope import wrap
from connectors.venues.feeding import Notice, NoticeKind, PageRequest, RestError, Wanted
from connectors.venues.registry import VENUES, build_instruments
from tests import frames as f
from tests.decoding import rejects, rows
from tests.recorded import decode, decode_frames, recorded

OKX = VENUES["okx"]
LISTED = build_instruments(
    "okx",
    [
        "BTC/USDT",
        {"symbol": "BTC/USD", "venue_symbol": "BTC-USD-220527"},
        {"symbol": "UNI/USD", "venue_symbol": "UNI-USD-SWAP"},
    ],
)
TRADE = b'{"instId":"BTC-USDT","tradeId":"338476308","px":"30243.5","sz":"0.001","side":"buy","ts":"1767225600000"}'
FRAME = b'{"arg":{"channel":"trades-all","instId":"BTC-USDT"},"data":[' + TRADE + b"]}"


def test_the_trades_of_the_recording_are_found() -> None:
    frames = recorded("okx", LISTED)
    decoded = decode("okx", LISTED, frames)
    documents = [json.loads(one.payload) for one in frames]
    trades = [t for d in documents if "data" in d and d["arg"]["channel"] == "trades" for t in d["data"]]
    assert (len(trades), decoded.rejected) == (39, [])
    assert [(r["trade_id"], r["time_us"], r["price"], r["quantity"], r["is_buy"]) for r in rows(decoded.trades)] == [
        (int(t["tradeId"]), int(t["ts"]) * 1000, Decimal(t["px"]), Decimal(t["sz"]), t["side"] == "buy") for t in trades
    ]
    ids = [r["trade_id"] for r in rows(decoded.trades) if r["symbol"] == 0]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    confirmed = [s for one in frames for s in OKX.confirmed_by(one.payload, LISTED)]
    assert confirmed == ["BTC/USD", "UNI/USD", "BTC/USDT"] * 2


@pytest.mark.parametrize("more", [b"", b',"count":"1","source":"0","seqId":1234'])
@pytest.mark.parametrize("channel", [b"trades", b"trades-all"])
def test_single_fills_of_both_channels_count(channel: bytes, more: bytes) -> None:
    frame = FRAME.replace(b"trades-all", channel).replace(b'"ts":"1767225600000"', b'"ts":"1767225600000"' + more)
    assert len(decode_frames("okx", LISTED, [frame], "BTC-USDT").trades) == 1


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"side":"buy"', b'"side":"buy","count":"3"', "merged_trade"),
        (b'"side":"buy"', b'"side":"buy","count":0', "merged_trade"),
        (b'"tradeId":"338476308"', b'"tradeId":"x"', "bad_trade_id"),
        (b'"px":"30243.5"', b'"px":30243.5', "bad_price"),
        (b'"sz":"0.001"', b'"sz":"-1"', "bad_quantity"),
        (b'"ts":"1767225600000"', b'"ts":1767225600000', "bad_time"),
        (b'"side":"buy"', b'"side":"Buy"', "bad_side"),
        (b'"channel":"trades-all"', b'"channel":[]', "unknown_frame"),
        (FRAME, b"5", "bad_frame"),
    ],
)
def test_what_is_wrong_with_a_trade_is_named(old: bytes, new: bytes, reason: str) -> None:
    assert rejects(decode_frames("okx", LISTED, [FRAME, FRAME.replace(old, new)], "BTC-USDT")) == [(1, reason)]


def test_a_pong_is_no_json_and_no_dead_letter() -> None:
    decoded = OKX.decode(f.raw_batch("okx", [b"pong", b'{"event":"subscribe","arg":{}}', FRAME], "BTC-USDT"), LISTED)
    assert (len(decoded.trades), decoded.rejected, decoded.control_frames) == (1, [], 2)


def test_requests_name_several_instruments() -> None:
    (subscription,) = OKX.subscriptions(LISTED.listed, 3)
    document = json.loads(subscription.message)
    assert (document["id"], document["op"]) == ("3", "subscribe")
    assert document["args"][1] == {"channel": "trades-all", "instId": "BTC-USD-220527"}
    (end,) = OKX.unsubscriptions(LISTED.listed, 4)
    assert json.loads(end.message)["op"] == "unsubscribe"


ACK = b'{"event":"subscribe","arg":{"channel":"trades-all","instId":"BTC-USDT"},"connId":"x"}'


@pytest.mark.parametrize(
    ("frame", "notice"),
    [
        (ACK, Notice(NoticeKind.CONFIRMED, ("BTC-USDT",))),
        (ACK.replace(b'"connId"', b'"id":"3","connId"'), Notice(NoticeKind.CONFIRMED, ("BTC-USDT",), 3)),
        (ACK.replace(b"trades-all", b"books"), None),
        (ACK.replace(b'"subscribe"', b'"unsubscribe"'), None),
        (
            b'{"event":"error","code":"60018","msg":"Wrong URL or channel:trades-all,instId:FOO-BAR doesn\'t exist.","connId":"x"}',
            Notice(NoticeKind.REFUSED, ("FOO-BAR",), detail="Wrong URL or channel:trades-all,instId:FOO-BAR doesn't exist."),
        ),
        (b'{"event":"error","id":"3","msg":"Illegal request","code":"60012"}', Notice(NoticeKind.REFUSED, (), 3, "Illegal request")),
        (b'{"event":"error","msg":"?"}', Notice(NoticeKind.ERROR, detail="?")),
        (b'{"event":"notice","code":"64008","msg":"restart soon"}', Notice(NoticeKind.RECONNECT, detail="restart soon")),
        (b'["event":', None),
        (b'["event":5]', None),
        (b'[{"event":5}]', None),
        (FRAME, None),
        (b"pong", None),
    ],
)
def test_replies_are_understood(frame: bytes, notice: Notice | None) -> None:
    assert OKX.notice(frame) == notice


def test_a_hole_is_asked_for_from_above() -> None:
    path = "/api/v5/market/history-trades?instId=BTC-USDT&type=1"
    hole, newest = (Wanted(first_id=5, last_id=last, after_us=0, rows=100) for last in (300, None))
    assert OKX.page_request(LISTED.listed[0], hole) == PageRequest(f"{path}&after=105&limit=100", 100)
    assert OKX.page_request(LISTED.listed[0], newest) == PageRequest(f"{path}&before=4&limit=100", 100)


def test_pages_of_past_trades_decode_as_frames_do() -> None:
    page = b'{"code":"0","msg":"","data":[' + TRADE.replace(b"6308", b"6309") + b"," + TRADE + b"]}"
    decoded = decode_frames("okx", LISTED, [wrap("/x", "BTC-USDT", page), wrap("/x", "BTC-USDT", b"[]"), FRAME], "BTC-USDT")
    assert decoded.trades.trade_id.tolist() == [338476309, 338476308, 338476308]
    assert rejects(decoded) == [(1, "bad_frame")]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"code": "0", "msg": "", "data": []}, None),
        (
            {"code": "51001", "msg": "Instrument ID does not exist", "data": []},
            RestError("51001 Instrument ID does not exist", is_final=True),
        ),
        ({"code": "50011", "msg": "Too Many Requests"}, RestError("50011 Too Many Requests", is_final=False)),
        ({}, RestError("None ", is_final=False)),
        ([], None),
    ],
)
def test_errors_of_an_answer_are_seen(answer: object, error: RestError | None) -> None:
    assert OKX.rest_error(answer) == error
