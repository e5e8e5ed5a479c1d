"""Spellings of symbols: what people and venues write for `BASE/QUOTE`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

_PAIR: Final = re.compile(r"([^\W_]+(?:\.[^\W_]+)?)[/_-](?![0-9]+$)([^\W_]+(?:\.[^\W_]+)?)")
_PLAIN: Final = re.compile(r"[^\W_]+")
_SHORTEST_QUOTE: Final = 3
_LONGEST_QUOTE: Final = 5


def split(spelling: str, quotes: Iterable[str]) -> tuple[str, str] | None:
    """Return (base, quote) in upper case of `BTC/USDT`, `btc-usdt`, `BTC_USDT` or `BTCUSDT`; None if it is none of these.

    A spelling without a separator is split at the longest of the venue's quote assets that it ends with. No one list would
    do: `XBTUSD` is XBT/USD on Kraken, and nothing but a list says that it is not XB/TUSD.
    """
    text = spelling.strip().upper()
    pair = _PAIR.fullmatch(text)
    if pair is not None:
        return pair[1], pair[2]
    if _PLAIN.fullmatch(text) is None:
        return None
    fitting = [quote for quote in quotes if text.endswith(quote) and len(text) > len(quote)]
    if not fitting:
        return None
    longest = max(fitting, key=len)
    return text[: -len(longest)], longest


def nearest(spelling: str, quotes: Iterable[str]) -> str | None:
    """Return the canonical symbol that somebody may have meant by a spelling that cannot be split."""
    text = re.sub(r"[\W_]+", "", spelling).upper()
    known = list(quotes)
    guesses: dict[str, str] = {}
    for length in range(_SHORTEST_QUOTE, _LONGEST_QUOTE + 1):
        if len(text) > length:
            for quote in difflib.get_close_matches(text[-length:], known, n=1, cutoff=0.7):
                guesses.setdefault(text[:-length] + quote, f"{text[:-length]}/{quote}")
    best = difflib.get_close_matches(text, guesses, n=1, cutoff=0.0)
    return guesses[best[0]] if best else None


def spellings(pairs: Iterable[tuple[str, str]], *more: str) -> tuple[str, ...]:
    """Return the usual spellings of pairs of names, then others; each once."""
    found: dict[str, None] = {}
    for base, quote in pairs:
        for text in (f"{base}/{quote}", f"{base}-{quote}", f"{base}_{quote}", f"{base}{quote}"):
            found.update({text: None, text.lower(): None})
    found.update(dict.fromkeys(more))
    return tuple(found)
