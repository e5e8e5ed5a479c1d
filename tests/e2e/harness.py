"""A K2 home of its own per test, the flow as a real process, and what both stores hold afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from benchmarks.generate import Workload, fill, write_instruments
from connectors.topics.registry import open_topics
from market.schema import OHLCV, SILVER_TRADES, Layer, Table
from sinks.clickhouse import WarmReader
from sinks.endpoint import Endpoint
from sinks.iceberg import ColdReader, open_catalog

K2 = [sys.executable, "-m", "cli.main"]
RUN_SECONDS = 500


class Home:
    """One home folder with its own topics, stores and flow processes."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.env = {**os.environ, "K2_HOME": str(folder), "K2_COMMIT_INTERVAL": "1", "K2_EPOCH_INTERVAL": "1", **env}

    def fill(self, workload: Workload) -> int:
        """Write a workload into the home's topics and list its instruments."""
        self.env["K2_INSTRUMENTS"] = str(write_instruments(workload, self.folder / "instruments.yaml"))
        log = open_topics(self.env.get("K2_TOPICS_URL", f"sqlite:///{self.folder}/topics.db"))
        try:
            return fill(log, workload)
        finally:
            log.close()

    def k2(self, *arguments: str, check: bool = True, seconds: float = RUN_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a `k2` command to its end."""
        done = subprocess.run([*K2, *arguments], env=self.env, capture_output=True, text=True, timeout=seconds, check=False)
        if check and done.returncode:
            raise AssertionError(f"k2 {' '.join(arguments)} exited {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
        """Start a `k2` command in the background; its output goes to flow.log in the home."""
        with (self.folder / "flow.log").open("ab") as out:
            return subprocess.Popen([*K2, *arguments], env={**self.env, **env}, stdout=out, stderr=out, start_new_session=True)

    def log_tail(self) -> str:
        """Return the end of what the flow printed."""
        return (self.folder / "flow.log").read_text(errors="replace")[-4000:]

    def run_file(self) -> dict[str, Any]:
        """Return the home's run.json."""
        return json.loads((self.folder / "run.json").read_text())

    def rows(self, table: Table, store: str) -> pl.DataFrame:
        """Return all rows of a table of one store, sorted by its key; of candles the newest row of each closed one."""
        if store == "warm":
            warm = self.run_file()["warm"]
            with WarmReader(Endpoint(warm["url"], warm["reader_user"], warm["reader_password"])) as reader:
                found = reader.read_table(table, "is_closed" if table.layer is Layer.GOLD else "")
        else:
            found = ColdReader(open_catalog(self.env.get("K2_COLD_URL", f"sqlite:///{self.folder}/cold/catalog.db"))).read(table)
        frame = pl.from_arrow(found.select([f.name for f in table.arrow_schema(warm=True) if not pa.types.is_map(f.type)]))
        assert isinstance(frame, pl.DataFrame)
        return frame.sort(table.key)

    def gold(self, store: str) -> dict[str, pl.DataFrame]:
        """Return the closed candles of every interval."""
        return {name: self.rows(table, store) for name, table in OHLCV.items()}

    def silver_count(self, store: str) -> int:
        """Return the number of silver rows, after checking that no trade is there twice."""
        silver = self.rows(SILVER_TRADES, store)
        assert silver.select("exchange", "canonical_symbol", "trade_id").is_unique().all()
        return silver.height

    def frontier_total(self) -> int:
        """Return the sum of all frontiers of both stores; 0 while nothing is committed."""
        done = self.k2("status", "--json", check=False)
        return sum(row["frontier"] or 0 for row in json.loads(done.stdout)) if done.returncode == 0 else 0

    def audit(self) -> None:
        """Fail unless raw topic, warm and cold agree."""
        done = self.k2("audit", check=False)
        assert done.returncode == 0, (
            f"audit exited {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}\n--- flow\n{self.log_tail()}"
        )

    def stop(self) -> None:
        """Stop the warm store and whatever still runs here."""
        with contextlib.suppress(Exception):
            self.k2("down", check=False, seconds=60)


@contextlib.contextmanager
def home(folder: Path, **env: str) -> Iterator[Home]:
    """A home that is stopped at the end."""
    made = Home(folder, **env)
    try:
        yield made
    finally:
        made.stop()


def run_with_kills(where: Home, seed: int, kills: int, *, pause: tuple[float, float], warm_share: float = 0.2) -> int:
    """Run to the end of the log, killing the flow (and now and then the warm store) at seeded random moments.

    Returns the number of kills that hit a living process.
    """
    rng = random.Random(seed)
    hits = 0
    for _ in range(kills):
        flow = where.start("run", "--until-end")
        wait = rng.uniform(*pause)
        victim_is_warm = rng.random() < warm_share
        try:
            flow.wait(wait)
        except subprocess.TimeoutExpired:
            if victim_is_warm and _kill_warm(where):
                hits += 1
                time.sleep(rng.uniform(0.0, 1.5))
            if flow.poll() is None:
                flow.kill()
                hits += 1
            flow.wait(30)
        else:
            if flow.returncode == 0:
                break
            raise AssertionError(f"flow exited {flow.returncode}\n{where.log_tail()}")
    done = where.start("run", "--until-end")
    assert done.wait(RUN_SECONDS) == 0, where.log_tail()
    return hits


def _kill_warm(where: Home) -> bool:
    try:
        pid = where.run_file()["pids"]["warm"]
        os.kill(pid, signal.SIGKILL)
    except (OSError, KeyError, TypeError, ValueError):
        return False
    return True


def wait_until(true: Callable[[], bool], process: subprocess.Popen[bytes], where: Home, seconds: float = 60) -> None:
    """Poll until a condition holds, while the process lives."""
    deadline = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, f"exited {process.returncode}\n{where.log_tail()}"
        assert time.monotonic() < deadline, f"not within {seconds} s\n{where.log_tail()}"
        time.sleep(0.1)
