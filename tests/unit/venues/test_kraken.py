from __future__ import annotations

from decimal import Decimal

import pytest

from connectors.venues.registry import VENUES, build_instruments
from market.trade import Decoded
from tests import frames as f
from tests.decoding import rejects, rows
from tests.recorded import decode_frames

KRAKEN = VENUES["kraken"]
LISTED = build_instruments("kraken", ["BTC/USD", "ETH/USD"])
ACK = b'{"method":"subscribe","result":{"channel":"trade","snapshot":false,"symbol":"ETH/USD"},"success":true,"time_in":"x","time_out":"y"}'


def decode(frames: list[bytes], key: str = "BTC-USD") -> Decoded:
    return decode_frames("kraken", LISTED, frames, key)


def trade(**more: object) -> f.T:
    return f.T("BTC/USD", 103436768, "63501.9", "0.00004134", **more)  # type: ignore[arg-type]


def test_numbers_are_read_from_their_text() -> None:
    frame = f.kraken_frame(
        [f.T("BTC/USD", 1, "63501.10", "0.1000000000000000055", f.NOW_US + 3), f.T("BTC/USD", 2, "9007199254740993", "1")]
    )
    exact = f.kraken_frame([f.T("BTC/USD", 3, "900719925474099.123456789012345678", "0.000000000000000001", is_buy=False)])
    decoded = decode([frame, exact])
    assert rejects(decoded) == [(0, "too_many_decimals"), (0, "out_of_range")]
    assert rows(decoded.trades) == [
        {
            "row": 1,
            "symbol": 0,
            "trade_id": 3,
            "time_us": f.NOW_US,
            "event_us": f.NOW_US,
            "is_buy": False,
            "is_snapshot": False,
            "price": Decimal("900719925474099.123456789012345678"),
            "quantity": Decimal("1E-18"),
            "quote_volume": Decimal("0.000900719925474099"),
            "ord_type": "limit",
        }
    ]


def test_snapshots_are_marked_and_give_no_event_times() -> None:
    live, old = f.kraken_frame([trade(), trade(time_us=f.NOW_US - 5)]), f.kraken_frame([trade()], kind="snapshot")
    assert decode([live, old]).trades.is_snapshot.tolist() == [False, False, True]
    assert KRAKEN.event_times(live) == [f.NOW_US, f.NOW_US - 5]
    assert KRAKEN.event_times(old) == []


def test_order_types_are_kept() -> None:
    frames = [f.kraken_frame([trade()], ord_type=kind) for kind in ("limit", "market", "stop-loss", "limit")]
    frames.append(frames[0].replace(b'"ord_type":"limit",', b""))
    frames.append(frames[0].replace(b'"limit"', b"5"))
    assert decode(frames).trades.vendor["ord_type"].to_pylist() == ["limit", "market", "stop-loss", "limit", None, None]


@pytest.mark.parametrize(
    "frame",
    [
        b'{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"online","api_version":"v2","connection_id":4421894013101914413}]}',
        b'{"channel":"heartbeat"}',
        b'{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":1.0,"qty":2.0}],"asks":[],"checksum":1}]}',
        b'{"type":"update","channel":"ticker","data":[]}',
        b'{"method":"pong","req_id":42,"time_in":"x","time_out":"y"}',
        b'{"error":"Currency pair not supported XBT/USD","method":"subscribe","success":false,"symbol":"XBT/USD"}',
        b'{"error":"Exceeded msg rate","success":false}',
        b'{"channel":"trade","type":"update","data":[]}',
        ACK,
    ],
)
def test_other_frames_are_control_frames(frame: bytes) -> None:
    assert decode([frame], "").control_frames == 1
    assert KRAKEN.symbols_in(frame, LISTED) == []


def test_only_the_ack_of_a_trade_subscription_confirms() -> None:
    assert KRAKEN.confirmed_by(ACK, LISTED) == ["ETH/USD"]
    for old, new in (
        (b"true", b"false"),
        (b'"trade"', b'"book"'),
        (b"ETH/", b"DOGE/"),
        (b'"subscribe"', b'"unsubscribe"'),
        (b'"ETH/USD"', b"5"),
    ):
        assert KRAKEN.confirmed_by(ACK.replace(old, new), LISTED) == []


def test_symbols_are_listed_once_and_in_frame_order() -> None:
    trades = [f.T(symbol, 1, "1", "1") for symbol in ("ETH/USD", "DOGE/USD", "BTC/USD", "ETH/USD")]
    assert KRAKEN.symbols_in(f.kraken_frame(trades), LISTED) == ["ETH/USD", "BTC/USD"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"trade_id":103436768', b'"trade_id":"103436768"', "bad_trade_id"),
        (b'"trade_id":103436768', b'"trade_id":1.5', "bad_trade_id"),
        (b'"price":63501.9', b'"price":"63501.9"', "bad_price"),
        (b'"price":63501.9', b'"price":-1', "bad_price"),
        (b'"price":63501.9', b'"price":1e-19', "too_many_decimals"),
        (b'"price":63501.9', b'"price":1e15', "out_of_range"),
        (b'"price":63501.9', b'"price":NaN', "bad_json"),
        (b'"price":63501.9', b'"price":063501.9', "bad_json"),
        (b'"qty":0.00004134', b'"qty":0.0', "bad_quantity"),
        (b'"qty":0.00004134,', b"", "bad_quantity"),
        (b'"side":"buy"', b'"side":"BUY"', "bad_side"),
        (b'"side":"buy"', b'"side":["buy"]', "bad_side"),
        (b"2026-01-01T", b"2026-01-01 ", "bad_time"),
        (b"2026-01-01T", b"2026-02-31T", "bad_time"),
        (b"2026-01-01T", b"1970-01-01T", "implausible_time"),
        (b"2026-01-01T", b"2099-01-01T", "implausible_time"),
        (b'"symbol":"BTC/USD"', b'"symbol":null', "bad_symbol"),
        (b'"symbol":"BTC/USD"', b'"symbol":"XBT/USD"', "unknown_symbol"),
        (b'"type":"update"', b'"type":"delete"', "bad_frame"),
        (b'"channel":"trade"', b'"channel":"trades"', "unknown_frame"),
        (b'"channel":"trade"', b'"channel":{"a":1}', "unknown_frame"),
    ],
)
def test_what_is_wrong_with_a_trade_is_named(old: bytes, new: bytes, reason: str) -> None:
    frame = f.kraken_frame([trade()])
    assert old in frame
    decoded = decode([frame, frame.replace(old, new), frame])
    assert rejects(decoded) == [(1, reason)]
    assert decoded.trades.row.tolist() == [0, 2]


@pytest.mark.parametrize("body", [b"5", b'{"a":1}', b"null", b'[5,"x"]', b"[[]]"])
def test_data_that_holds_no_trades_is_a_bad_frame(body: bytes) -> None:
    decoded = decode([b'{"channel":"trade","type":"update","data":' + body + b"}"])
    assert set(rejects(decoded)) == {(0, "bad_frame")}


@pytest.mark.parametrize(
    ("old", "new"), [(b"63501.9", b"6.35019e4"), (b"63501.9", b"63501.90000000000000000000"), (b'"price"', b' "price" '), (b"Z", b"+00:00")]
)
def test_unusual_writing_of_the_same_trade_is_read_all_the_same(old: bytes, new: bytes) -> None:
    frame = f.kraken_frame([trade()])
    first, second = rows(decode([frame, frame.replace(old, new)]).trades)
    assert second == {**first, "row": 1}
