from __future__ import annotations

from pathlib import Path

import pytest

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
