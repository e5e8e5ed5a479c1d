"""`k2 live`: several processes that come and go as one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli_calls import call
from tests.e2e.harness import K2
from tests.e2e.live import live

pytestmark = [pytest.mark.prove, pytest.mark.timeout(200)]


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


def run_json(home: Path) -> str:
    path = home / "run.json"
    return path.read_text() if path.exists() else ""


def candles(env: dict[str, str]) -> int:
    found = call(env, "export", "candles", "--open", "--format", "jsonl", code=None)
    return len(found.text.splitlines()) if found.code == 0 else 0
