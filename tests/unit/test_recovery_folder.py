"""The recovery folder comes into being whole, or not at all."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from dataflows import runner
from market.errors import Refused


def tables(folder: Path) -> set[str]:
    (part,) = folder.glob("part-*.sqlite3")
    with contextlib.closing(sqlite3.connect(part)) as db:
        return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_death_while_it_is_made_leaves_nothing_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(folder: Path, count: int) -> None:
        (folder / "part-0.sqlite3").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(runner, "init_db_dir", die)
        with pytest.raises(KeyboardInterrupt):
            runner.prepare_recovery(tmp_path / "recovery")
    runner.prepare_recovery(tmp_path / "recovery")
    assert len(list((tmp_path / "recovery").iterdir())) == 1
    assert "parts" in tables(tmp_path / "recovery")


def test_it_is_kept_when_it_is_there_and_foreign_files_are_refused(tmp_path: Path) -> None:
    folder = runner.prepare_recovery(tmp_path / "recovery")
    (part,) = folder.glob("part-*.sqlite3")
    before = part.stat().st_ino
    assert next(runner.prepare_recovery(folder).glob("part-*.sqlite3")).stat().st_ino == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(Refused, match="k2 recover"):
        runner.prepare_recovery(tmp_path / "other")
