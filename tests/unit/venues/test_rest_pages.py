from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from connectors.venues.base import Venue
from connectors.venues.envelope import wrap
from connectors.venues.feeding import Wanted
from connectors.venues.kraken_rest import Seconds, seconds_us
from connectors.venues.registry import VENUES, build_instruments
from market.instrument import Instruments
from market.trade import Decoded
from tests import frames as f
from tests.decoding import assert_accounted, decode_slowly, rejects, rows

T1 = f.NOW_US - 7_000_123
T2 = f.NOW_US - 5_000_000


def ms(time_us: int) -> int:
    return time_us // 1000


def binance_rows(*trades: f.T) -> str:
    return json.dumps(
        [
            {"id": t.id, "price": t.price, "qty": t.quantity, "quoteQty": "1", "time": ms(t.time_us), "isBuyerMaker": not t.is_buy, "isBestMatch": True}
            for t in trades
        ]
    )  # fmt: skip


def binance_agg_rows(*trades: f.T) -> str:
    return json.dumps(
        [{"a": t.id, "p": t.price, "q": t.quantity, "f": 1, "l": 2, "T": ms(t.time_us), "m": not t.is_buy, "M": True} for t in trades]
    )


def kraken_page(*trades: f.T, key: str = "XXBTZUSD", order: str = "l") -> str:
    found = ",".join(
        f'["{t.price}","{t.quantity}",{t.time_us // 10**6}.{t.time_us % 10**6:06d}4,"{"b" if t.is_buy else "s"}","{order}","",{t.id}]'
        for t in trades
    )
    return f'{{"error":[],"result":{{"{key}":[{found}],"last":"1"}}}}'


def coinbase_rows(*trades: f.T) -> str:
    return json.dumps(
        [
            {"trade_id": t.id, "side": "sell" if t.is_buy else "buy", "size": t.quantity, "price": t.price, "time": f.rfc3339(t.time_us)}
            for t in trades
        ]
    )


def decode(exchange: str, listed: Instruments, payloads: list[bytes], key: str) -> Decoded:
    venue, batch = VENUES[exchange], f.raw_batch(exchange, payloads, key)
    decoded, slow = venue.decode(batch, listed), decode_slowly(venue, batch, listed)
    assert_accounted(decoded, len(payloads))
    assert (rows(decoded.trades), decoded.rejected, decoded.control_frames) == (rows(slow.trades), slow.rejected, slow.control_frames)
    return decoded


