from __future__ import annotations

import json
from decimal import Decimal

import pytest

from connectors.venues.feeding import Notice, NoticeKind
from connectors.venues.registry import VENUES, build_instruments
from tests.decoding import rejects, rows
from tests.recorded import decode, decode_frames, recorded

BITFINEX = VENUES["bitfinex"]
LISTED = build_instruments(
    "bitfinex",
    [
        *("BTC/USD", "BFT/USD", "MANA/BTC", "SNGLS/USD", "IOTA/ETH", "DOG/USD", "ODEM/USD"),
        {"symbol": "TESTBTC/TESTUSD", "venue_symbol": "tTESTBTC:TESTUSD"},
    ],
)
FRAME = b'[17,"te",[669899160,1767225600000,-0.50,63076.985]]'
SUBSCRIBED = b'{"event":"subscribed","channel":"trades","chanId":17,"symbol":"tBTCUSD","pair":"BTCUSD"}'
PAST = b"[17,[[5,1767225600000,-0.5,3],[4,1767225599000,1e-7,2]],9]"


def test_the_past_trades_of_the_recording_are_found_under_their_symbols() -> None:
    frames = recorded("bitfinex", LISTED)
    decoded = decode("bitfinex", LISTED, frames)
    symbols, expected = {}, []
    for one in frames:
        d = json.loads(one.payload, parse_float=Decimal)
        if isinstance(d, dict) and d["event"] == "subscribed" and d["channel"] == "trades":
            symbols[d["chanId"]] = d["symbol"]
        elif isinstance(d, list) and d[0] in symbols and d[1] != "hb":
            expected += [(symbols[d[0]], *row) for row in d[1]]
    assert (len(expected), len({(s, i) for s, i, *_ in expected})) == (210, 210)
    listed = [i.venue_symbol for i in LISTED.listed]
    found = [
        (listed[r["symbol"]], r["trade_id"], r["time_us"] // 1000, r["quantity"] * (1 if r["is_buy"] else -1), r["price"])
        for r in rows(decoded.trades)
    ]
    assert (found, decoded.rejected) == (expected, [])
    assert decoded.trades.is_snapshot.all()
    confirmed = [s for one in frames for s in BITFINEX.confirmed_by(one.payload, LISTED)]
    assert sorted(confirmed) == sorted(i.canonical for i in LISTED.listed[1:])


def test_a_trade_counts_once_whatever_stands_behind_it() -> None:
    frames = [FRAME, FRAME.replace(b"te", b"tu"), FRAME[:-1] + b",133]", FRAME.replace(b"te", b"tu")[:-1] + b",134]", FRAME[:-2] + b",7]]"]
    decoded = decode_frames("bitfinex", LISTED, frames, "BTC-USD")
    assert (decoded.trades.row.tolist(), decoded.control_frames) == ([0, 2, 4], 2)
    assert rows(decoded.trades)[0] == {
        "row": 0,
        "symbol": 0,
        "trade_id": 669899160,
        "time_us": 1767225600000000,
        "event_us": 1767225600000000,
        "is_buy": False,
        "is_snapshot": False,
        "price": Decimal("63076.985"),
        "quantity": Decimal("0.5"),
        "quote_volume": Decimal("31538.4925"),
    }


def test_a_connection_names_its_channels() -> None:
    one, other = BITFINEX.router(), BITFINEX.router()
    assert one.symbols_in(FRAME, LISTED) == []
    assert one.symbols_in(SUBSCRIBED, LISTED) == []
    assert one.symbols_in(FRAME, LISTED) == one.symbols_in(PAST, LISTED) == ["BTC/USD"]
    assert other.symbols_in(FRAME, LISTED) == []
    for frame in (b'[17,"hb"]', b'[17,"tu",[1,2,3,4]]', b"[17,[1,2,3]]", b"[17,[]]", b"[17]", b'["17","te"]', b"[17", b'{"event":"info"}'):
        assert one.symbols_in(frame, LISTED) == []
    one.symbols_in(SUBSCRIBED.replace(b"tBTCUSD", b"tXYZUSD"), LISTED)
    assert one.symbols_in(FRAME, LISTED) == []
    one.symbols_in(SUBSCRIBED, LISTED)
    one.symbols_in(b'{"event":"unsubscribed","status":"OK","chanId":17}', LISTED)
    assert one.symbols_in(FRAME, LISTED) == []
    one.symbols_in(SUBSCRIBED.replace(b'"trades"', b'"ticker"'), LISTED)
    assert one.symbols_in(FRAME, LISTED) == []
    one.symbols_in(b'{"event":"subscribed","channel":"trades"}', LISTED)
    assert one.symbols_in(FRAME, LISTED) == []


def test_trades_of_a_channel_that_is_not_listed_are_refused() -> None:
    assert rejects(decode_frames("bitfinex", LISTED, [FRAME, PAST], "")) == [
        (0, "unknown_symbol"),
        (1, "unknown_symbol"),
        (1, "unknown_symbol"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"669899160", b'"669899160"', "bad_trade_id"),
        (b"1767225600000", b"1.5", "bad_time"),
        (b"-0.50", b"0", "bad_quantity"),
        (b"-0.50", b'"1"', "bad_quantity"),
        (b"-0.50", b"--1", "bad_json"),
        (b"63076.985", b"-1", "bad_price"),
        (b",63076.985", b"", "bad_frame"),
        (b",[669899160,1767225600000,-0.50,63076.985]", b"", "bad_frame"),
        (b'"te"', b'"xx"', "unknown_frame"),
        (b'"te"', b"5", "unknown_frame"),
        (b"[17", b'["17"', "bad_frame"),
        (FRAME, b"{}", "unknown_frame"),
        (FRAME, b"5", "bad_frame"),
    ],
)
def test_what_is_wrong_with_a_trade_is_named(old: bytes, new: bytes, reason: str) -> None:
    assert rejects(decode_frames("bitfinex", LISTED, [FRAME, FRAME.replace(old, new)], "BTC-USD")) == [(1, reason)]


