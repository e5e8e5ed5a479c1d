from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cli.lifecycle import _is_ours, flow_pids
from cli.screen import meter, print_table
from config.run_file import update_run
from config.settings import Settings
from dataflows.lock import ExecutionLock


def test_table_is_plain_aligned_text_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name", ">rows", "ok"], [["silver", 1234567, True], ["gold", None, False]], title="Tables")
    assert capsys.readouterr().out.splitlines() == ["Tables", "name         rows  ok", "silver  1,234,567  yes", "gold               no"]


@pytest.mark.parametrize(("columns", "lines"), [("60", 2), ("12", 2)])
def test_table_keeps_its_cells_whole_on_a_terminal_of_any_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str, lines: int
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", columns)
    print_table(["name", ">rows"], [["silver_trades", 1234567]])
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == lines
    assert "silver_trades" in shown[-1]
    assert "1,234,567" in shown[-1]


def test_progress_is_silent_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with meter("reading") as shown:
        shown.show(1, 2)
        shown.step("writing", 2, 2)
    assert capsys.readouterr() == ("", "")


def test_only_living_flows_count_as_running(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert flow_pids(settings) == []
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    other = subprocess.Popen(["sleep", "60"])
    flow = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "-m", "cli.main", "run"])
    try:
        update_run(tmp_path, pids={"flow": [done.pid, other.pid, flow.pid, "x", -1]})
        assert flow_pids(settings) == [flow.pid]
    finally:
        for process in (other, flow):
            process.kill()
            process.wait()
    assert not _is_ours(flow.pid)


def test_holder_of_the_lock_counts_even_when_the_run_file_forgot_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    script = "import sys, time; from pathlib import Path; from dataflows.lock import ExecutionLock\n"
    script += "ExecutionLock(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", script, str(settings.recovery_dir)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert flow_pids(settings) == [holder.pid]
    finally:
        holder.kill()
        holder.communicate()
    assert flow_pids(settings) == []
    with ExecutionLock(settings.recovery_dir) as lock:
        lock.acquire()
