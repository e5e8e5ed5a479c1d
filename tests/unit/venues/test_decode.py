"""What holds for the frames of every venue."""

from __future__ import annotations

import pickle
from decimal import Decimal

import pytest

from connectors.venues.binance import scan_frames
from connectors.venues.registry import VENUES, build_instruments
from connectors.venues.scan import mark_other_channels
from market.instrument import Instruments
from market.rules import MAX_AHEAD_US, MIN_TIME_US
from tests import frames as f
from tests.decoding import assert_accounted, decode_slowly, rejects, rows

BINANCE = build_instruments("binance", ["BTC/USDT", "ETH/USDT"])
KRAKEN = build_instruments("kraken", ["BTC/USD", "ETH/USD"])
COINBASE = build_instruments("coinbase", ["BTC/USD", "ETH/USD"])


def btc(trade_id: int = 1, price: str = "2", quantity: str = "3", time_ms: int = f.NOW_MS, **more: bool) -> bytes:
    return f.binance_frame("BTCUSDT", trade_id, price, quantity, time_ms, **more)


def binance(frames: list[bytes], keys: str | list[str] = "BTC-USDT", **more: object):  # noqa: ANN201
    decoded = VENUES["binance"].decode(f.raw_batch("binance", frames, keys, **more), BINANCE)  # type: ignore[arg-type]
    assert_accounted(decoded, len(frames))
    return decoded


def kraken(trades: list[f.T], key: str = "BTC-USD"):  # noqa: ANN201
    decoded = VENUES["kraken"].decode(f.raw_batch("kraken", [f.kraken_frame(trades)], key), KRAKEN)
    assert_accounted(decoded, 1)
    return decoded


def test_empty_batches_decode() -> None:
    decoded = binance([])
    assert (len(decoded.trades), decoded.rejected, decoded.control_frames) == (0, [], 0)


@pytest.mark.parametrize(("exchange", "instruments"), [("binance", BINANCE), ("kraken", KRAKEN), ("coinbase", COINBASE)])
def test_records_of_our_own_are_no_frames(exchange: str, instruments: Instruments) -> None:
    batch = f.raw_batch(exchange, [b"{marker}", b"{}", b"{}", btc()], "BTC-USDT", kinds=["marker", None, "unfillable", "event"])
    decoded = VENUES[exchange].decode(batch, instruments)
    assert (len(decoded.trades), decoded.control_frames) == (0, 0)
    assert rejects(decoded) == [(1, "unknown_frame")]


@pytest.mark.parametrize("cut", [slice(0, 10), slice(3, 7), slice(9, 10)])
def test_slices_and_copies_from_other_processes_decode_alike(cut: slice) -> None:
    frames = [btc(i, f"{i + 1}.5") if i % 3 else b"[broken" for i in range(10)]
    whole = f.raw_batch("binance", frames, ["BTC-USDT"] * 9 + ["ETH-USDT"])
    part = type(whole)(whole.exchange, whole.topic, 0, "g", 10, whole.records.slice(cut.start, cut.stop - cut.start))
    again = pickle.loads(pickle.dumps(part))
    alone = VENUES["binance"].decode(part, BINANCE)
    assert rows(alone.trades) == rows(VENUES["binance"].decode(again, BINANCE).trades)
    expected = [r for r in rows(VENUES["binance"].decode(whole, BINANCE).trades) if cut.start <= r["row"] < cut.stop]
    assert [{**r, "row": r["row"] + cut.start} for r in rows(alone.trades)] == expected


def test_instruments_may_change_between_batches() -> None:
    batch = f.raw_batch("binance", [f.binance_frame("ETHUSDT", 1, "2", "3")], "ETH-USDT")
    assert VENUES["binance"].decode(batch, BINANCE).trades.symbol.tolist() == [1]
    assert VENUES["binance"].decode(batch, build_instruments("binance", ["ETH/USDT"])).trades.symbol.tolist() == [0]


def test_trades_of_a_frame_are_in_rows_and_frame_order_with_slow_frames_between() -> None:
    slow = btc(2).replace(b'"t":2', b'"t": 2')
    decoded = binance([btc(1), slow, b"{}", btc(3), slow])
    assert decoded.trades.row.tolist() == [0, 1, 3, 4]
    assert decoded.trades.trade_id.tolist() == [1, 2, 3, 2]
    assert rejects(decoded) == [(2, "unknown_frame")]


