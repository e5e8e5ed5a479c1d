from __future__ import annotations

import pytest
import yaml

from cli.demo import _speed
from cli.demo_market import LISTED, SPEED, instruments_text, recordings
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
