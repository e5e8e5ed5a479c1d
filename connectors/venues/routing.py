"""For whom frames are, many at once: the symbol of a frame by its bytes, where its layout leaves no doubt.

A frame that begins as a venue's trade frames do, holds nothing but plain compact JSON, and names one listed symbol however
often, holds trades of that symbol or none. Any other frame is parsed, by `Venue.symbols_in`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from connectors.venues.columns import Bytes, Symbols, Texts, texts
from connectors.venues.scan import literal, plain, symbol_code, text_end, unwrapped
from market.jit import compiled_scan
from market.trade import Bools, Int32s

NO_SYMBOL: Final = -1
UNSURE: Final = -2

_QUOTE: Final = 34
_BACKSLASH: Final = 92
_SPACE: Final = 32
_DELETE: Final = 127


class Route(NamedTuple):
    """How a venue's trade frames begin, whether such a frame is of the aggregate stream, and the field that names the symbol."""

    begins: Texts
    aggregate: Bools
    field: Bytes


def route_of(begins: tuple[tuple[str, str], ...], field: str) -> Route:
    """Return the route of a venue.

    Args:
        begins: (how a frame's own document begins, its stream).
        field: name of the field, for example `symbol`.
    """
    aggregate = np.array([stream == "aggTrade" for _, stream in begins], np.bool_)
    return Route(texts(*(text for text, _ in begins)), aggregate, plain(f'"{field}":"'))


@compiled_scan
def _begin(data: Bytes, at: int, end: int, begins: Texts) -> int:
    # Which of the texts stands at a position, or -1.
    for k in range(len(begins.starts) - 1):
        first, last = begins.starts[k], begins.starts[k + 1]
        if at + last - first <= end:
            same = True
            for j in range(first, last):
                if data[at + j - first] != begins.data[j]:
                    same = False
                    break
            if same:
                return k
    return -1


@compiled_scan
def _symbol(data: Bytes, at: int, end: int, route: Route, symbols: Symbols, likely: int) -> int:
    # The one listed symbol that the rest of a frame names.
    code = UNSURE
    while at < end:
        byte = data[at]
        if byte <= _SPACE or byte >= _DELETE or byte == _BACKSLASH:
            return UNSURE
        after = literal(data, at, end, route.field) if byte == _QUOTE else -1
        if after >= 0:
            stop = text_end(data, after, end)
            found = symbol_code(data, after, stop, symbols, likely) if stop >= 0 else -1
            if found < 0 or (code >= 0 and found != code):
                return UNSURE
            code = found
            at = stop
        at += 1
    return code


@compiled_scan
def route_frames(data: Bytes, starts: Int32s, route: Route, symbols: Symbols, codes: Int32s) -> None:
    """Write the instrument code of every frame `data[starts[k]:starts[k + 1]]` to `codes[k]`, or `UNSURE`."""
    likely = -1
    for row in range(len(codes)):
        end = int(starts[row + 1])
        at = unwrapped(data, int(starts[row]), end)
        begin = _begin(data, at, end, route.begins) if at >= 0 else -1
        code = UNSURE
        if begin >= 0:
            code = _symbol(data, at, end, route, symbols, likely)
            if code >= 0 and symbols.aggregate[code] != route.aggregate[begin]:
                code = UNSURE
        if code >= 0:
            likely = code
        codes[row] = code