def test_a_frame_counts_for_its_key_only() -> None:
    trades = [f.T("BTC/USD", 1, "10", "1"), f.T("ETH/USD", 7, "20", "1"), f.T("BTC/USD", 2, "11", "1")]
    assert [r["trade_id"] for r in rows(kraken(trades).trades)] == [1, 2]
    assert [r["trade_id"] for r in rows(kraken(trades, "ETH-USD").trades)] == [7]


@pytest.mark.parametrize("key", ["ETH-USD", "", "XYZ-USD"])
def test_a_frame_without_its_key_is_rejected(key: str) -> None:
    decoded = kraken([f.T("BTC/USD", 1, "10", "1"), f.T("BTC/USD", 2, "10", "1")], key)
    assert rejects(decoded) == [(0, "key_mismatch")]
    assert "BTC/USD" in decoded.rejected[0].detail


@pytest.mark.parametrize("key", ["BTC-USD", "", "DOGE-USD"])
def test_trades_of_unlisted_symbols_are_rejected_one_by_one(key: str) -> None:
    decoded = kraken([f.T("DOGE/USD", 1, "10", "1"), f.T("BTC/USDT", 2, "10", "1")], key)
    assert rejects(decoded) == [(0, "unknown_symbol")] * 2
    assert [r.detail for r in decoded.rejected] == ["symbol 'DOGE/USD' is not listed", "symbol 'BTC/USDT' is not listed"]


def test_good_trades_of_a_frame_count_beside_bad_and_unlisted_ones() -> None:
    trades = [
        f.T("BTC/USD", 1, "0", "1"),
        f.T("DOGE/USD", 2, "1", "1"),
        f.T("BTC/USD", 3, "1", "1.1234567890123456789"),
        f.T("BTC/USD", 4, "1", "1"),
    ]
    decoded = kraken(trades)
    assert [r["trade_id"] for r in rows(decoded.trades)] == [4]
    assert rejects(decoded) == [(0, "bad_price"), (0, "unknown_symbol"), (0, "too_many_decimals")]


def test_a_bad_trade_of_the_key_makes_the_frame_its_own() -> None:
    decoded = kraken([f.T("BTC/USD", 1, "0", "1"), f.T("ETH/USD", 2, "1", "1")])
    assert rejects(decoded) == [(0, "bad_price")]


def test_trades_of_others_are_left_to_their_own_records_even_when_bad() -> None:
    decoded = kraken([f.T("BTC/USD", 1, "1", "1"), f.T("ETH/USD", 2, "0", "1")])
    assert (len(decoded.trades), decoded.rejected) == (1, [])


