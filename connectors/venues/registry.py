"""The venues this version knows, and the instruments file's entries in each venue's own spelling."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from connectors.venues.base import Venue
from connectors.venues.binance import Binance
from connectors.venues.binance_usdm import BinanceUsdm
from connectors.venues.bitfinex import Bitfinex
from connectors.venues.bitstamp import Bitstamp
from connectors.venues.bybit import Bybit
from connectors.venues.bybit_linear import BybitLinear
from connectors.venues.coinbase import Coinbase
from connectors.venues.gemini import Gemini
from connectors.venues.kraken import Kraken
from connectors.venues.okx import Okx
from connectors.venues.symbols import nearest
from market.errors import ConfigError
from market.instrument import Instrument, Instruments

_ALL: Final = (
    Binance(),
    BinanceUsdm(),
    Kraken(),
    Coinbase(),
    Bybit(),
    BybitLinear(),
    Okx(),
    Gemini(),
    Bitstamp(),
    Bitfinex(),
)
VENUES: Final[Mapping[str, Venue]] = MappingProxyType({v.exchange: v for v in _ALL})
_FIELDS: Final = ("symbol", "venue_symbol", "stream")


def venue(exchange: str) -> Venue:
    """Return the venue of an exchange id.

    Raises:
        ConfigError: there is none; names those there are.
    """
    if exchange not in VENUES:
        raise ConfigError(f"no exchange is called {exchange!r}: {_hint(exchange, VENUES)}known are {', '.join(VENUES)}")
    return VENUES[exchange]


def build_instruments(exchange: str, entries: Sequence[object]) -> Instruments:
    """Return the instruments of an exchange from the entries of the instruments file, in their order.

    Args:
        exchange: exchange id.
        entries: symbols in any spelling of the venue, or `{symbol, venue_symbol?, stream?}`.

    Raises:
        ConfigError: naming the entry, and what may have been meant.
    """
    found = venue(exchange)
    listed: dict[str, Instrument] = {}
    for number, entry in enumerate(entries, 1):
        instrument = _instrument(found, entry, f"{exchange}, entry {number} ({entry!r})")
        for other in listed.values():
            if instrument.canonical == other.canonical or instrument.venue_symbol == other.venue_symbol:
                raise ConfigError(f"{exchange}, entry {number} ({entry!r}): {other.canonical} is listed before, as {other.venue_symbol}")
        listed[instrument.canonical] = instrument
    return Instruments(exchange, tuple(listed.values()))


def _instrument(found: Venue, entry: object, place: str) -> Instrument:
    fields = {"symbol": entry} if isinstance(entry, str) else entry
    if not isinstance(fields, dict):
        raise ConfigError(f"{place}: write a symbol such as BTC/USDT, or {{symbol: BTC/USD, venue_symbol: XBTUSD}}")
    for name, value in fields.items():
        if name not in _FIELDS:
            raise ConfigError(f"{place}: no field is called {name!r}: {_hint(str(name), _FIELDS)}known are {', '.join(_FIELDS)}")
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f"{place}: {name} must be text")
    if "symbol" not in fields:
        raise ConfigError(f"{place}: symbol is missing")
    canonical = found.canonical(fields["symbol"])
    if canonical is None:
        guess = nearest(fields["symbol"], found.quotes.split())
        hint = f"did you mean {guess}? " if guess is not None else ""
        raise ConfigError(f"{place}: {fields['symbol']!r} is not a symbol: {hint}write BASE/QUOTE, for example BTC/USDT")
    _, _, quote = canonical.partition("/")
    if "venue_symbol" not in fields and not any(quote in other.quotes.split() for other in VENUES.values()):
        guess = nearest(canonical, found.quotes.split())
        if guess is not None:  # a slip; an asset that resembles none is believed
            raise ConfigError(
                f"{place}: no exchange has a quote asset {quote}: did you mean {guess}? "
                f"If not, write {{symbol: {canonical}, venue_symbol: {found.venue_symbol(canonical)}}}"
            )
    stream = fields.get("stream", found.streams[0])
    if stream not in found.streams:
        raise ConfigError(
            f"{place}: {found.exchange} has no stream {stream!r}: {_hint(stream, found.streams)}known are {', '.join(found.streams)}"
        )
    return Instrument(canonical, fields.get("venue_symbol", found.venue_symbol(canonical)).strip(), stream)


def _hint(name: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}? " if near else ""
