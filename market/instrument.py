"""Canonical instruments (`BTC/USDT`) and the spellings venues use for them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Instrument:
    """One listed instrument of one venue.

    `stream` names the venue's trade channel where it has several (`trade`, `aggTrade` on Binance).
    """

    canonical: str
    venue_symbol: str
    stream: str = "trade"

    @property
    def key(self) -> str:
        """Topic key and URL form: `BTC-USDT`."""
        return self.canonical.replace("/", "-")


@dataclass(frozen=True, slots=True)
class Instruments:
    """The instruments of one exchange, in listed order; the position is the symbol code used in batches."""

    exchange: str
    listed: tuple[Instrument, ...]
    by_canonical: Mapping[str, int] = field(init=False)
    by_venue_symbol: Mapping[str, int] = field(init=False)
    by_key: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_canonical", _index(i.canonical for i in self.listed))
        object.__setattr__(self, "by_venue_symbol", _index(i.venue_symbol for i in self.listed))
        object.__setattr__(self, "by_key", _index(i.key for i in self.listed))

    def __len__(self) -> int:
        return len(self.listed)


def _index(names: Iterable[str]) -> dict[str, int]:
    return {name: code for code, name in enumerate(names)}


def partition_of(canonical: str, partitions: int) -> int:
    """Return the topic partition of a canonical symbol; stable across processes and versions."""
    return zlib.crc32(canonical.encode()) % partitions
