"""A replay into a fresh home, and trades that come after their candle has left memory."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from benchmarks.generate import START_US, Workload
from connectors.topics.base import APPEND_SCHEMA
from connectors.topics.registry import open_topics
from market.instrument import partition_of
from market.record import topic_name
from market.schema import OHLCV
from tests.e2e.harness import Home, home
from tests.e2e.test_kills import assert_same_gold

MINUTE = 60_000_000


def test_replay_in_other_batches_gives_identical_gold(tmp_path: Path) -> None:
    workload = Workload(trades=40_000, symbols=30, trouble=0.05, rate=200)
    with home(tmp_path / "large") as large, home(tmp_path / "small", K2_BATCH_RECORDS="700", K2_HORIZON="60") as small:
        large.fill(workload)
        small.fill(workload)
        large.k2("run", "--until-end")
        small.k2("run", "--until-end")
        assert_same_gold(large, small)


def append(where: Home, canonical: str, frames: list[tuple[str, int, str | None]]) -> None:
    """Append (payload, received_us, kind) records of one binance symbol."""
    log = open_topics(f"sqlite:///{where.folder}/topics.db")
    rows = {
        "key": ["" if kind else canonical.replace("/", "-") for _, _, kind in frames],
        "source": ["live"] * len(frames),
        "received_us": [received for _, received, _ in frames],
        "kind": [kind for _, _, kind in frames],
        "extra_headers": [None] * len(frames),
        "payload": [payload.encode() for payload, _, _ in frames],
    }
    log.append(topic_name("binance"), {partition_of(canonical, 4): pa.RecordBatch.from_pydict(rows, schema=APPEND_SCHEMA)})
    log.close()


def trade(number: int, time_us: int, price: str, quantity: str = "1.5") -> str:
    return json.dumps(
        {
            "e": "trade",
            "E": time_us // 1000,
            "s": "C000USDT",
            "t": number,
            "p": price,
            "q": quantity,
            "T": time_us // 1000,
            "m": False,
            "M": True,
        }
    )


def marker(from_us: int, to_us: int) -> str:
    return json.dumps({"feed": "test", "exchange": "binance", "from_us": from_us, "to_us": to_us, "symbols": ["C000/USDT"]})


@pytest.mark.parametrize("flushed", [True, False], ids=["stored", "not-yet-flushed"])
def test_trade_beyond_the_horizon_revises_exactly_its_candle_once_in_both_stores(tmp_path: Path, flushed: bool) -> None:
    workload = Workload(trades=0, symbols=2, exchanges=("binance",))
    minutes = 30
    with home(tmp_path / "home", K2_HORIZON="60") as where:
        where.fill(workload)
        frames = [(trade(1000 + m, START_US + m * MINUTE, "100.5"), START_US + m * MINUTE, None) for m in range(minutes)]
        end = START_US + minutes * MINUTE
        frames.append((marker(START_US - 1, end + 3_000_000), end, "marker"))
        append(where, "C000/USDT", frames)
        late = [(trade(999, START_US + 5 * MINUTE + 1, "250.25"), end, None)]
        if flushed:
            where.k2("run", "--until-end")
        append(where, "C000/USDT", late)
        where.k2("run", "--until-end")
        where.k2("run", "--until-end")  # nothing new: nothing changes
        where.audit()
        for store in ("warm", "cold"):
            rows = where.rows(OHLCV["1m"], store)
            assert rows.height == minutes, store
            revised = rows.filter(pl.col("revision") > 0)
            assert revised.height == 1, store
            assert revised["trade_count"].item() == 2
            assert str(revised["high_price"].item()).rstrip("0") == "250.25"
            assert revised["revision"].item() == 1