def twins(exchange: str, listed: Instruments, live: list[bytes], page: str, key: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Trades of live frames, and of the page; record and frame apart, everything should be the same."""
    symbol = listed.listed[0].venue_symbol
    alive, refilled = decode(exchange, listed, live, key), decode(exchange, listed, [wrap("/x?y=1", symbol, page.encode())], key)
    assert not alive.rejected
    assert not refilled.rejected
    found = [
        sorted(({k: v for k, v in row.items() if k not in ("row", "event_us")} for row in rows(d.trades)), key=lambda row: row["trade_id"])
        for d in (alive, refilled)
    ]
    return found[0], found[1]


def trades(symbol: str, time_1: int, time_2: int) -> tuple[f.T, f.T]:
    return f.T(symbol, 41, "63501.90000", "0.00004134", time_1), f.T(symbol, 42, "0.5", "12.00", time_2, is_buy=False)


def test_binance_trades_are_those_of_the_feed() -> None:
    listed = build_instruments("binance", ["BTC/USDT"])
    one, two = trades("BTCUSDT", T1, T2)
    live = [f.binance_frame(t.symbol, t.id, t.price, t.quantity, ms(t.time_us), not t.is_buy) for t in (one, two)]
    alive, refilled = twins("binance", listed, live, binance_rows(one, two), "BTC-USDT")
    assert refilled == alive
    assert [row["is_buy"] for row in refilled] == [True, False]


def test_binance_aggregate_trades_are_those_of_the_feed() -> None:
    listed = build_instruments("binance", [{"symbol": "BTC/USDT", "stream": "aggTrade"}])
    one, two = trades("BTCUSDT", T1, T2)
    live = [f.binance_agg_frame(t.symbol, t.id, t.price, t.quantity, ms(t.time_us), not t.is_buy) for t in (one, two)]
    alive, refilled = twins("binance", listed, live, binance_agg_rows(one, two), "BTC-USDT")
    assert refilled == alive


def test_usdm_trades_miss_only_the_execution_type() -> None:
    listed = build_instruments("binance_usdm", ["BTC/USDT"])
    one, two = trades("BTCUSDT", T1, T2)
    live = [f.usdm_frame(t.symbol, t.id, t.price, t.quantity, ms(t.time_us), not t.is_buy) for t in (one, two)]
    alive, refilled = twins("binance_usdm", listed, live, binance_rows(one, two), "BTC-USDT")
    assert [row.pop("X") for row in alive + refilled] == ["MARKET", "MARKET", None, None]
    assert refilled == alive


@pytest.mark.parametrize(("order", "live_order"), [("l", "limit"), ("m", "market")])
def test_kraken_trades_are_those_of_the_feed(order: str, live_order: str) -> None:
    listed = build_instruments("kraken", ["BTC/USD"])
    one, two = trades("BTC/USD", T1, T2)
    live = [f.kraken_frame([one, two], ord_type=live_order)]
    alive, refilled = twins("kraken", listed, live, kraken_page(one, two, order=order), "BTC-USD")
    assert refilled == alive
    assert [row["ord_type"] for row in refilled] == [live_order] * 2


def test_coinbase_trades_are_those_of_the_feed() -> None:
    listed = build_instruments("coinbase", ["BTC/USD"])
    one, two = trades("BTC-USD", T1, T2)
    alive, refilled = twins("coinbase", listed, [f.coinbase_frame([two, one])], coinbase_rows(two, one), "BTC-USD")
    assert refilled == alive
    assert [row["is_buy"] for row in refilled] == [True, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1783465204.5907531", 1783465204_590753),
        ("1783465204.590753999", 1783465204_590753),
        ("1783465204.59", 1783465204_590000),
        ("1783465204", 1783465204_000000),
        ("1.783e9", None),
        ("-1.5", None),
    ],
)
def test_seconds_are_read_from_their_text(text: str, expected: int | None) -> None:
    assert seconds_us(Seconds(text)) == expected


@pytest.mark.parametrize(
    ("exchange", "page", "reasons"),
    [
        ("binance", '[{"id":1}]', ["bad_price"]),
        ("binance", "[7]", ["bad_frame"]),
        ("binance", '{"code":-1121,"msg":"Invalid symbol."}', ["bad_frame"]),
        ("binance", '[{"id":"5","price":"1","qty":"1","time":1,"isBuyerMaker":true}]', ["bad_trade_id"]),
        ("binance", '[{"id":5,"price":"1","qty":"1","time":1,"isBuyerMaker":true}]', ["implausible_time"]),
        ("kraken", '{"error":["EQuery:Unknown asset pair"]}', ["bad_frame"]),
        ("kraken", '{"error":[],"result":{"A":[],"B":[],"last":"1"}}', ["bad_frame"]),
        ("kraken", '{"error":[],"result":{"A":[5,["1","1",1783465204.5,"b","l",""]],"last":"1"}}', ["bad_frame", "bad_frame"]),
        ("kraken", '{"error":[],"result":{"A":[[1.5,"1",1783465204.5,"b","l","",7]],"last":"1"}}', ["bad_price"]),
        ("kraken", '{"error":[],"result":{"A":[["1",2,1783465204.5,"b","l","",7]],"last":"1"}}', ["bad_quantity"]),
        ("kraken", '{"error":[],"result":{"A":[["1","2","1783465204.5","b","l","",7]],"last":"1"}}', ["bad_time"]),
        ("kraken", '{"error":[],"result":{"A":[["1","2",1783465204.5,5,null,"",7]],"last":"1"}}', ["bad_side"]),
        ("kraken", '{"error":[],"result":{"A":[["1","2",1783465204.5,"x",null,"",7]],"last":"1"}}', ["bad_side"]),
        ("kraken", '{"error":[],"result":{"A":[["1","2",1783465204.5,"b","l","","7"]],"last":"1"}}', ["bad_trade_id"]),
        ("coinbase", '{"message":"NotFound"}', ["bad_frame"]),
        ("coinbase", '["x"]', ["bad_frame"]),
        ("coinbase", '[{"trade_id":"5","side":"buy","size":"1","price":"1","time":"2026-01-01T00:00:00Z"}]', ["bad_trade_id"]),
        ("coinbase", '[{"trade_id":5,"side":1,"size":"1","price":"1","time":"2026-01-01T00:00:00Z"}]', ["bad_side"]),
        ("coinbase", '[{"trade_id":5,"side":"BUY","size":"1","price":"1","time":"2026-01-01T00:00:00Z"}]', ["bad_side"]),
    ],
)
def test_what_is_wrong_with_a_page_is_said(exchange: str, page: str, reasons: list[str]) -> None:
    listed = build_instruments(exchange, ["BTC/USD" if exchange != "binance" else "BTC/USDT"])
    payload = wrap("/x", listed.listed[0].venue_symbol, page.encode())
    assert rejects(decode(exchange, listed, [payload], listed.listed[0].key)) == [(0, reason) for reason in reasons]


def test_a_page_of_another_symbol_than_its_key_is_refused() -> None:
    listed = build_instruments("binance", ["BTC/USDT", "ETH/USDT"])
    page = binance_rows(f.T("", 1, "1", "1")).encode()
    payloads = [wrap("/x", "ETHUSDT", page), wrap("/x", "XRPUSDT", page)]
    assert rejects(decode("binance", listed, payloads, "BTC-USDT")) == [(0, "key_mismatch"), (1, "unknown_symbol")]


def test_an_envelope_without_a_symbol_is_rejected_and_an_empty_page_holds_nothing() -> None:
    listed = build_instruments("binance", ["BTC/USDT"])
    page = binance_rows(f.T("", 1, "1", "1")).encode()
    payloads = [b'{"refill":"/x","symbol":5,"body":' + page + b"}", wrap("/x", "BTCUSDT", b"[]")]
    decoded = decode("binance", listed, payloads, "BTC-USDT")
    assert rejects(decoded) == [(0, "bad_symbol")]
    assert decoded.control_frames == 1


def test_an_aggregate_page_counts_nothing_for_an_instrument_of_single_trades() -> None:
    listed = build_instruments("binance", ["BTC/USDT"])
    decoded = decode("binance", listed, [wrap("/x", "BTCUSDT", binance_agg_rows(f.T("", 1, "1", "1")).encode())], "BTC-USDT")
    assert (len(decoded.trades), decoded.control_frames) == (0, 1)


def test_pages_are_not_routed_as_frames() -> None:
    listed = build_instruments("coinbase", ["BTC/USD"])
    payload = wrap("/x", "BTC-USD", coinbase_rows(f.T("", 1, "1", "1")).encode())
    assert VENUES["coinbase"].symbols_in(payload, listed) == []
    assert VENUES["coinbase"].event_times(payload) == []


def test_the_body_stands_in_the_envelope_as_it_came() -> None:
    body = b' [ {"id": 1.50} ]\n'
    payload = wrap('/a?b="c"', "X/Y", body)
    assert body in payload
    assert json.loads(payload) == {"refill": '/a?b="c"', "symbol": "X/Y", "body": [{"id": 1.5}]}


RANGE = Wanted(first_id=100, last_id=119, after_us=1_700_000_000_000_001, rows=20)
NEWER = Wanted(first_id=100, last_id=None, after_us=1_700_000_000_000_001, rows=1000)


@pytest.mark.parametrize(
    ("exchange", "entry", "wanted", "path"),
    [
        ("binance", "BTC/USDT", RANGE, "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=100&limit=20"),
        ("binance", "BTC/USDT", NEWER, "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=100&limit=1000"),
        ("binance", {"symbol": "BTC/USDT", "stream": "aggTrade"}, RANGE, "/api/v3/aggTrades?symbol=BTCUSDT&fromId=100&limit=20"),
        ("binance_usdm", "BTC/USDT", RANGE, "/fapi/v1/historicalTrades?symbol=BTCUSDT&fromId=100&limit=20"),
        ("kraken", "BTC/USD", RANGE, "/0/public/Trades?pair=XBTUSD&since=1700000000000000000&count=70"),
        ("kraken", "ETH/BTC", NEWER, "/0/public/Trades?pair=ETHXBT&since=1700000000000000000&count=1000"),
        ("coinbase", "BTC/USD", RANGE, "/products/BTC-USD/trades?after=120&limit=20"),
        ("coinbase", "BTC/USD", NEWER, "/products/BTC-USD/trades?before=99&limit=1000"),
    ],
)
def test_requests(exchange: str, entry: object, wanted: Wanted, path: str) -> None:
    instrument = build_instruments(exchange, [entry]).listed[0]
    request = VENUES[exchange].page_request(instrument, wanted)
    assert request.path == path
    assert request.rows == int(path.rpartition("=")[2])


@pytest.mark.parametrize(
    ("document", "text", "is_final"),
    [
        ({"error": ["EQuery:Unknown asset pair"]}, "EQuery:Unknown asset pair", True),
        ({"error": ["EGeneral:Too many requests"]}, "EGeneral:Too many requests", False),
        ({"error": ["WX:careful", "EService:Unavailable", 5]}, "EService:Unavailable", False),
    ],
)
def test_kraken_tells_errors_in_the_body(document: object, text: str, is_final: bool) -> None:
    found = VENUES["kraken"].rest_error(document)
    assert found is not None
    assert (found.text, found.is_final) == (text, is_final)


@pytest.mark.parametrize("document", [{"error": [], "result": {}}, {"error": ["WX:careful"]}, {"error": 5}, [], None])
def test_other_answers_tell_no_error(document: object) -> None:
    assert VENUES["kraken"].rest_error(document) is None
    assert VENUES["binance"].rest_error(document) is None


class _Deaf(Venue):
    """A venue without REST."""

    exchange = "deaf"
    separator = "/"
    quotes = "USD"
    scan = items = read = time_us = subscriptions = unsubscriptions = notice = None  # type: ignore[assignment]


def test_a_venue_without_rest_has_no_pages() -> None:
    deaf = _Deaf.__new__(_Deaf)
    with pytest.raises(NotImplementedError):
        deaf.page_request(build_instruments("kraken", ["BTC/USD"]).listed[0], RANGE)
    with pytest.raises(Exception, match="no pages of past trades"):
        deaf.rest_items([], "X")


def test_prices_of_a_page_are_exact() -> None:
    listed = build_instruments("kraken", ["BTC/USD"])
    page = kraken_page(f.T("", 1, "123456789012.123456789012345678", "0.000000000000000001", T1))
    (row,) = rows(decode("kraken", listed, [wrap("/x", "BTC/USD", page.encode())], "BTC-USD").trades)
    assert (row["price"], row["quantity"], row["time_us"]) == (Decimal("123456789012.123456789012345678"), Decimal("1E-18"), T1)
