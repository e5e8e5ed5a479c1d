"""`k2 live`: several processes that come and go as one."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli_calls import call
from tests.e2e.harness import K2
from tests.e2e.live import live

pytestmark = pytest.mark.prove


def test_feed_flow_and_store_start_and_stop_together(tmp_path: Path) -> None:
    with live(tmp_path, "--symbols", "2", "--rate", "300") as where:
        where.start("live", "live")
        where.wait_until(lambda: '"pids"' in run_json(where.home.folder) and candles(where.home.env) > 0, "candles", 120)
        pids = json.loads(run_json(where.home.folder))["pids"]
        assert len(pids["feed"]) == len(pids["flow"]) == 1
        where.stop("live", 90)
        said = where.log("live")
        assert "feed connected" in said
        assert "flow ended" in said
        assert json.loads(run_json(where.home.folder))["pids"] == {"feed": [], "flow": []}
        call(where.home.env, "audit")


def test_k2_down_ends_it_from_outside(tmp_path: Path) -> None:
    with live(tmp_path, "--symbols", "2", "--rate", "300", "-e", "kraken") as where:
        where.start("live", "live")
        where.wait_until(lambda: "flow" in where.log("live") and "feed connected" in where.log("live"), "the start", 120)
        where.home.k2("down")
        assert where.processes.pop("live").wait(60) == 0


def test_wrong_list_is_named_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "instruments.yaml"
    path.write_text("krakn: [BTC/USD]")
    env = {"K2_HOME": str(tmp_path / "home"), "K2_INSTRUMENTS": str(path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([*K2, "live"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "did you mean kraken" in done.stderr) == (2, True)


def test_second_one_of_a_home_is_refused_and_does_not_disturb_the_first(tmp_path: Path) -> None:
    with live(tmp_path, "--symbols", "2", "--rate", "300", "-e", "kraken") as where:
        where.start("live", "live")
        where.wait_until(lambda: candles(where.home.env) > 0, "candles", 120)
        before = json.loads(run_json(where.home.folder))
        refused = where.home.k2("live", check=False)
        assert (refused.returncode, "a flow is running here" in refused.stderr) == (3, True)
        assert json.loads(run_json(where.home.folder)) == before, "no feed came and went, no store was stopped"
        assert candles(where.home.env) > 0
        where.stop("live", 90)


def test_terminal_that_closes_stops_everything(tmp_path: Path) -> None:
    with live(tmp_path, "--symbols", "2", "--rate", "300", "-e", "kraken") as where:
        where.start("live", "live")
        where.wait_until(lambda: candles(where.home.env) > 0, "candles", 120)
        warm = json.loads(run_json(where.home.folder))["pids"]["warm"]
        where.processes["live"].send_signal(signal.SIGHUP)
        assert where.processes.pop("live").wait(90) == 0
        assert "flow ended" in where.log("live")
        assert json.loads(run_json(where.home.folder))["pids"] == {"feed": [], "flow": []}
        assert not Path(f"/proc/{warm}").exists()


def test_parts_of_a_killed_one_drain_and_end(tmp_path: Path) -> None:
    with live(tmp_path, "--symbols", "2", "--rate", "300", "-e", "kraken") as where:
        where.start("live", "live")
        where.wait_until(lambda: candles(where.home.env) > 0, "candles", 120)
        pids = json.loads(run_json(where.home.folder))["pids"]
        where.kill("live")
        where.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in (*pids["feed"], *pids["flow"])), "the end", 60)
        assert json.loads(run_json(where.home.folder))["feeds"] == {}
        where.home.k2("run", "--until-end")
        call(where.home.env, "audit")


def run_json(home: Path) -> str:
    path = home / "run.json"
    return path.read_text() if path.exists() else ""


def candles(env: dict[str, str]) -> int:
    found = call(env, "export", "candles", "--open", "--format", "jsonl", code=None)
    return len(found.text.splitlines()) if found.code == 0 else 0
