from __future__ import annotations

from pathlib import Path

import pytest

from cli.load import load
from cli.streams import keep_streams
from config.run_file import read_run
from connectors.venues.registry import build_instruments
from market.errors import ConfigError
from market.instrument import Instruments


def listed(*entries: object) -> dict[str, Instruments]:
    return {"binance": build_instruments("binance", list(entries)), "kraken": build_instruments("kraken", ["BTC/USD"])}


def test_the_stream_of_a_symbol_is_fixed_for_a_home_also_when_it_was_taken_off_the_list(tmp_path: Path) -> None:
    keep_streams(tmp_path, listed("BTC/USDT", {"symbol": "ETH/USDT", "stream": "aggTrade"}))
    keep_streams(tmp_path, listed({"symbol": "ETH/USDT", "stream": "aggTrade"}, "SOL/USDT"))
    with pytest.raises(ConfigError, match="binance BTC/USDT is listed with stream aggTrade, but what is stored of it is trade"):
        keep_streams(tmp_path, listed({"symbol": "BTC/USDT", "stream": "aggTrade"}, "ADA/USDT"))
    assert read_run(tmp_path)["streams"] == {"binance BTC/USDT": "trade", "binance ETH/USDT": "aggTrade", "binance SOL/USDT": "trade"}
    keep_streams(tmp_path / "new", listed({"symbol": "BTC/USDT", "stream": "aggTrade"}))


def test_files_of_another_stream_are_refused_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, home = tmp_path / "instruments.yaml", tmp_path / "home"
    (tmp_path / "frames").write_text("")
    file.write_text("binance: [{symbol: BTC/USDT, stream: aggTrade}]")
    monkeypatch.setenv("K2_HOME", str(home))
    monkeypatch.setenv("K2_INSTRUMENTS", str(file))
    keep_streams(home, listed("BTC/USDT"))
    with pytest.raises(ConfigError, match="cannot be mixed"):
        load("binance", [tmp_path / "frames"], quiet=True)
    assert not (home / "topics.db").exists()
