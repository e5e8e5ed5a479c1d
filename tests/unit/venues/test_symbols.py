from __future__ import annotations

import pytest

from connectors.venues.registry import VENUES, build_instruments, venue
from market.errors import ConfigError
from market.instrument import Instrument


@pytest.mark.parametrize(
    ("exchange", "canonical", "symbol"),
    [
        ("binance", "BTC/USDT", "BTCUSDT"),
        ("binance_usdm", "BTC/USDT", "BTCUSDT"),
        ("kraken", "BTC/USD", "BTC/USD"),
        ("coinbase", "BTC/USD", "BTC-USD"),
        ("bybit", "BTC/USDT", "BTCUSDT"),
        ("bybit_linear", "BTC/USDT", "BTCUSDT"),
        ("okx", "BTC/USDT", "BTC-USDT"),
        ("gemini", "BTC/USD", "BTCUSD"),
        ("bitstamp", "BTC/USD", "btcusd"),
        ("bitfinex", "BTC/USDT", "tBTCUST"),
    ],
)
def test_each_venue_has_its_spelling(exchange: str, canonical: str, symbol: str) -> None:
    assert venue(exchange).venue_symbol(canonical) == symbol
    assert build_instruments(exchange, [canonical]).listed == (Instrument(canonical, symbol),)


@pytest.mark.parametrize("exchange", list(VENUES))
@pytest.mark.parametrize("canonical", ["BTC/USDT", "ETH/BTC", "DOGE/EUR", "1INCH/EUR", "XRP/ETH", "USDC/USDT"])
def test_every_alias_leads_back(exchange: str, canonical: str) -> None:
    one = venue(exchange)
    assert one.venue_symbol(canonical) in one.aliases(canonical)
    assert len(set(one.aliases(canonical))) == len(one.aliases(canonical))
    assert {one.canonical(alias) for alias in one.aliases(canonical)} == {canonical}


@pytest.mark.parametrize(
    ("exchange", "spelling", "canonical"),
    [
        ("binance", "btcusdt", "BTC/USDT"),
        ("binance", "BTC-USDT", "BTC/USDT"),
        ("binance", "eth_btc", "ETH/BTC"),
        ("binance", "BTCFDUSD", "BTC/FDUSD"),
        ("binance", "BTCTUSD", "BTC/TUSD"),
        ("kraken", "DOTUSD", "DOT/USD"),
        ("kraken", "USDTUSD", "USDT/USD"),
        ("kraken", "XBT/USD", "BTC/USD"),
        ("kraken", "XBTUSD", "BTC/USD"),
        ("kraken", "XXBTZUSD", "BTC/USD"),
        ("kraken", "XETHXXBT", "ETH/BTC"),
        ("kraken", "XDGUSD", "DOGE/USD"),
        ("kraken", "XBTUSDT", "BTC/USDT"),
        ("kraken", "xrp/usd", "XRP/USD"),
        ("coinbase", "BTC-USD", "BTC/USD"),
        ("coinbase", "btc/usdc", "BTC/USDC"),
    ],
)
def test_spellings_of_people_and_interfaces(exchange: str, spelling: str, canonical: str) -> None:
    assert venue(exchange).canonical(spelling) == canonical
    assert spelling.casefold() in {alias.casefold() for alias in venue(exchange).aliases(canonical)}
    assert build_instruments(exchange, [spelling]).listed[0].canonical == canonical


def test_an_entry_may_say_what_no_rule_can() -> None:
    listed = build_instruments("kraken", [{"symbol": "BTC/USD", "venue_symbol": "XBTUSD"}, "ETH/USD"]).listed
    assert listed == (Instrument("BTC/USD", "XBTUSD"), Instrument("ETH/USD", "ETH/USD"))
    assert build_instruments("binance", [{"symbol": "XRP/ETH", "stream": "aggTrade"}]).listed == (
        Instrument("XRP/ETH", "XRPETH", "aggTrade"),
    )


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("BTCUSTD", ["BTCUSTD", "BTC/USDT"]),
        ("BTC", ["'BTC'", "BASE/QUOTE"]),
        ("BTCUSD", ["did you mean BTC/"]),
        ("BTCUSDT_260327", ["not a symbol"]),
        ("", ["symbol must be text"]),
        ("BTC//USDT", ["BTC//USDT", "did you mean BTC/USDT"]),
        (5, ["entry 1 (5)"]),
        (None, ["entry 1 (None)"]),
        ({"venue_symbol": "X"}, ["symbol is missing"]),
        ({"symbol": "BTC/USDT", "steam": "trade"}, ["steam", "did you mean stream"]),
        ({"symbol": "BTC/USDT", "stream": "aggtrade"}, ["aggtrade", "did you mean aggTrade", "trade, aggTrade"]),
        ({"symbol": 5}, ["symbol must be text"]),
        ({"symbol": "BTC/USDT", "venue_symbol": None}, ["venue_symbol must be text"]),
    ],
)
def test_a_bad_entry_is_named(entry: object, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        build_instruments("binance", [entry])
    assert str(error.value).startswith("binance, entry 1")
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("entries", [["BTC/USDT", "btcusdt"], ["BTC/USDT", {"symbol": "XBT/USDT", "venue_symbol": "BTCUSDT"}]])
def test_a_symbol_listed_twice_is_refused(entries: list[object]) -> None:
    with pytest.raises(ConfigError, match=r"entry 2 .* BTC/USDT is listed before, as BTCUSDT"):
        build_instruments("binance", entries)


def test_streams_are_those_of_the_venue() -> None:
    with pytest.raises(ConfigError, match="kraken has no stream 'aggTrade'"):
        build_instruments("kraken", [{"symbol": "BTC/USD", "stream": "aggTrade"}])


def test_an_unknown_exchange_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no exchange is called 'binanse': did you mean binance"):
        venue("binanse")
    with pytest.raises(ConfigError, match="known are binance, binance_usdm, kraken, coinbase"):
        venue("zzz")


def test_every_venue_is_registered_under_its_own_name() -> None:
    assert {name: one.exchange for name, one in VENUES.items()} == {name: name for name in VENUES}
    assert [name for name, one in VENUES.items() if one.native_side_is_maker] == ["coinbase"]
    assert [name for name, one in VENUES.items() if not one.contiguous_ids] == ["bybit", "bybit_linear", "gemini", "bitstamp", "bitfinex"]
