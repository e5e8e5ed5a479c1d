"""Exactly once under kill -9: afterwards the audit is clean and every candle is that of an undisturbed run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from benchmarks.generate import Workload
from tests.e2e.harness import Home, home, run_with_kills, wait_until


def assert_same_gold(left: Home, right: Home) -> None:
    for store in ("warm", "cold"):
        expected, got = left.gold(store), right.gold(store)
        for interval, frame in expected.items():
            assert_frame_equal(got[interval], frame), (store, interval)


def prove_kills(
    tmp_path: Path, workload: Workload, seed: int, kills: int, at_least: int, pause: tuple[float, float], epoch_records: int
) -> None:
    # Records an epoch bound how fast the log is read, so that on any machine the run is long enough for its kills.
    with home(tmp_path / "calm") as calm, home(tmp_path / "killed", K2_EPOCH_RECORDS=str(epoch_records)) as killed:
        calm.fill(workload)
        trades = killed.fill(workload)
        calm.k2("run", "--until-end")
        hits = run_with_kills(killed, seed, kills, pause=pause)
        assert hits >= at_least, "the kills missed the run: make it longer"
        killed.audit()
        for store in ("warm", "cold"):
            assert killed.silver_count(store) == trades, store
        assert_same_gold(calm, killed)


def test_killed_flow_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    workload = Workload(trades=60_000, symbols=40, trouble=0.02)
    prove_kills(tmp_path, workload, seed=1, kills=4, at_least=2, pause=(0.5, 4.0), epoch_records=2_000)


@pytest.mark.prove
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
def test_fifty_kills_over_half_a_million_trades(tmp_path: Path, seed: int) -> None:
    workload = Workload(trades=500_000, symbols=100, trouble=0.02, seed=seed)
    prove_kills(tmp_path, workload, seed=seed, kills=10, at_least=10, pause=(1.0, 6.0), epoch_records=4_000)


def test_frozen_flow_that_wakes_up_after_its_tables_were_taken_writes_nothing(tmp_path: Path) -> None:
    workload = Workload(trades=60_000, symbols=20)
    with home(tmp_path / "home") as where:
        trades = where.fill(workload)
        zombie = where.start("run", K2_RECOVERY_DIR=str(tmp_path / "zombie"))
        wait_until(lambda: where.frontier_total() > 0, zombie, where)
        os.kill(zombie.pid, signal.SIGSTOP)
        where.k2("run", "--until-end")
        late = Workload(trades=5_000, symbols=20, start_us=workload.start_us + 3_600_000_000, first_id=2_000_000)
        where.fill(late)
        os.kill(zombie.pid, signal.SIGCONT)
        assert zombie.wait(60) == 3, where.log_tail()
        where.k2("run", "--until-end")
        where.audit()
        for store in ("warm", "cold"):
            assert where.silver_count(store) == trades + 5_000, store
