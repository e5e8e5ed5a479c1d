"""Venues told as data: small files, scanned at speed, and nobody's frames hurt them."""

from __future__ import annotations

import ast
import io
import json
import tokenize
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

import connectors.venues
from connectors.files.capture import read_capture
from connectors.venues.columns import CONTROL, TRADES, UNREAD, columns_for, frames_of, symbols_of, texts
from connectors.venues.feeding import Notice, NoticeKind
from connectors.venues.layout import Layout, TableVenue
from connectors.venues.reading import Items
from connectors.venues.registry import VENUES, build_instruments
from connectors.venues.scan_layout import RFC3339, program
from connectors.venues.text import Unusable, shown
from market.instrument import Instrument, Instruments
from tests import frames as f
from tests.decoding import assert_accounted, decode_slowly, rows
from tests.frames import rfc3339
from tests.recorded import decode_frames, recorded

TABLES = [name for name, one in VENUES.items() if isinstance(one, TableVenue)]
LIVE_IN_RECORDING = {"bybit": 7, "bybit_linear": 62, "okx": 39, "gemini": 2, "bitstamp": 10, "bitfinex": 0}
CODE_LINES = 150


def code_lines(source: str) -> int:
    """Lines that are neither blank, nor comment, nor docstring."""
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in blank
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def test_code_lines_are_counted_without_words() -> None:
    assert code_lines('"""Doc."""\n\n# why\nx = 1  # because\n\n\ndef f():\n    """Say."""\n    return (\n        x\n    )\n') == 5


@pytest.mark.parametrize("exchange", TABLES)
def test_such_a_venue_is_one_small_file(exchange: str) -> None:
    module = Path(next(iter(connectors.venues.__path__))) / f"{exchange}.py"
    assert 0 < code_lines(module.read_text()) <= CODE_LINES


@pytest.mark.parametrize("exchange", TABLES)
def test_the_scanner_knows_every_live_trade_frame_of_the_recording(exchange: str) -> None:
    venue = VENUES[exchange]
    symbols = {
        "bybit": ["BTC/USDT", "ETH/USDT"],
        "bybit_linear": ["BTC/USDT", "ETH/USDT", "SOL/USDT", "DOGE/USDT"],
        "okx": [
            {"symbol": "BTC/USD", "venue_symbol": "BTC-USD-220527"},
            {"symbol": "UNI/USD", "venue_symbol": "UNI-USD-SWAP"},
            "BTC/USDT",
        ],
    }
    instruments = build_instruments(exchange, symbols.get(exchange, ["BTC/USD", "ETH/USD"]))
    frames = [one for one in recorded(exchange, instruments) if one.symbols]
    if frames:
        view = frames_of(
            f.raw_batch(exchange, [one.payload for one in frames], [one.symbols[0].replace("/", "-") for one in frames]), instruments
        )
        venue.scan(view, symbols_of(instruments), columns_for(view))
        assert np.count_nonzero(view.status == TRADES) == LIVE_IN_RECORDING[exchange]


@pytest.mark.parametrize("kind", ["update", "snapshot"])
@pytest.mark.parametrize("exchange", ["kraken", "coinbase"])
def test_the_scanner_tells_past_trades_and_leaves_out_those_of_other_symbols(exchange: str, kind: str) -> None:
    instruments = build_instruments(exchange, ["BTC/USD", "ETH/USD"])
    names = [instruments.listed[code].venue_symbol for code in (0, 1, 0)]
    trades = [f.T(name, 5 + n, "2", "3", is_buy=n == 2) for n, name in enumerate(names)]
    frame = (f.kraken_frame if exchange == "kraken" else f.coinbase_frame)(trades, kind=kind)
    view = frames_of(f.raw_batch(exchange, [frame], "BTC-USD"), instruments)
    out = columns_for(view)
    assert VENUES[exchange].scan(view, symbols_of(instruments), out) == 2
    assert view.status.tolist() == [TRADES]
    assert (out.trade_id[:2].tolist(), out.is_buy[:2].tolist()) == ([5, 7], [False, True])
    assert out.is_snapshot[:2].tolist() == [kind == "snapshot"] * 2
    assert out.vendor[:2].tolist() == [1 if exchange == "kraken" else 0] * 2


