"""Killed, frozen and restarted at random moments, each row is stored once and each candle is right."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from market.schema import SILVER_TRADES
from sinks.iceberg import ColdReader, open_catalog
from tests.gold_rows import changes_of, key_of, naive_merge
from tests.integration.cold_child import BATCH, BRONZE, CANDLES, PARTITION, TABLES, changes_at
from tests.integration.cold_outputs import at, causes, expected, store, url_of, wait_until
from tests.integration.warm_outputs import TOPIC

ROOT = Path(__file__).parents[2]
ENDLESS = 1 << 40


class Flows:
    """Starts runs of `cold_child` and ends them, by pid."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.cold_child"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.alive: set[int] = set()

    def start(self, folder: Path, end: int, seed: int) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{folder} {end} {seed}\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        self.alive.add(pid)
        return pid

    def kill(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid))
        self.alive.discard(pid)

    def close(self) -> None:
        for pid in list(self.alive):
            self.kill(pid)
        self.process.kill()
        self.process.communicate()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def flows() -> Iterator[Flows]:
    flows = Flows()
    yield flows
    flows.close()


def finish(flows: Flows, folder: Path) -> None:
    """Run some way further without trouble, then compare everything with what a single undisturbed run would have stored."""
    reader = ColdReader(store(folder, TABLES))
    reached = max((row.offset for row in reader.frontiers()), default=0)
    end = (reached // BATCH + 10) * BATCH
    pid = flows.start(folder, end, 1)
    wait_until(lambda: not is_alive(pid), 120)
    assert [f.read_text() for f in folder.glob("failed.*")] == []
    assert (folder / "done").exists()
    catalog = open_catalog(url_of(folder))
    assert causes(catalog, SILVER_TRADES) == expected(end, PARTITION)
    assert causes(catalog, BRONZE) == expected(end, PARTITION)
    candles = reader.read(CANDLES).to_pylist()
    oracle: dict[tuple[Any, ...], dict[str, Any]] = {}
    for first in range(0, end, BATCH):
        naive_merge(oracle, changes_of(changes_at(first)).to_pylist())
    assert len(candles) == len(oracle)
    assert {key_of(row): row for row in candles} == oracle
    for table in TABLES:
        assert reader.status(table).frontier == {(TOPIC, PARTITION): at(end)}


def live_a_while(rng: random.Random, folder: Path) -> None:
    """Wait for a moment: mostly somewhere in the first epochs after a start, else somewhere in the start itself."""
    if rng.random() < 0.2:
        time.sleep(rng.random() * 0.4)
        return
    before, patience = saved_at(folder), time.monotonic() + 10
    # Not for ever: a flow may have been frozen with SQLite's lock in its hands, and then no other one comes to anything.
    while saved_at(folder) == before and time.monotonic() < patience:
        time.sleep(0.01)
    time.sleep(rng.random() * 0.5)


def saved_at(folder: Path) -> int:
    try:
        return (folder / "state").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def kill_at_random(flows: Flows, folder: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    store(folder, TABLES)
    for number in range(kills):
        pid = flows.start(folder, ENDLESS, seed * 1000 + number)
        live_a_while(rng, folder)
        flows.kill(pid)
        if rng.random() < 0.2:
            (folder / "state").unlink(missing_ok=True)  # a lost recovery folder: from the log's start, hidden behind the frontiers
    finish(flows, folder)


def test_rows_are_stored_once_after_kills_at_random_moments(flows: Flows, tmp_path: Path) -> None:
    kill_at_random(flows, tmp_path, kills=8, seed=1)


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(10, 14))
def test_rows_are_stored_once_after_many_kills(flows: Flows, tmp_path: Path, seed: int) -> None:
    kill_at_random(flows, tmp_path, kills=25, seed=seed)


def thaw_after_takeover(flows: Flows, folder: Path, rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    store(folder, TABLES)
    for number in range(rounds):
        frozen = flows.start(folder, ENDLESS, seed + number)
        live_a_while(rng, folder)
        with suppress(ProcessLookupError):
            os.kill(frozen, signal.SIGSTOP)
        (folder / "state").unlink(missing_ok=True)  # the successor has another recovery folder
        successor = flows.start(folder, ENDLESS, seed * 7 + number)
        live_a_while(rng, folder)
        with suppress(ProcessLookupError):
            os.kill(frozen, signal.SIGCONT)
        time.sleep(0.3 + rng.random() * 0.7)
        flows.kill(frozen)
        flows.kill(successor)
        (folder / "state").unlink(missing_ok=True)
    finish(flows, folder)


def test_a_frozen_flow_that_wakes_up_stores_nothing(flows: Flows, tmp_path: Path) -> None:
    thaw_after_takeover(flows, tmp_path, rounds=3, seed=5)


@pytest.mark.prove
def test_frozen_flows_that_wake_up_store_nothing(flows: Flows, tmp_path: Path) -> None:
    thaw_after_takeover(flows, tmp_path, rounds=20, seed=6)
