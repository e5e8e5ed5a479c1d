"""The warm sink and its engine under kill -9 and freezes: every row is there, once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from config.run_file import read_run
from market.schema import DEAD_LETTERS, SILVER_TRADES, bronze_table
from sinks import warm_store
from sinks.clickhouse import WarmReader, prepare
from tests.integration.warm_outputs import EXCHANGE, PER_RECORD, TABLES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "home"
    prepare(warm_store.ensure(folder), TABLES)
    yield folder
    warm_store.stop(folder)


@pytest.fixture(autouse=True)
def no_child_outlives_its_test() -> Iterator[None]:
    yield
    while Child.started:
        Child.started.pop().kill()


class Child:
    """A feeding process; its output lines say how far it is."""

    started: ClassVar[list[Child]] = []

    def __init__(self, home: Path, state: Path, end: int, pause: float) -> None:
        arguments = [str(home), str(state), str(end), str(pause)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.warm_child", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        self.started.append(self)

    def wait_for(self, offset: int) -> None:
        assert self.process.stdout is not None
        line = ""
        for line in self.process.stdout:
            if line.strip().isdigit() and int(line) >= offset:
                return
        raise AssertionError(f"it ended with {self.process.wait()} before it came to {offset}: {line}")

    def end(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=120)
        return self.process.returncode, output

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        if self.process.stdout is not None and not self.process.stdout.closed:
            self.process.communicate()


def assert_exactly_once(home: Path, end: int) -> None:
    with WarmReader(warm_store.ensure(home)) as reader:
        for table, prefix, per_record in (
            (bronze_table(EXCHANGE), "kafka", PER_RECORD),
            (SILVER_TRADES, "source", PER_RECORD),
        ):
            found = reader.arrow(
                f"SELECT count() AS n, uniqExact({prefix}_offset, source_index) AS different, max({prefix}_offset) AS last FROM k2.{table.name}"
            ).to_pylist()[0]
            assert found == {"n": end * per_record, "different": end * per_record, "last": end - 1}, table.name
        letters = reader.read_table(DEAD_LETTERS, columns=["source_offset"])["source_offset"].to_pylist()
        assert sorted(letters) == list(range(0, end, 97))
        assert {f.offset for f in reader.frontiers()} == {end}
        assert reader.arrow("SELECT max(source_offset) AS o FROM k2.ohlcv_1d_view").to_pylist() == [{"o": end - 1}]


def kill_engine(home: Path) -> None:
    pid = read_run(home)["pids"].get("warm")
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):  # the run file names it until the next one is ready
            os.kill(pid, signal.SIGKILL)


def run_through_kills(home: Path, tmp_path: Path, seed: int, kills: int, end: int) -> None:
    chance = random.Random(seed)
    state = tmp_path / "state"
    child = Child(home, state, end, 0.002)
    for _ in range(kills):
        time.sleep(chance.uniform(0.05, 0.9))
        what = chance.choice(["engine", "child", "both", "supervisor"])
        if what in {"child", "both"}:
            child.kill()
        if what in {"engine", "both"}:
            kill_engine(home)
        if what == "supervisor" and (pid := warm_store.status(home).supervisor_pid):
            os.kill(pid, signal.SIGKILL)
        if child.process.poll() is not None:
            child.kill()
            child = Child(home, state, end, 0.002)
    code, output = child.end()
    assert code == 0, output
    assert_exactly_once(home, end)


def test_kills_of_engine_supervisor_and_flow_neither_lose_nor_double_rows(home: Path, tmp_path: Path) -> None:
    run_through_kills(home, tmp_path, seed=1, kills=8, end=6_000)


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(10, 16))
def test_many_kills(home: Path, tmp_path: Path, seed: int) -> None:
    run_through_kills(home, tmp_path, seed=seed, kills=40, end=60_000)


@pytest.mark.parametrize("frozen_at", [150, 600])
def test_a_frozen_flow_that_wakes_up_after_its_tables_were_taken_writes_nothing(home: Path, tmp_path: Path, frozen_at: int) -> None:
    zombie = Child(home, tmp_path / "state-a", 100_000, 0.003)
    zombie.wait_for(frozen_at)
    os.kill(zombie.process.pid, signal.SIGSTOP)
    try:
        code, output = Child(home, tmp_path / "state-b", 2_000, 0).end()
        assert code == 0, output
    finally:
        os.kill(zombie.process.pid, signal.SIGCONT)
    code, output = zombie.end()
    assert code == 3, output
    assert "Fenced" in output
    assert_exactly_once(home, 2_000)
