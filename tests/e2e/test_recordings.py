"""Real recordings through the whole platform: candles equal the exchange's own, whatever the order of loading."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from market.interval import INTERVAL_NAMES
from market.schema import OHLCV
from tests.e2e.harness import Home, home

DATA = Path(__file__).parents[1] / "data"
DAYS = [str(DATA / "binance" / f"btcusdt_{day}.gz") for day in ("20240808", "20240809")]
COMPLETE = range(1723161300_000_000, 1723161900_000_000, 60_000_000)  # 23:55 … 00:04


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with home(tmp_path_factory.mktemp("recordings") / "home") as where:
        where.k2("load", "--exchange", "binance", *DAYS)
        where.k2("run", "--until-end")
        yield where


def candles(where: Home, store: str, interval: str) -> pl.DataFrame:
    return where.rows(OHLCV[interval], store)


@pytest.mark.parametrize("store", ["warm", "cold"])
def test_minutes_equal_the_official_klines(loaded: Home, store: str) -> None:
    rows = {int(r["window_start"].timestamp()): r for r in candles(loaded, store, "1m").to_dicts()}
    with next((DATA / "binance").glob("*1m*.csv")).open() as file:
        official = {int(r["open_time_ms"]) // 1000: r for r in csv.DictReader(file)}
    for start_us in COMPLETE:
        start = start_us // 1_000_000
        for ours, theirs in {
            "open_price": "open",
            "high_price": "high",
            "low_price": "low",
            "close_price": "close",
            "volume": "volume",
        }.items():
            assert rows[start][ours] == Decimal(official[start][theirs]), (start, ours)
        assert rows[start]["is_closed"]
        assert rows[start]["is_complete"], start


@pytest.mark.parametrize("store", ["warm", "cold"])
def test_five_minutes_equal_the_official_klines_in_every_column(loaded: Home, store: str) -> None:
    rows = {int(r["window_start"].timestamp() * 1000): r for r in candles(loaded, store, "5m").to_dicts()}
    with next((DATA / "binance").glob("*5m*.csv")).open() as file:
        official = {int(r[0]): r for r in csv.reader(file)}
    columns = [
        "open_price",
        "high_price",
        "low_price",
        "close_price",
        "volume",
        "quote_volume",
        "trade_count",
        "taker_buy_volume",
        "taker_buy_quote_volume",
    ]
    for start in (1723161300_000, 1723161600_000):
        kline = official[start]
        theirs = [Decimal(kline[i]) for i in (1, 2, 3, 4, 5, 7, 8, 9, 10)]
        assert [rows[start][c] for c in columns] == theirs
        assert rows[start]["is_complete"]


def test_loading_the_same_files_again_changes_nothing(loaded: Home) -> None:
    before = {(s, i): candles(loaded, s, i) for s in ("warm", "cold") for i in INTERVAL_NAMES}
    loaded.k2("load", "--exchange", "binance", *DAYS)
    loaded.k2("run", "--until-end")
    for (store, interval), frame in before.items():
        assert_frame_equal(candles(loaded, store, interval), frame)
    loaded.audit()


def test_files_in_the_other_order_give_the_same_values(loaded: Home, tmp_path: Path) -> None:
    cause = ["source_partition", "source_offset", "updated_at", "revision"]
    with home(tmp_path / "home") as other:
        for file in reversed(DAYS):
            other.k2("load", "--exchange", "binance", file)
            other.k2("run", "--until-end")
        for store in ("warm", "cold"):
            for interval in INTERVAL_NAMES:
                assert_frame_equal(candles(other, store, interval).drop(cause), candles(loaded, store, interval).drop(cause))


def test_exported_raw_topic_gives_identical_gold_in_a_fresh_home(loaded: Home, tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    loaded.k2("export", "raw", "--exchange", "binance", "-o", str(raw))
    with home(tmp_path / "home") as other:
        other.k2("load", "--exchange", "binance", str(raw))
        other.k2("run", "--until-end")
        for interval in INTERVAL_NAMES:
            assert_frame_equal(candles(other, "cold", interval), candles(loaded, "cold", interval))
