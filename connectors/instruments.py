"""The instruments file, read with each venue's own spelling rules; and what people type, understood by the same rules."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from config.names import unknown
from config.settings import Settings
from config.yaml_file import read_yaml_mapping
from connectors.venues.registry import VENUES, build_instruments
from market.errors import ConfigError
from market.instrument import Instruments


def load_instruments(settings: Settings) -> dict[str, Instruments]:
    """Return the listed instruments by exchange, in the file's order.

    Raises:
        ConfigError: naming the file, the line, the entry and what would be right.
    """
    file = read_yaml_mapping(settings.instruments, what="the instruments file (K2_INSTRUMENTS)")
    listed: dict[str, Instruments] = {}
    for exchange, entries in file.values.items():
        if exchange not in VENUES:
            raise ConfigError(f"{file.place(exchange)}: {unknown('exchange', exchange, VENUES)}")
        if not isinstance(entries, list) or not entries:
            raise ConfigError(f"{file.place(exchange)}: {exchange} needs a list of symbols: {exchange}: [BTC/USD, ETH/USD]")
        try:
            listed[exchange] = build_instruments(exchange, entries)
        except ConfigError as error:
            raise ConfigError(f"{file.place(exchange)}: {error}") from error
    if not listed:
        raise ConfigError(f"{file.path} lists no exchange: write one a line, for example binance: [BTC/USDT, ETH/USDT]")
    return listed


def find_exchange(listed: Mapping[str, Instruments], name: str) -> Instruments:
    """Return the instruments of an exchange, by its id in any case.

    Raises:
        ConfigError: it is not listed; names those that are, and the nearest.
    """
    exchange = name.strip().lower()
    if exchange not in listed and exchange in VENUES:
        raise ConfigError(f"{exchange} is not listed in the instruments file; listed are {', '.join(listed)}")
    if exchange not in listed:
        raise ConfigError(unknown("exchange", name, listed, "listed in the instruments file"))
    return listed[exchange]


def find_symbol(instruments: Instruments, name: str) -> str:
    """Return the canonical symbol of any spelling that the venue or we use, in any case.

    Raises:
        ConfigError: it is not listed; names those that are, and the nearest.
    """
    venue = VENUES[instruments.exchange]
    wanted = name.strip().casefold()
    spellings: dict[str, str] = {}
    for instrument in instruments.listed:
        for spelling in (instrument.canonical, instrument.key, instrument.venue_symbol, *venue.aliases(instrument.canonical)):
            spellings.setdefault(spelling.casefold(), instrument.canonical)
    if wanted not in spellings:
        near = difflib.get_close_matches(wanted, spellings, n=1)
        nearest = spellings[near[0]] if near else None
        raise ConfigError(
            unknown(f"symbol of {instruments.exchange}", name, instruments.by_canonical, "listed in the instruments file", nearest)
        )
    return spellings[wanted]
