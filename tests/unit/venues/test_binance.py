from __future__ import annotations

from decimal import Decimal

import pytest

from connectors.venues.registry import VENUES, build_instruments
from tests import frames as f
from tests.decoding import assert_accounted, decode_slowly, rejects, rows

SPOT = build_instruments("binance", ["BTC/USDT", {"symbol": "XRP/ETH", "stream": "aggTrade"}])
USDM = build_instruments("binance_usdm", ["BTC/USDT"])


def decode(frames: list[bytes], keys: str | list[str] = "BTC-USDT", exchange: str = "binance"):  # noqa: ANN201
    instruments = SPOT if exchange == "binance" else USDM
    batch = f.raw_batch(exchange, frames, keys)
    decoded, slow = VENUES[exchange].decode(batch, instruments), decode_slowly(VENUES[exchange], batch, instruments)
    assert_accounted(decoded, len(frames))
    assert (rows(decoded.trades), decoded.rejected, decoded.control_frames) == (rows(slow.trades), slow.rejected, slow.control_frames)
    return decoded


@pytest.mark.parametrize("combined", [False, True])
@pytest.mark.parametrize("orders", [False, True])
def test_a_trade_in_every_layout(combined: bool, orders: bool) -> None:
    frame = f.binance_frame("BTCUSDT", 3735683259, "61837.63000000", "0.02000000", f.NOW_MS, True, combined=combined, orders=orders)
    assert rows(decode([frame]).trades) == [
        {
            "row": 0,
            "symbol": 0,
            "trade_id": 3735683259,
            "time_us": f.NOW_US,
            "event_us": f.NOW_US + 1000,
            "is_buy": False,
            "is_snapshot": False,
            "price": Decimal("61837.63"),
            "quantity": Decimal("0.02"),
            "quote_volume": Decimal("1236.7526"),
        }
    ]


def test_a_buyer_who_was_the_maker_means_that_the_taker_sold() -> None:
    assert decode([f.binance_frame("BTCUSDT", 1, "1", "1", is_maker=m) for m in (True, False)]).trades.is_buy.tolist() == [False, True]


def test_times_of_sixteen_digits_are_microseconds() -> None:
    frame = f.binance_frame("BTCUSDT", 1, "1", "1").replace(str(f.NOW_MS).encode(), str(f.NOW_US + 7).encode())
    assert decode([frame]).trades.time_us.tolist() == [f.NOW_US + 7]
    assert VENUES["binance"].event_times(frame) == [f.NOW_US + 7]


def test_the_stream_of_the_instrument_chooses_between_trades_and_aggregates() -> None:
    frames = [
        f.binance_frame("BTCUSDT", 1, "1", "1"),
        f.binance_agg_frame("BTCUSDT", 2, "1", "1"),
        f.binance_frame("XRPETH", 3, "1", "1"),
        f.binance_agg_frame("XRPETH", 4, "1", "1", combined=True),
    ]
    decoded = decode(frames, ["BTC-USDT", "BTC-USDT", "XRP-ETH", "XRP-ETH"])
    assert decoded.trades.trade_id.tolist() == [1, 4]
    assert (decoded.rejected, decoded.control_frames) == ([], 2)
    assert [VENUES["binance"].symbols_in(frame, SPOT) for frame in frames] == [["BTC/USDT"], [], [], ["XRP/ETH"]]


