"""The simulated venues by exchange id."""

from __future__ import annotations

from typing import Final

from simulator.exchange import Exchange
from simulator.venues.binance import Binance
from simulator.venues.binance_usdm import BinanceUsdm
from simulator.venues.coinbase import Coinbase
from simulator.venues.kraken import Kraken

VENUES: Final[dict[str, type[Exchange]]] = {venue.name: venue for venue in (Binance, BinanceUsdm, Kraken, Coinbase)}
