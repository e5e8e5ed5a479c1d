"""Which of a venue's streams a symbol's trades come from: fixed, since each stream numbers its trades by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from connectors.venues.registry import VENUES
from market.errors import ConfigError
from market.instrument import Instruments

_WAY_OUT: Final = "change it back, or list it so for a new K2_HOME (docs/feeds.md, Changing the list)"


def streams_of(listed: Mapping[str, Instruments]) -> dict[str, str]:
    """Return the stream by `exchange symbol`, of exchanges that have several."""
    return {f"{e} {i.canonical}": i.stream for e, found in listed.items() if len(VENUES[e].streams) > 1 for i in found.listed}


def check_streams(known: Mapping[str, str], listed: Mapping[str, Instruments]) -> None:
    """Refuse a list that takes a symbol from another stream than the one `known` of it (as `streams_of` returns them).

    Raises:
        ConfigError: naming the symbol, both streams and the way out.
    """
    for symbol, stream in streams_of(listed).items():
        before = known.get(symbol, stream)
        if before != stream:
            raise ConfigError(
                f"{symbol} is listed with stream {stream}, but what is stored of it is {before}: the two number trades differently "
                f"and cannot be mixed; {_WAY_OUT}"
            )