@pytest.mark.parametrize("client", [False, True])
def test_parts_of_a_frame_that_come_again_are_scanned(client: bool) -> None:
    instruments = build_instruments("coinbase", ["BTC/USD"])
    first = f.coinbase_frame([f.T("BTC-USD", 3, "2", "3")], kind="snapshot", client=client)
    events = [f.coinbase_frame([f.T("BTC-USD", n, "2", "3")]) for n in (4, 5)]
    more = b"".join(b"," + frame[frame.index(b"[{") + 1 : -2] for frame in events)
    frames = [first[:-2] + more + b"]}", first[:-2] + more + b",]}", first[:-2] + b"," + more + b"]}"]
    view = frames_of(f.raw_batch("coinbase", frames, "BTC-USD"), instruments)
    out = columns_for(view)
    assert VENUES["coinbase"].scan(view, symbols_of(instruments), out) == 3
    assert view.status.tolist() == [TRADES, UNREAD, UNREAD]
    assert (out.trade_id[:3].tolist(), out.is_snapshot[:3].tolist()) == ([3, 4, 5], [True, False, False])
    assert out.event_us[:3].tolist() == [f.NOW_US + 60_000] * 3


def test_a_frames_own_time_must_be_a_hole() -> None:
    fields = {"id": "i", "time": "t", "price": "p", "quantity": "q", "side": "s", "event": "E"}
    with pytest.raises(ValueError, match="own time, E, is no hole"):
        program(("<{}>",), (), fields, frozenset(), ("b", "s", ""), RFC3339, must=False, uuids=False)


def test_frequent_frames_without_trades_are_told_without_being_parsed() -> None:
    instruments = build_instruments("bitfinex", ["BTC/USD"])
    frames = [b'[17,"hb"]', b'[17,"hb",5]', b'[17,"tu",[5,1767225600000,-1,2]]', b'[17,"tu",[5,1767225600000,1.5,2],9]']
    view = frames_of(f.raw_batch("bitfinex", frames, ""), instruments)
    assert VENUES["bitfinex"].scan(view, symbols_of(instruments), columns_for(view)) == 0
    assert (view.status == CONTROL).all()


@pytest.mark.parametrize("digits", ["1", "0007", "999999999999999999", "1000000000000000000", "9223372036854775807"])
def test_ids_of_up_to_63_bits_are_kept(digits: str) -> None:
    instruments = build_instruments("okx", ["BTC/USDT"])
    frame = f'{{"arg":{{"channel":"trades-all","instId":"BTC-USDT"}},"data":[{{"instId":"BTC-USDT","tradeId":"{digits}","px":"1","sz":"1","side":"sell","ts":"{f.NOW_MS}"}}]}}'
    decoded = decode_frames("okx", instruments, [frame.encode(), frame.replace("[{", "[ {").encode()], "BTC-USDT")
    assert decoded.trades.trade_id.tolist() == [int(digits)] * 2


@pytest.mark.parametrize("digits", ["", "9223372036854775808", "9999999999999999999", "18446744073709551616", "1.5", "-1", "0x1f"])
def test_other_ids_are_refused(digits: str) -> None:
    instruments = build_instruments("okx", ["BTC/USDT"])
    frame = f'{{"arg":{{"channel":"trades-all","instId":"BTC-USDT"}},"data":[{{"instId":"BTC-USDT","tradeId":"{digits}","px":"1","sz":"1","side":"sell","ts":"{f.NOW_MS}"}}]}}'
    decoded = decode_frames("okx", instruments, [frame.encode()], "BTC-USDT")
    assert [one.reason for one in decoded.rejected] == ["bad_trade_id"]


