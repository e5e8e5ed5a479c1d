"""The recordings of venues that are read by a table, from the file to the rows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from connectors.files.loader import load_capture
from connectors.topics.memory import MemoryTopics
from connectors.venues.registry import build_instruments, venue
from dataflows.engine import Control
from dataflows.stages import VenueSetup, decode_with, shard_logic
from market.record import RawBatch, topic_name
from market.rules import Rules
from tests.recorded import recording_of
from tests.records import read_all

PERPETUALS = [{"symbol": f"{base}/USDC", "venue_symbol": f"{base}USDCPERP"} for base in ("SOL", "BTC", "ETH")]
LISTED: dict[str, list[Any]] = {
    "bybit": ["BTC/USDT", "ETH/USDT"],
    "bybit_linear": ["BTC/USDT", "ETH/USDT", "SOL/USDT", "DOGE/USDT"],
    "okx": ["BTC/USDT", {"symbol": "BTC/USD", "venue_symbol": "BTC-USD-220527"}, {"symbol": "UNI/USD", "venue_symbol": "UNI-USD-SWAP"}],
    "gemini": ["BTC/USD", "BTC/USDT", "SOL/USD", "ETH/USDT", "BTC/GBP", "ETH/USD", "BTC/EUR", *PERPETUALS],
    "bitstamp": ["ETH/USD"],
    "bitfinex": [
        *("BFT/USD", "MANA/BTC", "SNGLS/USD", "IOTA/ETH", "DOG/USD", "ODEM/USD"),
        {"symbol": "TESTBTC/TESTUSD", "venue_symbol": "tTESTBTC:TESTUSD"},
    ],
}
COUNTS = {"bybit": 8, "bybit_linear": 150, "okx": 39, "gemini": 812, "bitstamp": 10, "bitfinex": 210}


@dataclass
class Flowed:
    """Rows by table, markers, and the number of records."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    markers: list[dict[str, Any]] = field(default_factory=list)


def flowed(exchange: str) -> Flowed:
    instruments = build_instruments(exchange, LISTED[exchange])
    log = MemoryTopics(now_us=lambda: 1_800_000_000_000_000)
    load_capture(log, exchange, venue(exchange), instruments, [recording_of(exchange)])
    setups = {exchange: VenueSetup(venue(exchange), instruments, Rules(contiguous_ids=venue(exchange).contiguous_ids))}
    found, topic = Flowed(), topic_name(exchange)
    for partition in range(log.partitions(topic)):
        logic = shard_logic(setups, Control(), None)
        for records in read_all(log, topic, partition, 10_000):
            found.markers += [json.loads(r["payload"]) for r in records.to_pylist() if r["kind"] == "marker"]
            batch = RawBatch(exchange, topic, partition, "g", records.column("offset")[-1].as_py() + 1, records)
            for output in logic.on_batch([decode_with(setups, batch)])[0]:
                found.rows.setdefault(output.table, []).extend(output.rows.to_pylist())
    return found


@pytest.mark.parametrize("exchange", list(LISTED))
def test_every_recorded_trade_is_accepted_once(exchange: str) -> None:
    found = flowed(exchange)
    silver = found.rows["silver_trades"]
    assert len(silver) == len({(r["canonical_symbol"], r["trade_id"]) for r in silver}) == COUNTS[exchange]
    assert {r["reason"] for r in found.rows["dead_letters"]} <= (
        {"bad_trade_id", "unknown_symbol"} if exchange.startswith("bybit") else set()
    )
    minutes = {r["window_start"]: r for r in found.rows["ohlcv_1m"]}
    assert minutes
    assert {m["exchange"] for m in found.markers} <= {exchange}
    assert bool(found.markers) == (exchange != "bitfinex"), "its recording has no live trade, so its delays are not known"


def test_a_past_trade_that_is_not_marked_as_one_holds_no_marker_back() -> None:
    markers = flowed("okx").markers
    reach = max(m["to_us"] for m in markers) - min(m["from_us"] for m in markers)
    assert reach > 5_000_000, "the first trade of BTC-USD-220527 was 25 s old when it came"
