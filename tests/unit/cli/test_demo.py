from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
import yaml

from cli.demo import _say_what_next, _speed
from cli.demo_market import LISTED, SPEED, instruments_text, recordings
from config.settings import Settings
from market.errors import ConfigError


def test_listed_is_what_the_recordings_trade() -> None:
    assert {exchange for exchange, _ in recordings()} == set(LISTED)
    assert yaml.safe_load(instruments_text()) == {exchange: list(symbols) for exchange, symbols in LISTED.items()}


def test_speed_is_a_number_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("K2_DEMO_SPEED", raising=False)
    assert _speed() == SPEED
    monkeypatch.setenv("K2_DEMO_SPEED", "50")
    assert _speed() == 50.0
    for bad in ("fast", "0", "1000", "nan"):
        monkeypatch.setenv("K2_DEMO_SPEED", bad)
        with pytest.raises(ConfigError, match="K2_DEMO_SPEED"):
            _speed()


@pytest.mark.parametrize(("on_path", "program"), [("/usr/bin/k2", "k2"), (None, str(Path(sys.executable).parent / "k2"))])
def test_what_is_told_to_type_next_can_be_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, on_path: str | None, program: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("shutil.which", lambda _: on_path)
    _say_what_next(Settings(home=tmp_path / "my home"))
    lines = capsys.readouterr().err.split("\n")[1:-1]
    typed = [shlex.split(line.split(":  ", 1)[-1].strip()) for line in lines]
    assert typed == [
        ["K2_HOME=my home", program, *arguments] for arguments in (["status"], ["export", "candles", "-e", "binance", "-i", "1m"], ["down"])
    ]
