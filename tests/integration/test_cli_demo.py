"""The demo over real sockets, twice in the same home: its candles are the exchange's own, and nothing is stored twice."""

from __future__ import annotations

import csv
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from subprocess import CompletedProcess

import polars as pl
import pytest

from market.schema import OHLCV, SILVER_TRADES, TRADE_GAPS
from tests.e2e.harness import K2, Home, home

DATA = Path(__file__).parents[1] / "data" / "binance"
FIELDS = ("open_price", "high_price", "low_price", "close_price", "volume")
WHOLE_MS = range(1723161300000, 1723161900000, 60_000)  # the ten minutes that the recordings hold from end to end
STORES = ("warm", "cold")
CLOCK = re.compile(r"2024-08-09 (\d\d:\d\d):\d\d on the recordings' clock")


@dataclass(frozen=True)
class Played:
    """A home where the demo ran to the end of the recordings, and once more and on until Ctrl-C; and what it said."""

    home: Home
    once: CompletedProcess[str]
    on: CompletedProcess[str]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    with home(tmp_path_factory.mktemp("demo") / "home") as where:
        once = where.k2("demo", "--once")
        where.env["K2_DEMO_SPEED"] = "60"  # what is closed stays closed, so it may be quicker
        yield Played(where, once, _until_it_goes_on(where))


def _until_it_goes_on(where: Home) -> CompletedProcess[str]:
    with subprocess.Popen([*K2, "demo"], env=where.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        told: list[str] = []
        for line in process.stderr:
            told.append(line)
            goes_on = any(text.startswith("and on:") for text in told)
            if goes_on and (at := CLOCK.search(line)) and at[1] > "00:08":
                process.send_signal(signal.SIGINT)
                break
        told += process.stderr
        out = process.stdout.read()
        return CompletedProcess(process.args, process.wait(60), out, "".join(told))


def official(name: str) -> dict[int, list[Decimal]]:
    rows = csv.reader((DATA / name).read_text().splitlines())
    return {int(row[0]): [Decimal(value) for value in row[1:6]] for row in rows if row[0].isdigit()}


def complete(where: Home, interval: str, store: str) -> dict[int, list[Decimal]]:
    rows = where.rows(OHLCV[interval], store).filter(pl.col("is_complete") & pl.col("exchange").eq("binance"))
    starts = (rows["window_start"].to_physical() // 1000).to_list()
    return {start: list(values) for start, values in zip(starts, rows.select(FIELDS).rows(), strict=True)}


def test_it_shows_a_summary_and_a_chart(played: Played) -> None:
    out, err = played.once.stdout, played.once.stderr
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


def test_complete_candles_are_exactly_the_official_ones(played: Played) -> None:
    minutes = official("BTCUSDT-1m-20240808T2350_20240809T0010.csv")
    fives = official("BTCUSDT-5m-20240808T2340_20240809T0020_official_rows.csv")
    for store in STORES:
        found = {start: values for start, values in complete(played.home, "1m", store).items() if start < WHOLE_MS.stop}
        assert found == {start: minutes[start] for start in WHOLE_MS}, store
        found = {start: values for start, values in complete(played.home, "5m", store).items() if start < WHOLE_MS.stop}
        assert found == {start: fives[start] for start in WHOLE_MS[::5]}, store


def test_every_trade_came_twice_and_is_stored_once(played: Played) -> None:
    summary = played.once.stdout
    assert played.on.stdout.startswith(summary)
    for store in STORES:
        assert played.home.silver_count(store) > 20_177
        assert played.home.rows(TRADE_GAPS, store).is_empty()
        assert played.home.rows(SILVER_TRADES, store)["timestamp"].dt.year().unique().to_list() == [2024]  # all on one time line


def test_it_goes_on_until_ctrl_c_and_shows_the_chart(played: Played) -> None:
    assert played.on.returncode == 0, played.on.stderr
    chart = played.on.stdout.removeprefix(played.once.stdout)
    assert "binance BTC/USDT 1m" in chart
    assert "00:08" in chart
    assert "Traceback" not in played.on.stderr
    played.home.audit()
    starts = sorted(start for start in complete(played.home, "1m", "warm"))
    assert starts[:13] == list(range(WHOLE_MS.start, WHOLE_MS.start + 13 * 60_000, 60_000)), (
        "the recordings follow each other without a hole"
    )
