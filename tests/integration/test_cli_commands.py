"""The commands against one real platform: topics, the served ClickHouse, an Iceberg catalog, and the flow as its own process."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from benchmarks.generate import Workload
from connectors.topics.base import APPEND_SCHEMA
from connectors.topics.registry import open_topics
from market.instrument import partition_of
from market.interval import INTERVAL_NAMES
from market.record import topic_name
from market.schema import DEAD_LETTERS, OHLCV, SILVER_TRADES, TRADE_GAPS
from tests.cli_calls import call
from tests.e2e.harness import Home, home

WORK = Workload(trades=6_000, symbols=12, trouble=0.04, rate=20)
LOST = 3  # trades that never came
STORES = ("warm", "cold")


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with home(tmp_path_factory.mktemp("commands") / "home") as made:
        made.fill(WORK)
        add_trouble(made)
        made.k2("run", "--until-end")
        yield made


def add_trouble(made: Home) -> None:
    """After the workload: a gap of three trades, a frame that is no JSON, one of an unlisted symbol."""
    log = open_topics(f"sqlite:///{made.folder}/topics.db")
    time_us = WORK.start_us + 3_600_000_000
    canonical = WORK.symbols_of("binance")[0]
    name = canonical.replace("/", "")

    def trade(symbol: str, number: int) -> str:
        body = {
            "e": "trade",
            "E": time_us // 1000,
            "s": symbol,
            "t": number,
            "p": "5.5",
            "q": "2",
            "T": time_us // 1000,
            "m": False,
            "M": True,
        }
        return json.dumps(body)

    marker = {"feed": "more", "exchange": "binance", "from_us": time_us - 1, "to_us": time_us + 10_000_000, "symbols": [canonical]}
    frames = [(trade(name, 9_000_000), None), (trade(name, 9_000_001 + LOST), None), ("{broken", None), (trade("NOPEUSDT", 1), None)]
    frames.append((json.dumps(marker), "marker"))
    records = {
        "key": [canonical.replace("/", "-") if kind is None else "" for _, kind in frames],
        "source": ["live"] * len(frames),
        "received_us": [time_us + 20_000_000] * len(frames),
        "kind": [kind for _, kind in frames],
        "extra_headers": [None] * len(frames),
        "payload": [text.encode() for text, _ in frames],
    }
    log.append(topic_name("binance"), {partition_of(canonical, 4): pa.RecordBatch.from_pydict(records, schema=APPEND_SCHEMA)})
    log.close()


def export(where: Home, *arguments: str) -> str:
    return call(where.env, "export", *arguments).text


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_status_tells_positions_of_every_table_in_both_stores(where: Home) -> None:
    found: list[dict[str, Any]] = json.loads(call(where.env, "status", "--json").text)
    assert set(found[0]) == {"table", "store", "topic", "partition", "frontier", "end_offset", "lag", "rows", "last_commit"}
    assert {(r["store"], r["table"]) for r in found if r["topic"] == "raw.trades.binance"} == {
        (store, table)
        for store in STORES
        for table in (
            "bronze_trades_binance",
            "silver_trades",
            *(t.name for t in OHLCV.values()),
            "trade_gaps",
            "dead_letters",
            "feed_events",
        )
    }
    assert all(r["lag"] == 0 and r["frontier"] == r["end_offset"] for r in found)
    for store in STORES:
        assert sum(r["rows"] for r in found if r["store"] == store and r["table"] == "silver_trades") == WORK.trades + 2
    assert all(abs((datetime.fromisoformat(r["last_commit"]) - datetime.now(UTC)).total_seconds()) < 3600 for r in found if r["end_offset"])
    text = call(where.env, "status").text
    assert "silver_trades" in text
    assert "raw.trades.kraken" in text


@pytest.mark.parametrize("interval", ["1m", "1h"])
def test_closed_candles_of_both_stores_are_the_same_file(where: Home, interval: str) -> None:
    warm, cold = (export(where, "candles", "--interval", interval, "--store", store) for store in STORES)
    assert warm == cold
    found = rows(warm)
    assert list(found[0]) == [c.name for c in OHLCV[interval].columns]
    keys = [(r["exchange"], r["canonical_symbol"], r["window_start"]) for r in found]
    assert keys == sorted(set(keys))
    assert {r["is_closed"] for r in found} == {"true"}


def test_open_candles_come_from_the_warm_store_on_request(where: Home) -> None:
    closed, both = rows(export(where, "candles", "-i", "1d")), rows(export(where, "candles", "-i", "1d", "--open"))
    assert len(both) > len(closed)
    assert {r["is_closed"] for r in both[len(closed) :]} <= {"true", "false"}


def test_every_format_holds_the_same_rows(where: Home, tmp_path: Path) -> None:
    wanted = ("trades", "-e", "kraken", "--store", "cold")
    for form in ("csv", "json", "jsonl", "parquet", "arrow"):
        call(where.env, "export", *wanted, "--format", form, "-o", str(tmp_path / form))
    lines = rows((tmp_path / "csv").read_text())
    objects = json.loads((tmp_path / "json").read_text())
    assert objects == [json.loads(line) for line in (tmp_path / "jsonl").read_text().splitlines()]
    frames = [pl.read_parquet(tmp_path / "parquet"), pl.read_ipc(tmp_path / "arrow")]
    assert frames[0].equals(frames[1])
    assert frames[0].columns == [c.name for c in SILVER_TRADES.columns]
    assert len(lines) == len(objects) == frames[0].height > 100
    assert [o["price"] for o in objects] == [r["price"] for r in lines]
    assert [f"{p.normalize():f}" for p in frames[0]["price"]] == [r["price"] for r in lines]
    assert json.loads(lines[0]["vendor_data"]) == objects[0]["vendor_data"]


def test_trades_are_each_there_once_in_time_order(where: Home) -> None:
    for store in STORES:
        found = rows(export(where, "trades", "--store", store))
        assert len({(r["exchange"], r["canonical_symbol"], r["trade_id"]) for r in found}) == len(found) == WORK.trades + 2
        assert [(r["exchange"], r["timestamp"]) for r in found] == sorted((r["exchange"], r["timestamp"]) for r in found)


@pytest.mark.parametrize("store", STORES)
def test_from_is_inclusive_and_to_exclusive(where: Home, store: str) -> None:
    everything = rows(export(where, "candles", "-e", "coinbase", "--store", store))
    starts = sorted({r["window_start"] for r in everything})
    first, last = starts[1], starts[3]
    got = rows(export(where, "candles", "-e", "coinbase", "--store", store, "--from", first, "--to", last))
    assert got == [r for r in everything if first <= r["window_start"] < last]
    first_us = int(datetime.fromisoformat(first).timestamp()) * 1_000_000
    assert rows(export(where, "candles", "-e", "coinbase", "--store", store, "--from", str(first_us), "--to", last)) == got


@pytest.mark.parametrize("spelling", ["C000/USDT", "C000-USDT", "c000usdt", "C000USDT"])
def test_symbols_are_understood_in_every_spelling(where: Home, spelling: str) -> None:
    found = rows(export(where, "candles", "-e", "binance", "-s", spelling))
    assert found
    assert {r["canonical_symbol"] for r in found} == {"C000/USDT"}


def test_gaps_of_now_and_their_history(where: Home) -> None:
    now: list[dict[str, Any]] = json.loads(call(where.env, "gaps", "--json", "-e", "binance").text)
    assert [(g["first_id"], g["last_id"], g["state"]) for g in now if g["last_id"] == 9_000_000 + LOST] == [
        (9_000_001, 9_000_000 + LOST, "open")
    ]
    for store in STORES:
        history = rows(export(where, "gaps", "-e", "binance", "--store", store))
        assert list(history[0]) == [c.name for c in TRADE_GAPS.columns]
        assert rows(export(where, "gaps", "-e", "binance", "--store", store, "--now"))[-1]["first_id"] == "9000001"
        assert len(history) >= len(now)
    assert "9000001" in call(where.env, "gaps").text


@pytest.mark.parametrize("store", STORES)
def test_dead_letters_are_exported_with_their_bytes(where: Home, store: str) -> None:
    found = rows(export(where, "dead-letters", "--store", store))
    assert list(found[0]) == [c.name for c in DEAD_LETTERS.columns]
    assert {"bad_json": "{broken"}.items() <= {r["reason"]: r["payload"] for r in found}.items()
    assert "unknown_symbol" in {r["reason"] for r in found}


def test_raw_records_are_exported_in_offset_order(where: Home) -> None:
    found = [json.loads(line) for line in export(where, "raw", "-e", "binance").splitlines()]
    places = [(r["partition"], r["offset"]) for r in found]
    assert places == sorted(set(places))
    assert found[-1].keys() >= {"topic", "partition", "offset", "key", "headers", "payload"}
    assert any(r["headers"].get("kind") == "marker" for r in found)


def test_audit_of_an_untouched_platform_is_clean(where: Home) -> None:
    done = call(where.env, "audit", "--json")
    found: list[dict[str, Any]] = json.loads(done.text)
    assert set(found[0]) == {"exchange", "hour", "layer", "raw", "warm", "cold", "differences"}
    assert all(r["differences"] == 0 and r["raw"] == r["warm"] == r["cold"] for r in found), found
    assert {r["layer"] for r in found} == {"bronze", "silver", "gold", "truth"}
    assert sum(r["raw"] for r in found if r["layer"] == "silver") == WORK.trades + 2
    assert sum(r["raw"] for r in found if r["layer"] == "gold") == sum(len(rows(export(where, "candles", "-i", i))) for i in INTERVAL_NAMES)


def test_run_file_tells_scripts_where_everything_is(where: Home) -> None:
    found = where.run_file()
    assert set(found["warm"]) == {"url", "user", "password", "reader_user", "reader_password"}  # type: ignore[call-overload]
    assert found["topics"] == f"sqlite:///{where.folder}/topics.db"
    assert found["cold"] == f"sqlite:///{where.folder}/cold/catalog.db"
    assert found["pids"]["flow"] == []  # type: ignore[index]
    assert (where.folder / "run.json").stat().st_mode & 0o777 == 0o600
