"""Start, stop, lock, recover: what runs in a home."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.generate import Workload
from tests.cli_calls import call
from tests.e2e.harness import Home, home, wait_until

WORK = Workload(trades=2_000, symbols=6, rate=20)


@pytest.fixture
def where(tmp_path: Path) -> Iterator[Home]:
    with home(tmp_path / "home") as made:
        made.fill(WORK)
        yield made


def positions(where: Home) -> int:
    return sum(row["frontier"] or 0 for row in json.loads(call(where.env, "status", "--json").text))


def test_up_prepares_and_down_stops_and_data_stays(where: Home) -> None:
    up = call(where.env, "up")
    assert f"sqlite:///{where.folder}/topics.db" in up.err
    assert where.run_file()["cold"] == f"sqlite:///{where.folder}/cold/catalog.db"
    assert all(r["rows"] == 0 for r in json.loads(call(where.env, "status", "--json").text))
    where.k2("run", "--until-end")
    before = call(where.env, "export", "candles").text
    assert "stopped" in call(where.env, "down").err
    status = call(where.env, "status", "--json")
    assert "does not run" in status.err
    found = json.loads(status.text)
    assert {r["frontier"] for r in found if r["store"] == "warm"} == {None}
    assert all(r["lag"] == 0 for r in found if r["store"] == "cold")
    assert "nothing runs" in call(where.env, "down").err
    assert call(where.env, "export", "candles").text == before


def test_second_flow_is_refused_and_down_drains_the_first(where: Home) -> None:
    first = where.start("run")
    wait_until(lambda: positions(where) > 0, first, where)
    refused = where.k2("run", "--until-end", check=False)
    assert refused.returncode == 3
    assert f"is held by process {first.pid}" in refused.stderr
    assert "--take-over" in refused.stderr
    recover = call(where.env, "recover", code=None)
    assert recover.code == 3
    call(where.env, "down")
    assert first.wait(5) == 0, where.log_tail()
    call(where.env, "audit")


def test_interrupt_drains_and_exits_0(where: Home) -> None:
    flow = where.start("run")
    wait_until(lambda: positions(where) > 0, flow, where)
    flow.send_signal(signal.SIGINT)
    assert flow.wait(60) == 0, where.log_tail()
    assert all(r["lag"] == 0 for r in json.loads(call(where.env, "status", "--json").text))


def test_recover_moves_the_folder_aside_and_nothing_changes(where: Home) -> None:
    where.k2("run", "--until-end")
    before = call(where.env, "export", "trades").text
    recovery = where.folder / "recovery"
    for file in recovery.glob("part-*"):
        file.write_bytes(b"damaged")
    broken = where.k2("run", "--until-end", check=False)
    assert broken.returncode == 3
    assert "k2 recover" in broken.stderr
    assert "is now" in call(where.env, "recover").err
    assert [p for p in where.folder.iterdir() if p.name.startswith("recovery.2")]
    where.k2("run", "--until-end")
    assert call(where.env, "export", "trades").text == before
    call(where.env, "audit")
