"""Raw records go once they are old and every table has them; the flow goes on, and what is lost with them is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.generate import Workload
from connectors.topics.registry import open_topics
from market.record import topic_name
from tests.e2e.harness import home


def test_old_records_below_every_frontier_are_dropped_and_the_flow_goes_on(tmp_path: Path) -> None:
    workload = Workload(trades=4_000, symbols=4, exchanges=("binance",))
    with home(tmp_path / "home", K2_RAW_RETENTION="0.2") as where:
        where.fill(workload)
        where.k2("run", "--until-end")
        log = open_topics(f"sqlite:///{where.folder}/topics.db")
        starts, ends = log.start_offsets(topic_name("binance")), log.end_offsets(topic_name("binance"))
        assert starts == ends
        assert sum(starts) > 4_000
        more = Workload(trades=1_000, symbols=4, exchanges=("binance",), start_us=workload.start_us + 3_600_000_000, first_id=2_000_000)
        where.fill(more)
        log.close()
        where.k2("run", "--until-end")
        for store in ("warm", "cold"):
            assert where.silver_count(store) == 5_000, store

        shutil.rmtree(where.folder / "recovery")
        refused = where.k2("run", "--until-end", check=False)
        assert refused.returncode == 3
        assert "k2 recover" in refused.stderr
        refused = where.k2("recover", check=False)
        assert refused.returncode == 3
        assert "expired" in refused.stderr


def test_lost_recovery_folder_is_rebuilt_from_the_log_without_a_double_row(tmp_path: Path) -> None:
    workload = Workload(trades=4_000, symbols=4, exchanges=("binance",))
    with home(tmp_path / "home") as where:
        where.fill(workload)
        where.k2("run", "--until-end")
        before = {store: where.gold(store)["1m"] for store in ("warm", "cold")}
        (where.folder / "recovery" / "part-0.sqlite3").write_bytes(b"not a database")
        assert where.k2("run", "--until-end", check=False).returncode == 3
        where.k2("recover")
        where.k2("run", "--until-end")
        for store, candles in before.items():
            assert where.silver_count(store) == 4_000, store
            assert where.gold(store)["1m"].equals(candles), store
        where.audit()