class CoinbaseExchange(TableVenue):
    """Coinbase's older feed, written by docs/adding-an-exchange.md: the guide must do for a venue that nobody had in mind.

    {"type":"match","trade_id":1052119289,"maker_order_id":"…","taker_order_id":"…","side":"buy","size":"0.00211003",
     "price":"63519.29","product_id":"BTC-USD","sequence":132235025346,"time":"2026-07-07T22:58:16.833065Z"}
    """

    exchange = "coinbase_exchange"
    native_side_is_maker = True
    separator = "-"
    quotes = "USD EUR GBP BTC"
    trade_marks = (b'match"',)
    control_marks = (b'"type":"subscriptions"', b'"type":"error"')
    other_channels = texts('{"type":"l2update",', '{"type":"heartbeat",')
    layout = Layout(
        frames=("<{}>",),
        texts=frozenset(("type", "side", "size", "price", "product_id", "time")),
        symbol="product_id",
        id="trade_id",
        time="time",
        price="price",
        quantity="size",
        side="side",
        buy="sell",  # the maker's
        sell="buy",
        unit_us=RFC3339,
        fixed="type",
        fixed_text="match",
        fixed_must=True,
    )

    def items(self, document: object) -> Items | None:
        if not isinstance(document, dict) or "type" not in document:
            raise Unusable("unknown_frame", f"not a typed object: {shown(document)}")
        kind = document["type"]
        return [self.trade(document, is_snapshot=kind == "last_match")] if kind in ("match", "last_match") else None

    def said(self, document: object) -> Notice | None:
        if not isinstance(document, dict) or not isinstance(document.get("channels"), list):
            return None
        products = [name for channel in document["channels"] if channel["name"] == "matches" for name in channel["product_ids"]]
        return Notice(NoticeKind.CONFIRMED, tuple(products))

    def request(self, symbols: list[str], number: int, *, subscribe: bool) -> object:
        return {"type": "subscribe" if subscribe else "unsubscribe", "product_ids": symbols, "channels": ["matches"]}


def test_the_guide_does_for_a_venue_that_nobody_had_in_mind() -> None:
    venue = CoinbaseExchange()
    instruments = Instruments(venue.exchange, tuple(Instrument(f"{base}/USD", f"{base}-USD") for base in ("BTC", "ETH")))
    frames = [one.payload for one in read_capture(f.DATA / "legacy" / "coinbase_exchange_legacy_matches_20260707.ndjson.gz")]
    keys = [(symbols or [""])[0].replace("/", "-") for symbols in (venue.router().symbols_in(frame, instruments) for frame in frames)]
    batch = f.raw_batch(venue.exchange, frames, keys, received_us=1_783_465_230_000_000)
    decoded, slow = venue.decode(batch, instruments), decode_slowly(venue, batch, instruments)
    trades = [d for d in map(json.loads, frames) if d["type"] in ("match", "last_match")]
    assert (len(trades), decoded.rejected, rows(decoded.trades)) == (437, [], rows(slow.trades))
    assert [(r["trade_id"], rfc3339(r["time_us"]), r["price"], r["quantity"], r["is_buy"]) for r in rows(decoded.trades)] == [
        (d["trade_id"], d["time"], Decimal(d["price"]), Decimal(d["size"]), d["side"] == "sell") for d in trades
    ]
    assert int(decoded.trades.is_snapshot.sum()) == 2
    view = frames_of(batch, instruments)
    assert venue.scan(view, symbols_of(instruments), columns_for(view)) == 435, "all live trades are scanned"
    assert [s for frame in frames for s in venue.confirmed_by(frame, instruments)] == ["BTC/USD", "ETH/USD"]


def legacy() -> Iterator[bytes]:
    for path in sorted((f.DATA / "legacy").glob("*.gz")):
        for one in read_capture(path):
            yield one.payload


@pytest.mark.parametrize("exchange", list(VENUES))
def test_frames_of_interfaces_that_nobody_reads_hurt_no_venue(exchange: str) -> None:
    frames = list(legacy())
    venue, instruments = VENUES[exchange], build_instruments(exchange, ["BTC/USD", "ETH/USD"])
    router = venue.router()
    assert {symbol for frame in frames for symbol in router.symbols_in(frame, instruments)} == set()
    assert [frame for frame in frames if venue.event_times(frame) or venue.confirmed_by(frame, instruments)] == []
    for frame in frames:
        venue.notice(frame)
    decoded = venue.decode(f.raw_batch(exchange, frames, "BTC-USD"), instruments)
    assert_accounted(decoded, len(frames))
    assert len(decoded.trades) == 0
