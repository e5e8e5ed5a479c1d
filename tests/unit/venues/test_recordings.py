"""The recordings decode to what a naive reader finds in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from connectors.venues.columns import UNREAD, columns_for, frames_of, symbols_of
from connectors.venues.registry import VENUES, build_instruments
from connectors.venues.scan import mark_other_channels
from market.trade import Decoded
from tests import frames as f
from tests.decoding import assert_accounted, decode_slowly, rejects, rows


def decode(exchange: str, recorded: list[tuple[int, bytes]], symbols: list[str]) -> Decoded:
    venue, instruments = VENUES[exchange], build_instruments(exchange, symbols)
    found = [venue.symbols_in(frame, instruments) for _, frame in recorded]
    keys = [symbols[0].replace("/", "-") if symbols else "" for symbols in found]
    batch = f.raw_batch(exchange, [frame for _, frame in recorded], keys, received_us=[time for time, _ in recorded])
    decoded, slow = venue.decode(batch, instruments), decode_slowly(venue, batch, instruments)
    assert_accounted(decoded, len(recorded))
    assert rows(decoded.trades) == rows(slow.trades)
    assert (
        (rejects(decoded), decoded.control_frames)
        == (rejects(slow), slow.control_frames)
        == ([], len(recorded) - len(set(decoded.trades.row.tolist())))
    )
    assert [t for _, frame in recorded for t in venue.event_times(frame)] == decoded.trades.time_us[~decoded.trades.is_snapshot].tolist()
    return decoded


def us(text: str) -> int:
    return (datetime.fromisoformat(text) - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def test_binance() -> None:
    recorded = list(f.recorded_binance(20_000))
    decoded = decode("binance", recorded, ["BTC/USDT"])
    documents = [json.loads(frame).get("data", {}) for _, frame in recorded]
    assert [
        (r["row"], r["trade_id"], r["time_us"], r["event_us"], r["is_buy"], r["price"], r["quantity"]) for r in rows(decoded.trades)
    ] == [
        (n, d["t"], d["T"] * 1000, d["E"] * 1000, not d["m"], Decimal(d["p"]), Decimal(d["q"]))
        for n, d in enumerate(documents)
        if d.get("e") == "trade"
    ]


def test_all_trades_of_the_binance_recording_are_found() -> None:
    recorded = list(f.recorded_binance())
    instruments = build_instruments("binance", ["BTC/USDT"])
    batch = f.raw_batch("binance", [frame for _, frame in recorded], "BTC-USDT", received_us=[time for time, _ in recorded])
    decoded = VENUES["binance"].decode(batch, instruments)
    assert decoded.trades.trade_id.tolist() == list(range(3735683259, 3735703163))
    assert (decoded.rejected, decoded.control_frames) == ([], len(recorded) - 19_904)


def test_kraken() -> None:
    recorded = list(f.recorded_kraken())
    decoded = decode("kraken", recorded, ["BTC/USD", "ETH/USD"])
    documents = [json.loads(frame, parse_float=Decimal, parse_int=Decimal) for _, frame in recorded]
    trades = [t for d in documents if d.get("channel") == "trade" for t in d["data"]]
    assert len(trades) == 17
    assert [(r["trade_id"], r["time_us"], r["is_buy"], r["price"], r["quantity"], r["ord_type"]) for r in rows(decoded.trades)] == [
        (t["trade_id"], us(t["timestamp"]), t["side"] == "buy", t["price"], t["qty"], t["ord_type"]) for t in trades
    ]
    instruments = build_instruments("kraken", ["BTC/USD", "ETH/USD"])
    assert [s for _, frame in recorded for s in VENUES["kraken"].confirmed_by(frame, instruments)] == ["BTC/USD", "ETH/USD"]


def test_coinbase() -> None:
    recorded = list(f.recorded_coinbase())
    decoded = decode("coinbase", recorded, ["BTC/USD", "ETH/USD"])
    events = [e for _, frame in recorded if b'"market_trades","t' in frame for e in json.loads(frame)["events"]]
    trades = [(t, e["type"]) for e in events for t in e["trades"]]
    assert len(trades) == 256
    assert [(r["trade_id"], r["time_us"], r["is_buy"], r["price"], r["quantity"], r["is_snapshot"]) for r in rows(decoded.trades)] == [
        (int(t["trade_id"]), us(t["time"]), t["side"] == "SELL", Decimal(t["price"]), Decimal(t["size"]), kind == "snapshot")
        for t, kind in trades
    ]
    for code in (0, 1):  # contiguous per product, snapshot and updates together
        ids = sorted(r["trade_id"] for r in rows(decoded.trades) if r["symbol"] == code)
        assert ids == list(range(ids[0], ids[0] + len(ids)))


@pytest.mark.parametrize(
    ("exchange", "recorded", "unusual"),
    [("binance", f.recorded_binance, 1), ("kraken", f.recorded_kraken, 5), ("coinbase", f.recorded_coinbase, 5)],
)
def test_few_frames_need_the_complete_reader(exchange: str, recorded: Callable[[], Iterable[tuple[int, bytes]]], unusual: int) -> None:
    venue, instruments = VENUES[exchange], build_instruments(exchange, ["BTC/USDT" if exchange == "binance" else "BTC/USD"])
    frames = [frame for _, frame in recorded() if b"ETH" not in frame]
    view = frames_of(f.raw_batch(exchange, frames, instruments.listed[0].key), instruments)
    n = venue.scan(view, symbols_of(instruments), columns_for(view))
    mark_other_channels(view, venue.other_channels)
    assert n > 0
    assert np.count_nonzero(view.status == UNREAD) <= unusual  # acks and the like


@pytest.mark.parametrize("metadata", sorted(f.DATA.glob("*/metadata.json")), ids=lambda path: path.parent.name)
def test_recordings_are_the_files_that_their_metadata_describe(metadata: Path) -> None:
    described = {entry["file"]: entry for entry in json.loads(metadata.read_text())}
    assert set(described) == {path.name for path in metadata.parent.iterdir()} - {"metadata.json"}
    for name, entry in described.items():
        assert hashlib.sha256((metadata.parent / name).read_bytes()).hexdigest() == entry["sha256"]
        assert all(entry[field] for field in ("what", "source", "licence", "recorded"))