@pytest.mark.parametrize(
    "frame",
    [
        b'{"result":null,"id":1}',
        b'{"result":["subscriptions"],"id":1}',
        b'{"result":["btcusdt@trade"],"id":"abc"}',
        b'{"code":2,"msg":"Invalid request","id":null}',
        b'{"error":{"code":2,"msg":"Invalid request"},"id":1}',
        b'{"e":"serverShutdown","E":1767225600000}',
        b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":1,"u":2,"b":[["1","2"]],"a":[]}}',
        b'{"stream":"btcusdt@bookTicker","data":{"u":5,"s":"BTCUSDT","b":"1","B":"2","a":"3","A":"4"}}',
        b'{"u":5,"s":"BTCUSDT","b":"1","B":"2","a":"3","A":"4"}',
        b'{"a":"3","A":"4", "u":5,"s":"BTCUSDT","b":"1","B":"2"}',
        b'{"lastUpdateId":1,"bids":[],"asks":[]}',
        b'{"e":"kline","E":1,"s":"DOGEUSDT","k":{}}',
        b'{"E":1,"e":"avgPrice","s":"BTCUSDT"}',
        b'[{"e":"24hrMiniTicker","s":"BTCUSDT"}]',
        b'{"stream":"!miniTicker@arr","data":[{"e":"24hrMiniTicker"},{"e":"24hrMiniTicker"}]}',
        b'{"data":[{"e":"markPriceUpdate"}],"stream":"!markPrice@arr"}',
    ],
)
@pytest.mark.parametrize("key", ["", "BTC-USDT"])
def test_other_frames_are_control_frames(frame: bytes, key: str) -> None:
    assert decode([frame], key).control_frames == 1
    assert VENUES["binance"].symbols_in(frame, SPOT) == []
    assert VENUES["binance"].confirmed_by(frame, SPOT) == []


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"t":7', b'"t":"7"', "bad_trade_id"),
        (b'"t":7', b'"t":-7', "bad_trade_id"),
        (b'"t":7', b'"t":9223372036854775808', "bad_trade_id"),
        (b'"t":7,', b"", "bad_trade_id"),
        (b'"p":"5"', b'"p":5', "bad_price"),
        (b'"p":"5"', b'"p":"-5"', "bad_price"),
        (b'"q":"6"', b'"q":"0.00000000"', "bad_quantity"),
        (b'"q":"6"', b'"q":{}', "bad_quantity"),
        (b'"q":"6"', b'"q":"6.0000000000000000001"', "too_many_decimals"),
        (b'"q":"6"', b'"q":"6e15"', "out_of_range"),
        (b'"T":1767225600000', b'"T":1767225600000.0', "bad_time"),
        (b'"T":1767225600000', b'"T":17672256000000000', "bad_time"),
        (b'"T":1767225600000', b'"T":4070908800000', "implausible_time"),
        (b'"m":false', b'"m":0', "bad_side"),
        (b'"m":false,', b"", "bad_side"),
        (b'"s":"BTCUSDT"', b'"s":5', "bad_symbol"),
        (b'"s":"BTCUSDT"', b'"s":"btcusdt"', "unknown_symbol"),
        (b'"s":"BTCUSDT"', b'"s":"XRPBTC"', "unknown_symbol"),
        (b'"e":"trade"', b'"e":"trbde"', "unknown_frame"),
        (b'"e":"trade",', b"", "unknown_frame"),
        (b'"e":"trade"', b'"e":["trade"]', "unknown_frame"),
        (b'"e"', b'"\xc3\xa9"', "unknown_frame"),
        (b'"t":7', b'"t":07', "bad_json"),
        (b'"t":7', b'"t":NaN', "bad_json"),
        (b'"M":true}', b'"M":true', "bad_json"),
        (b'"M":true', b'"M":tru', "bad_json"),
        (b'"M":true}', b'"M":true}}', "bad_json"),
        (b'"BTCUSDT"', b'"BTC\xffUSDT"', "bad_json"),
    ],
)
@pytest.mark.parametrize("combined", [False, True])
def test_what_is_wrong_with_a_trade_is_named(old: bytes, new: bytes, reason: str, combined: bool) -> None:
    frame = f.binance_frame("BTCUSDT", 7, "5", "6", combined=combined)
    assert old in frame
    decoded = decode([frame, frame.replace(old, new), frame])
    assert rejects(decoded) == [(1, reason)]
    assert decoded.trades.row.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"p":"5"', b'"p":"0.5e1"'),
        (b'"p":"5"', b'"p":"5.0000000000000000000"'),
        (b'"p":"5"', b'"p":"9","p":"5"'),
        (b'"p":"5"', b'"p":9,"\\u0070":"5"'),
        (b'"t":7', b'"t" : 7'),
        (b'"M":true', b'"M":[{"x":null}]'),
        (b'"M":true', b'"averyveryverylongkey":"\xc3\xa9","n":null,"f":-1e5'),
    ],
)
def test_unusual_writing_of_the_same_trade_is_read_all_the_same(old: bytes, new: bytes) -> None:
    frame = f.binance_frame("BTCUSDT", 7, "5", "6")
    first, second = rows(decode([frame, frame.replace(old, new)]).trades)
    assert second == {**first, "row": 1}


@pytest.mark.parametrize(
    "frame",
    [b"null", b"5", b'"trade"', b"[]", b"[5]", b'[{"e":"trade"}]', b'{"stream":"x@trade","data":5}', b'{"stream":"x","data":[]}', b"{}"],
)
def test_what_is_no_frame_of_the_venue_is_rejected(frame: bytes) -> None:
    assert [reason for _, reason in rejects(decode([frame]))] in (["bad_frame"], ["unknown_frame"])


def test_trades_of_another_symbol_do_not_fit_the_key() -> None:
    assert rejects(decode([f.binance_agg_frame("XRPETH", 1, "1", "1"), f.binance_frame("BTCUSDT", 1, "1", "1")], ["BTC-USDT", ""])) == [
        (0, "key_mismatch"),
        (1, "key_mismatch"),
    ]


def test_usdm_trades_keep_their_execution_type() -> None:
    frames = [
        f.usdm_frame("BTCUSDT", i, "1", "1", kind=kind, combined=i % 2 == 0)
        for i, kind in enumerate(("MARKET", "ADL", "MARKET", "INSURANCE_FUND"))
    ]
    frames.append(frames[0].replace(b'"X":"MARKET",', b""))
    frames.append(frames[0].replace(b'"MARKET"', b'"' + b"M" * 5000 + b'"'))
    decoded = decode(frames, exchange="binance_usdm")
    assert decoded.trades.vendor["X"].to_pylist() == ["MARKET", "ADL", "MARKET", "INSURANCE_FUND", None, None]
    assert decode([f.binance_frame("BTCUSDT", 1, "1", "1")]).trades.vendor == {}


def test_usdm_executions_without_quantity_are_dead_letters() -> None:
    decoded = decode(
        [f.usdm_frame("BTCUSDT", 1, "0", "0", kind="NA"), f.usdm_frame("BTCUSDT", 1, "5", "0", kind="NA")], exchange="binance_usdm"
    )
    assert rejects(decoded) == [(0, "bad_price"), (1, "bad_quantity")]


def test_usdm_aggregates_are_read_without_the_spot_flag() -> None:
    instruments = build_instruments("binance_usdm", [{"symbol": "BTC/USDT", "stream": "aggTrade"}])
    frame = f.binance_agg_frame("BTCUSDT", 5, "1", "1").replace(b',"M":true', b"")
    decoded = VENUES["binance_usdm"].decode(f.raw_batch("binance_usdm", [frame], "BTC-USDT"), instruments)
    assert decoded.trades.trade_id.tolist() == [5]
    assert decoded.trades.vendor["X"].to_pylist() == [None]
