"""A simulated market, feeds and a flow as real processes; and what the stores hold against the market's own books."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa

from market.schema import OHLCV, SILVER_TRADES, TRADE_GAPS
from sinks.clickhouse import WarmReader
from sinks.endpoint import Endpoint
from tests.e2e.harness import K2, Home

MINUTE_US: Final = 60_000_000
STORES: Final = ("warm", "cold")
_LISTENING: Final = re.compile(r"listening on (http://\S+)")


class Market:
    """A running `k2 simulate`, and its books."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.instruments = folder / "instruments.yaml"
        self.log = folder / "market.log"
        with self.log.open("ab") as out:
            command = [*K2, "simulate", "--port", "0", "--write-instruments", str(self.instruments), *options]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "K2_HOME": str(folder)})
        self.url = self._told_url()

    def _told_url(self) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = _LISTENING.search(self.log.read_text())
            if found is not None:
                return found[1]
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError("the market did not open")

    def ask(self, page: str, **query: str) -> bytes:
        """Return a page of the books."""
        url = f"{self.url}/books/{page}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            body: bytes = answer.read()
        return body

    def state(self) -> dict[str, Any]:
        """Return clock, ids and connections."""
        found: dict[str, Any] = json.loads(self.ask("state"))
        return found

    def symbols(self) -> list[tuple[str, str]]:
        """Return (exchange, canonical symbol) of everything that trades."""
        return [(name, symbol) for name, exchange in self.state()["exchanges"].items() for symbol in exchange["symbols"]]

    def trades(self, exchange: str, symbol: str) -> pl.DataFrame:
        """Return every trade made, ascending by id; `lost` ones no client can have."""
        body = self.ask("trades", exchange=exchange, symbol=symbol, format="arrow")
        frame = pl.from_arrow(pa.ipc.open_stream(body).read_all())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def klines(self, exchange: str, symbol: str, interval: str) -> list[dict[str, Any]]:
        """Return the candles of the trades that clients can have."""
        body = self.ask("klines", exchange=exchange, symbol=symbol, interval=interval, obtainable="1")
        return [json.loads(line) for line in body.splitlines()]

    def newest(self, *, since: int) -> dict[tuple[str, str], int]:
        """Return the last id of each symbol that traded at or after a time (epoch µs)."""
        every = {name: self.trades(*name) for name in self.symbols()}
        return {name: int(t["trade_id"][-1]) for name, t in every.items() if len(t) and t["timestamp"][-1] >= since}

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()


