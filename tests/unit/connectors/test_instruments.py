from __future__ import annotations

import re
from pathlib import Path

import pytest

from config.settings import PACKAGED, Settings
from connectors.instruments import find_exchange, find_symbol, load_instruments
from market.errors import ConfigError


def listed(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "instruments.yaml"
    path.write_text(text)
    return Settings(home=tmp_path, instruments=path)


def test_packaged_file_lists_what_the_recordings_hold(tmp_path: Path) -> None:
    found = load_instruments(Settings(home=tmp_path, instruments=PACKAGED / "instruments.yaml"))
    assert set(found) == {"binance", "binance_usdm", "kraken", "coinbase"}
    assert "BTC/USDT" in found["binance"].by_canonical
    for exchange in ("kraken", "coinbase"):
        assert {"BTC/USD", "ETH/USD"} <= set(found[exchange].by_canonical)


def test_entries_may_be_in_any_spelling_or_with_their_own(tmp_path: Path) -> None:
    found = load_instruments(listed(tmp_path, "kraken:\n  - XBT/USD\n  - {symbol: ETH/USD, venue_symbol: XETHZUSD}\n"))
    assert [(i.canonical, i.venue_symbol) for i in found["kraken"].listed] == [("BTC/USD", "BTC/USD"), ("ETH/USD", "XETHZUSD")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("binance: [BTC/USDT]\nkrakn: [BTC/USD]\n", ":2: no exchange is called 'krakn': did you mean kraken?"),
        ("\nbinance: BTC/USDT\n", ":2: binance needs a list of symbols"),
        ("binance: []\n", ":1: binance needs a list of symbols"),
        (
            "binance: [ETH/USDT, BTC/UDST]\n",
            ":1: binance, entry 2 ('BTC/UDST'): no exchange has a quote asset UDST: did you mean BTC/USDT?",
        ),
        ("binance: [BTC/USDT, BTCUSDT]\n", ":1: binance, entry 2 ('BTCUSDT'): BTC/USDT is listed before"),
        ("binance: [17]\n", ":1: binance, entry 1 (17)"),
        ("", "lists no exchange"),
        (
            "binance: [BTC/USDT]\nbinance: [ETH/USDT]\n",
            ":2: the instruments file (K2_INSTRUMENTS) is not valid YAML: 'binance' is written twice",
        ),
        # What a machine that went down, or a slip, leaves in a file.
        ("binance: [BTC/USDT]\n\0\0\0\0", "is not valid YAML: special characters are not allowed"),
        ("? [binance]\n: [BTC/USDT]\n", "is not valid YAML: it cannot be parsed"),
        ("binance: [BTC/USDT]\nkraken: 2026-13-45\n", "is not valid YAML: it cannot be parsed"),
    ],
)
def test_mistakes_are_named_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    settings = listed(tmp_path, text)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load_instruments(settings)
    assert str(settings.instruments) in str(caught.value)


def test_quote_assets_that_are_no_slip_are_believed(tmp_path: Path) -> None:
    found = load_instruments(listed(tmp_path, "binance: [BTC/PEPE, ETH/USD, {symbol: BTC/UDST, venue_symbol: BTCUDST}]"))
    assert list(found["binance"].by_canonical) == ["BTC/PEPE", "ETH/USD", "BTC/UDST"]


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"K2_INSTRUMENTS\) .*/none.yaml cannot be read: No such file"):
        load_instruments(Settings(home=tmp_path, instruments=tmp_path / "none.yaml"))


def test_what_people_type_is_understood_in_any_case_and_spelling(tmp_path: Path) -> None:
    found = load_instruments(listed(tmp_path, "kraken: [BTC/USD, ETH/USD]\nbinance: [BTC/USDT]\n"))
    kraken = find_exchange(found, " Kraken ")
    assert {find_symbol(kraken, name) for name in ("BTC/USD", "btc-usd", "XBT/USD", "xbtusd", "BTCUSD")} == {"BTC/USD"}
    assert find_symbol(found["binance"], "btcusdt") == "BTC/USDT"


def test_what_is_not_listed_is_refused_with_the_nearest_and_the_known(tmp_path: Path) -> None:
    found = load_instruments(listed(tmp_path, "kraken: [BTC/USD, ETH/USD]\n"))
    with pytest.raises(ConfigError, match=re.escape("no symbol of kraken is called 'XBT/EUR': did you mean BTC/USD? (listed in the")):
        find_symbol(found["kraken"], "XBT/EUR")
    with pytest.raises(
        ConfigError, match=re.escape("no symbol of kraken is called '???' (listed in the instruments file: BTC/USD, ETH/USD)")
    ):
        find_symbol(found["kraken"], "???")
    with pytest.raises(ConfigError, match="binance is not listed in the instruments file; listed are kraken"):
        find_exchange(found, "binance")
