from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from config.run_file import change_pids, read_run, run_path, update_run
from market.errors import ConfigError


def test_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"the home .*/file/home \(K2_HOME\) cannot be used: Not a directory"):
        update_run(tmp_path / "file" / "home")


def test_no_file_reads_as_empty(tmp_path: Path) -> None:
    assert read_run(tmp_path) == {}


def test_sections_are_merged_one_level_deep(tmp_path: Path) -> None:
    update_run(tmp_path, topics="sqlite:///a", pids={"warm": 1, "flow": [2]})
    update_run(tmp_path, pids={"flow": [3], "feed": [4]})
    assert read_run(tmp_path) == {"topics": "sqlite:///a", "pids": {"warm": 1, "flow": [3], "feed": [4]}}


def test_none_removes_a_key_or_a_section(tmp_path: Path) -> None:
    update_run(tmp_path, topics="x", pids={"warm": 1, "flow": []})
    update_run(tmp_path, topics=None, pids={"warm": None})
    assert read_run(tmp_path) == {"pids": {"flow": []}}


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    update_run(tmp_path / "new" / "home", topics="x")
    assert stat.S_IMODE(run_path(tmp_path / "new" / "home").stat().st_mode) == 0o600


def test_concurrent_updates_lose_nothing(tmp_path: Path) -> None:
    threads = [threading.Thread(target=update_run, args=(tmp_path,), kwargs={"pids": {f"p{n}": n}}) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_run(tmp_path)["pids"] == {f"p{n}": n for n in range(12)}
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".run.json.")] == []


def test_processes_of_a_role_come_and_go_one_at_a_time(tmp_path: Path) -> None:
    def come(pid: int) -> None:
        change_pids(tmp_path, "feed", lambda pids: [*pids, pid])

    threads = [threading.Thread(target=come, args=(pid,)) for pid in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_run(tmp_path)["pids"]["feed"]) == list(range(12))
    change_pids(tmp_path, "feed", lambda pids: [pid for pid in pids if pid == 3])
    assert read_run(tmp_path)["pids"] == {"feed": [3]}


@pytest.mark.parametrize("content", ["{", json.dumps([1])])
def test_a_damaged_file_is_a_clear_error(tmp_path: Path, content: str) -> None:
    run_path(tmp_path).write_text(content)
    with pytest.raises(ConfigError, match=r"run\.json"):
        read_run(tmp_path)
