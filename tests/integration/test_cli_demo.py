"""The demo over real sockets, twice in the same home: its candles are the exchange's own, and nothing is stored twice."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from subprocess import CompletedProcess

import polars as pl
import pytest

from market.schema import OHLCV, SILVER_TRADES, TRADE_GAPS
from tests.e2e.harness import Home, home

DATA = Path(__file__).parents[1] / "data" / "binance"
FIELDS = ("open_price", "high_price", "low_price", "close_price", "volume")
WHOLE_MS = range(1723161300000, 1723161900000, 60_000)  # the ten minutes that the recordings hold from end to end
STORES = ("warm", "cold")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, CompletedProcess[str], CompletedProcess[str]]]:
    with home(tmp_path_factory.mktemp("demo") / "home") as where:
        first = where.k2("demo", "--once")
        where.env["K2_DEMO_SPEED"] = "200"  # what is closed stays closed, so it may be quicker
        yield where, first, where.k2("demo", "--once")


def official(name: str) -> dict[int, list[Decimal]]:
    rows = csv.reader((DATA / name).read_text().splitlines())
    return {int(row[0]): [Decimal(value) for value in row[1:6]] for row in rows if row[0].isdigit()}


def complete(where: Home, interval: str, store: str) -> dict[int, list[Decimal]]:
    rows = where.rows(OHLCV[interval], store).filter(pl.col("is_complete") & pl.col("exchange").eq("binance"))
    starts = (rows["window_start"].to_physical() // 1000).to_list()
    return {start: list(values) for start, values in zip(starts, rows.select(FIELDS).rows(), strict=True)}


def test_it_shows_a_summary_and_a_chart(played: tuple[Home, CompletedProcess[str], CompletedProcess[str]]) -> None:
    out, err = played[1].stdout, played[1].stderr
    lines = out[: out.index("dead letters")].splitlines()
    rows = {" ".join(line.split()[:2]): line.split()[2:] for line in lines}
    assert rows["binance BTC/USDT"][0] == "19,904"
    assert (rows["kraken BTC/USD"][0], rows["kraken ETH/USD"][0]) == ("12", "5")
    assert int(rows["coinbase BTC/USD"][0]) + int(rows["coinbase ETH/USD"][0]) == 256
    assert rows["binance BTC/USDT"][-2:] == ["10", "0"]
    assert "dead letters: 0" in out
    assert "audit: clean (20,177 trades recomputed" in out
    chart = out[out.index("binance BTC/USDT 1m") :]
    assert "┤" in chart
    assert "█" in chart
    assert "23:54" in chart
    for told in ("simulator listening on", "feed connected  connection=binance", "on the recordings' clock", "flow ended", "k2 status"):
        assert told in err


def test_complete_candles_are_exactly_the_official_ones(played: tuple[Home, CompletedProcess[str], CompletedProcess[str]]) -> None:
    minutes = official("BTCUSDT-1m-20240808T2350_20240809T0010.csv")
    fives = official("BTCUSDT-5m-20240808T2340_20240809T0020_official_rows.csv")
    for store in STORES:
        assert complete(played[0], "1m", store) == {start: minutes[start] for start in WHOLE_MS}, store
        assert complete(played[0], "5m", store) == {start: fives[start] for start in WHOLE_MS[::5]}, store


def test_every_trade_came_twice_and_is_stored_once(played: tuple[Home, CompletedProcess[str], CompletedProcess[str]]) -> None:
    where, first, again = played
    assert again.stdout == first.stdout
    for store in STORES:
        assert where.silver_count(store) == 20_177
        assert where.rows(TRADE_GAPS, store).is_empty()
        assert where.rows(SILVER_TRADES, store)["timestamp"].dt.year().unique().to_list() == [2024]  # all on one time line