@dataclass
class LiveHome:
    """A home with feeds and a flow that run until they are told to stop."""

    home: Home
    market: Market
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *arguments: str) -> None:
        """Start a `k2` command; its output goes to NAME.log in the home."""
        with (self.home.folder / f"{name}.log").open("ab") as out:
            self.processes[name] = subprocess.Popen([*K2, *arguments], env=self.home.env, stdout=out, stderr=out)

    def log(self, name: str) -> str:
        """Return the end of what a process printed."""
        return (self.home.folder / f"{name}.log").read_text(errors="replace")[-6000:]

    def kill(self, name: str) -> None:
        """End a process with SIGKILL."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self, name: str, seconds: float = 60) -> None:
        """Ask a process to end; it must say that it did well."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        assert process.wait(seconds) == 0, f"{name} exited {process.returncode}\n{self.log(name)}"

    def check(self) -> None:
        """Fail when a process has ended by itself."""
        for name, process in self.processes.items():
            assert process.poll() is None, f"{name} exited {process.returncode}\n{self.log(name)}"

    def wait_for_feed(self, seconds: float = 60) -> int:
        """Wait until every symbol is subscribed; return the start (epoch µs) of the first minute that is covered from then on."""

        def subscribed() -> bool:
            exchanges = self.market.state()["exchanges"].values()
            return all(sum(c["subscribed"] for c in e["connections"].values()) >= len(e["symbols"]) for e in exchanges)

        self.wait_until(subscribed, "all subscriptions", seconds)
        return int((self.market.state()["now_us"] // MINUTE_US + 1) * MINUTE_US)

    def newest(self) -> dict[tuple[str, str], int]:
        """Return the highest trade id of each symbol that ClickHouse holds."""
        sql = "SELECT exchange, canonical_symbol, max(sequence_number) AS id FROM k2.silver_trades GROUP BY exchange, canonical_symbol"
        return {(row["exchange"], row["canonical_symbol"]): row["id"] for row in self.query(sql)}

    def count(self, rows: str) -> int:
        """Return how many rows ClickHouse has of `table WHERE condition`."""
        return int(self.query(f"SELECT count() AS n FROM {rows}")[0]["n"])

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a question to ClickHouse."""
        warm = self.home.run_file()["warm"]
        with WarmReader(Endpoint(warm["url"], warm["reader_user"], warm["reader_password"])) as reader:
            rows: list[dict[str, Any]] = reader.arrow(sql).to_pylist()
        return rows

    def wait_until(self, true: Callable[[], bool], what: str, seconds: float) -> None:
        """Poll until a condition holds, while all processes live."""
        deadline = time.monotonic() + seconds
        while not true():
            self.check()
            if time.monotonic() >= deadline:
                told = [self.market.ask("faults").decode(), *(self.log(name) for name in self.processes)]
                raise AssertionError(f"not within {seconds} s: {what}\n" + "\n".join(told))
            time.sleep(0.3)

    def close(self) -> None:
        """Kill what still runs."""
        for name in list(self.processes):
            self.kill(name)


@contextlib.contextmanager
def live(folder: Path, *options: str, **env: str) -> Iterator[LiveHome]:
    """A market with these options of `k2 simulate`, and a home whose feeds find it."""
    folder.mkdir(parents=True, exist_ok=True)
    market = Market(folder, *options)
    home = Home(folder / "home", K2_INSTRUMENTS=str(market.instruments), K2_VENUES_URL=market.url, **env)
    made = LiveHome(home, market)
    try:
        yield made
    finally:
        made.close()
        home.stop()
        market.close()


def minutes_from(offset_seconds: float) -> str:
    """Return a start time for a simulation: so many seconds before a full minute, near now."""
    now_us = time.time_ns() // 1000
    return str((now_us // MINUTE_US + 1) * MINUTE_US - round(offset_seconds * 1_000_000))


# ----------------------------------------------------------------------------------------------------- against the books


@dataclass(frozen=True)
class Truth:
    """One symbol by the market's books: what a feed that began at `first_id` can have, and what nobody can."""

    exchange: str
    symbol: str
    obtainable: pl.DataFrame
    lost: list[tuple[int, int, int, int]]  # first, last, event times of the neighbours

    @property
    def first_us(self) -> int:
        """Time of the first trade that is stored."""
        return int(self.obtainable["timestamp"][0])

    def touched(self, start: int, end: int) -> bool:
        """Return whether lost ids touch a window."""
        return any(min(a, b) < end and max(a, b) >= start for _, _, a, b in self.lost)


def truth_of(market: Market, exchange: str, symbol: str, first_id: int) -> Truth:
    """Return the books' truth from an id on."""
    trades = market.trades(exchange, symbol).filter(pl.col("trade_id") >= first_id)
    had = trades.filter(~pl.col("lost"))
    ids, times = had["trade_id"].to_list(), had["timestamp"].to_list()
    lost = [(a + 1, b - 1, times[k], times[k + 1]) for k, (a, b) in enumerate(pairwise(ids)) if b > a + 1]
    return Truth(exchange, symbol, had, lost)


def assert_stores_equal_books(live: LiveHome, *, first_whole_window: int) -> dict[str, int]:
    """Compare silver, gaps and candles of both stores with the market's books; return counts of what was compared.

    Args:
        live: at rest: the market has ended, the flow has committed everything.
        first_whole_window: start (epoch µs) from which on windows were covered from their beginning.
    """
    counts = {"trades": 0, "lost_ranges": 0, "candles": 0, "complete": 0, "incomplete": 0}
    traded = live.market.newest(since=first_whole_window)
    for store in STORES:
        silver, gaps = live.home.rows(SILVER_TRADES, store), live.home.rows(TRADE_GAPS, store)
        candles = {name: live.home.rows(table, store) for name, table in OHLCV.items()}
        for exchange, symbol in live.market.symbols():
            mine = pl.col("exchange").eq(exchange) & pl.col("canonical_symbol").eq(symbol)
            rows = silver.filter(mine).sort("sequence_number")
            if rows.is_empty():  # it may have traded before the feed was there, and no more
                assert (exchange, symbol) not in traded, f"{store}: nothing of {exchange} {symbol}"
                continue
            truth = truth_of(live.market, exchange, symbol, rows["sequence_number"][0])
            _same_trades(store, truth, rows)
            _same_gaps(store, truth, gaps.filter(mine))
            counts["trades"] += len(rows)
            counts["lost_ranges"] += len(truth.lost)
            for interval, table in candles.items():
                found = _same_candles(live.market, store, truth, interval, table.filter(mine), first_whole_window)
                for name, n in found.items():
                    counts[name] += n
    return counts


def _same_trades(store: str, truth: Truth, rows: pl.DataFrame) -> None:
    where = f"{store} {truth.exchange} {truth.symbol}"
    ids, expected = rows["sequence_number"].to_list(), truth.obtainable["trade_id"].to_list()
    missing, extra = sorted(set(expected) - set(ids)), sorted(set(ids) - set(expected))
    assert not missing, f"{where}: {len(missing)} trades are missing, first {missing[:5]}"
    assert not extra, f"{where}: {len(extra)} trades the market never made, first {extra[:5]}"
    assert len(ids) == len(expected), f"{where}: {len(ids) - len(expected)} trades twice"
    stored = rows.select(
        trade_id="sequence_number", timestamp=pl.col("timestamp").to_physical(), price="price", quantity="quantity", side="side"
    )
    assert stored.equals(truth.obtainable.select(stored.columns)), f"{where}: trades differ in their fields"


def _same_gaps(store: str, truth: Truth, events: pl.DataFrame) -> None:
    newest = events.sort("source_offset", "source_index").group_by("first_id", "last_id").last().filter(pl.col("state") != "filled")
    now = sorted(newest.select("first_id", "last_id", "state").rows())
    expected = sorted((first, last, "unfillable") for first, last, _, _ in truth.lost)
    assert now == expected, f"{store} {truth.exchange} {truth.symbol}: gaps {now[:5]}, by the books {expected[:5]}"


_FIELDS: Final = {
    "open": "open_price",
    "high": "high_price",
    "low": "low_price",
    "close": "close_price",
    "volume": "volume",
    "quote_volume": "quote_volume",
    "trade_count": "trade_count",
    "taker_buy_volume": "taker_buy_volume",
    "taker_buy_quote_volume": "taker_buy_quote_volume",
}


def _same_candles(market: Market, store: str, truth: Truth, interval: str, rows: pl.DataFrame, first_whole: int) -> dict[str, int]:
    where = f"{store} {truth.exchange} {truth.symbol} {interval}"
    books = {line["window_start"]: line for line in market.klines(truth.exchange, truth.symbol, interval)}
    found = rows.with_columns(pl.col("window_start", "window_end").to_physical()).sort("window_start").to_dicts()
    complete = 0
    for row in found:
        start, end = row["window_start"], row["window_end"]
        if start > truth.first_us:  # else trades of before the feed's start are in the books' candle
            line = books.pop(start)
            for theirs, ours in _FIELDS.items():
                assert pl.Series([line[theirs]]).cast(pl.Decimal(38, 18))[0] == row[ours], (
                    f"{where} {start} {ours}: {row[ours]}, books {line}"
                )
        expected = start >= first_whole and not truth.touched(start, end)
        if expected and start <= truth.first_us:
            # An outage before the first trade that is known cannot be bridged by ids: whether there was one decides.
            expected = row["is_complete"]
        assert row["is_complete"] == expected, f"{where} {start}: is_complete {row['is_complete']}, by the books {expected}; {row}"
        complete += expected
    last_closed = max((row["window_end"] for row in found), default=0)
    left = [start for start in books if start > truth.first_us and start < last_closed]
    assert not left, f"{where}: no candle of {left[:5]}"
    return {"candles": len(found), "complete": complete, "incomplete": len(found) - complete}