def test_times_are_plausible_up_to_an_hour_ahead_and_from_2009() -> None:
    ahead = f.NOW_MS + MAX_AHEAD_US // 1000
    decoded = binance(
        [
            btc(1, time_ms=ahead),
            btc(2, time_ms=ahead + 1),
            btc(3, time_ms=MIN_TIME_US // 1000),
            btc(4, time_ms=MIN_TIME_US // 1000 - 1),
            btc(5, time_ms=0),
        ]
    )
    assert decoded.trades.trade_id.tolist() == [1, 3]
    assert rejects(decoded) == [(1, "implausible_time"), (3, "implausible_time"), (4, "implausible_time")]
    assert "more than an hour ahead" in decoded.rejected[0].detail
    assert "before 2009" in decoded.rejected[1].detail


def test_the_append_time_stands_in_for_an_unknown_receive_time() -> None:
    late = btc(time_ms=f.NOW_MS + 7_200_000)
    decoded = binance([late, late], received_us=[None, f.NOW_US + 7_200_000_000])
    assert rejects(decoded) == [(0, "implausible_time")]


@pytest.mark.parametrize("received", [-1, 2**53, 2**63 - 1])
def test_times_are_judged_by_the_log_where_a_header_holds_no_time(received: int) -> None:
    ahead = btc(2, time_ms=f.NOW_MS + 7_200_000)
    assert rejects(binance([btc(1), ahead], received_us=[received] * 2)) == [(1, "implausible_time")]


@pytest.mark.parametrize(
    "event", [b'"E":0', b'"E":4070908800000', b'"E":"x"', b'"E":null', b'"E":-1', b'"e":"trade"', b'"E":99999999999999999999']
)
def test_a_bad_frame_time_costs_no_trade(event: bytes) -> None:
    frame = btc().replace(b'"E":%d' % (f.NOW_MS + 1), event)
    assert rows(binance([frame]).trades)[0]["event_us"] == f.NOW_US
    assert rows(binance([btc()]).trades)[0]["event_us"] == f.NOW_US + 1000


def test_quote_volume_is_rounded_half_even_at_scale_18() -> None:
    # 3 × 10^-18 × 0.5 = 1.5 × 10^-18, 1 × 10^-18 × 0.5 would be 0: that trade is out of range.
    decoded = binance([btc(1, "0.000000000000000003", "0.5"), btc(2, "0.000000000000000005", "0.5"), btc(3, "0.000000000000000001", "0.5")])
    assert [r["quote_volume"] for r in rows(decoded.trades)] == [Decimal("2E-18"), Decimal("2E-18")]
    assert rejects(decoded) == [(2, "out_of_range")]


@pytest.mark.parametrize(
    ("price", "quantity"), [("999999999999999", "999999999999999"), ("31622777", "31622777"), ("1000000000", "1000000")]
)
def test_a_product_of_ten_to_the_fifteenth_is_out_of_range(price: str, quantity: str) -> None:
    decoded = binance([btc(1, price, quantity), btc(2, "1", "999999999999999.999999999999999999")])
    assert rejects(decoded) == [(0, "out_of_range")]
    assert decoded.rejected[0].detail == f"price × quantity: {price} × {quantity}"
    assert rows(decoded.trades)[0]["quote_volume"] == Decimal("999999999999999.999999999999999999")


@pytest.mark.parametrize(
    ("exchange", "instruments", "mark"),
    [("binance", BINANCE, b'"trade"'), ("kraken", KRAKEN, b'"trade"'), ("coinbase", COINBASE, b'"market_trades"')],
)
def test_broken_frames_hold_nothing_for_files(exchange: str, instruments: Instruments, mark: bytes) -> None:
    for frame in (b"", b"{", mark, b'{"channel":' + mark + b"}", b"[" * 5000 + mark, b'{"e":' + mark + b',"s":["x"]}'):
        assert VENUES[exchange].symbols_in(frame, instruments) == []
        assert VENUES[exchange].event_times(frame) == []
        assert VENUES[exchange].confirmed_by(frame + b'"subscri', instruments) == []


PAIR = [f.T("BTC/USD", 1, "63501.9", "0.5", f.NOW_US - 17), f.T("BTC/USD", 2, "63501.9", "1", is_buy=False)]
DASHED = [f.T("BTC-USD", t.id, t.price, t.quantity, t.time_us, t.is_buy) for t in PAIR]


@pytest.mark.parametrize(
    ("exchange", "frame", "key"),
    [
        ("binance", f.binance_frame("BTCUSDT", 7, "5.25", "6"), "BTC-USDT"),
        ("binance", f.binance_frame("BTCUSDT", 7, "5.25", "6", combined=True), "BTC-USDT"),
        ("kraken", f.kraken_frame(PAIR), "BTC-USD"),
        ("coinbase", f.coinbase_frame(DASHED), "BTC-USD"),
    ],
)
def test_no_cut_or_missing_byte_is_misread(exchange: str, frame: bytes, key: str) -> None:
    instruments = {"binance": BINANCE, "kraken": KRAKEN, "coinbase": COINBASE}[exchange]
    damaged = [frame[:k] for k in range(len(frame))] + [frame[:k] + frame[k + 1 :] for k in range(len(frame))]
    damaged += [frame[:k] + bytes([other]) + frame[k + 1 :] for k in range(len(frame)) for other in b'"}],:0.a\\ \xff']
    batch = f.raw_batch(exchange, damaged, key)
    decoded, slow = VENUES[exchange].decode(batch, instruments), decode_slowly(VENUES[exchange], batch, instruments)
    assert_accounted(decoded, len(damaged))
    assert (rows(decoded.trades), decoded.rejected, decoded.control_frames) == (rows(slow.trades), slow.rejected, slow.control_frames)
    # No prefix of a frame is a frame.
    assert [r.row for r in decoded.rejected if r.row < len(frame)] == list(range(len(frame)))


def test_scanners_are_compiled_once_whatever_the_batch() -> None:
    # Every other memory layout would be compiled anew, for seconds, in the middle of a run.
    batch = f.raw_batch("binance", [btc(), b"{}"], "BTC-USDT")
    kinds = f.raw_batch("binance", [btc(), b"{}"], "BTC-USDT", kinds=["marker", None])
    for one in (f.raw_batch("binance", [], ""), batch, kinds, pickle.loads(pickle.dumps(batch)), f.raw_batch("binance", [b""], "")):
        VENUES["binance"].decode(one, BINANCE)
        assert [len(scanner.signatures) for scanner in (scan_frames, mark_other_channels) if hasattr(scanner, "signatures")] in ([1, 1], [])