@pytest.mark.parametrize(
    "frame",
    [
        b'[17,"hb"]',
        b'[17,"hb",127]',
        b'[17,"cs",-5]',
        b"[17,[0.068965,60157.3,0.0774,48578.5,0.001969,0.0262,0.076989,101459.3,0.0828,0.068961],1]",
        b"[17,[[0.000024,3,1.5],[0.000023,1,-2]]]",
        b"[17,[[0.000024,30,3,1.5]]]",
        b"[17,[]]",
        b'{"event":"pong","ts":1511545528111,"cid":1234}',
    ],
)
def test_other_frames_are_control_frames_and_say_nothing(frame: bytes) -> None:
    assert decode_frames("bitfinex", LISTED, [frame], "").control_frames == 1
    assert BITFINEX.notice(frame) is None


def test_symbols_are_spelled_as_the_venue_does() -> None:
    for canonical, spelling in {"BTC/USD": "tBTCUSD", "BTC/USDT": "tBTCUST", "DASH/USD": "tDSHUSD", "MATIC/USD": "tMATIC:USD"}.items():
        assert BITFINEX.venue_symbol(canonical) == spelling
        assert BITFINEX.canonical(spelling) == BITFINEX.canonical(canonical) == canonical
    assert BITFINEX.canonical("trxusd") == "TRX/USD"
    assert BITFINEX.canonical("?") is None


def test_a_channel_cannot_be_left_by_its_symbol() -> None:
    one, two = BITFINEX.subscriptions(LISTED.listed[:2], 1)
    assert json.loads(one.message) == {"event": "subscribe", "channel": "trades", "symbol": "tBTCUSD"}
    assert two.instruments == LISTED.listed[1:2]
    assert BITFINEX.unsubscriptions(LISTED.listed, 3) == []


ERROR = b'{"event":"error","msg":"symbol: invalid","code":10300,"channel":"trades","symbol":"tFOOBAR"}'


@pytest.mark.parametrize(
    ("frame", "notice"),
    [
        (SUBSCRIBED, Notice(NoticeKind.CONFIRMED, ("tBTCUSD",))),
        (SUBSCRIBED.replace(b'"trades"', b'"ticker"'), None),
        (ERROR, Notice(NoticeKind.REFUSED, ("tFOOBAR",), detail="symbol: invalid")),
        (b'{"event":"error","msg":"channel limit","code":10305}', Notice(NoticeKind.ERROR, detail="channel limit")),
        (b'{"event":"info","code":20051,"msg":"restart"}', Notice(NoticeKind.RECONNECT, detail="restart")),
        (b'{"event":"info","version":2,"platform":{"status":1}}', None),
        (b'[{"event":5}]', None),
        (FRAME, None),
    ],
)
def test_replies_are_understood(frame: bytes, notice: Notice | None) -> None:
    assert BITFINEX.notice(frame) == notice
