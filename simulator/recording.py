"""Trades out of recordings: what a venue traded once, traded again on the same time line.

Only the trades are taken from the frames; the venue renders them anew, byte for byte as they were but for times (and, when a
recording starts over, ids). Lines are `<receive_ns> <frame>`, envelopes `{"t":"recv",…,"data":"…"}` or plain frames; files may
be gzip-compressed. A trade goes out when it happened, plus what the frame says about its push; when somebody once received
it does not matter.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from market.errors import ConfigError
from simulator.block import ABSENT, IS_BUY, IS_MARKET, Block, Ints
from simulator.listing import Listing

BLOCK_US: Final = 250_000
_PAUSE_US: Final = 1_000_000  # between the end of a recording and its next start
_MOST_MISSING: Final = 100_000  # ids in a row that a recording may lack
_TIMED: Final = re.compile(r"\d{1,20} ")


@dataclass(frozen=True, slots=True)
class RecordedTrade:
    """One trade of a frame. Times epoch µs; `push_us`: µs from the trade to its push; price and quantity as written."""

    symbol: str
    trade_id: int
    time_us: int
    push_us: int
    price: str
    quantity: str
    is_buy: bool
    is_market: bool


ReadFrame = Callable[[Any], Sequence[RecordedTrade]]


class Recording:
    """A source of recorded trades.

    Args:
        paths: the files, in order of time.
        read: the trades of a decoded frame, with canonical symbols; [] for frames of other channels.
        once: end with the recording; else it starts over, with ids that go on.
        end_us: stop at this run time; None: never.

    Raises:
        ConfigError: a file cannot be read or holds no trade.
    """

    def __init__(self, paths: Sequence[Path], read: ReadFrame, *, once: bool, end_us: int | None = None) -> None:
        frames = [trades for path in paths for trades in _frames(path, read)]
        if not frames:
            raise ConfigError(f"{', '.join(map(str, paths))}: no trade of this venue in it")
        self._once = once
        self._end_us = end_us
        self.listings, self._all, self.first_us = _columns(frames)
        self._span_us = int(self._all.due_us[-1]) + _PAUSE_US
        self._orders = int(self._all.order[-1]) + 1
        self._pass = 0
        self._at = 0
        self._began_us = 0

    @property
    def span_us(self) -> int:
        """How long after its start the recording starts over."""
        return self._span_us

    def start_over_with(self, others: Sequence[Recording]) -> None:
        """Start over when the longest of all has ended, so that they stay on one time line."""
        self._span_us = max(self._span_us, *(other.span_us for other in others))

    def next_block(self) -> Block | None:
        """Return the trades of the next quarter of a second, or None at the end."""
        if self._at == len(self._all):
            if self._once:
                return None
            self._pass, self._at = self._pass + 1, 0
        if self._end_us is not None and self._began_us >= self._end_us:
            return None
        offset_us = self._pass * self._span_us
        self._began_us += BLOCK_US
        stop = int(np.searchsorted(self._all.due_us, self._began_us - offset_us))
        part = slice(self._at, stop)
        self._at = stop
        block = self._all
        return Block(
            self._began_us,
            block.symbol[part],
            block.due_us[part] + offset_us,
            block.run_us[part] + offset_us,
            block.push_us[part],
            block.price[part],
            block.quantity[part],
            block.flags[part],
            block.order[part] + self._pass * self._orders,
        )


def _frames(path: Path, read: ReadFrame) -> Iterator[list[RecordedTrade]]:
    try:
        for line in _lines(path):
            document = _document(line)
            trades = read(document) if isinstance(document, dict) else ()
            if trades:
                yield list(trades)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: a frame of trades that cannot be read: {error!r}") from error


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rt", encoding="utf-8") if is_gzip else path.open(encoding="utf-8") as text:
        yield from text


def _document(line: str) -> Any:
    # The frame of a line; numbers with a point stay text, for their digits.
    timed = _TIMED.match(line)
    try:
        document = json.loads(line[timed.end() :] if timed else line, parse_float=str)
        if isinstance(document, dict) and isinstance(document.get("t"), str):
            return json.loads(document["data"], parse_float=str) if document["t"] == "recv" and "data" in document else None
    except ValueError:
        return None
    return document


def _columns(frames: Sequence[Sequence[RecordedTrade]]) -> tuple[list[Listing], Block, int]:
    # Every trade once, ids of a symbol without holes, as one block; and the time of the first trade.
    unique: dict[tuple[str, int], tuple[RecordedTrade, int]] = {}
    for order, frame in enumerate(frames):
        for trade in frame:
            unique.setdefault((trade.symbol, trade.trade_id), (trade, order))
    symbols = list(dict.fromkeys(symbol for symbol, _ in unique))
    rows: list[tuple[RecordedTrade, int, int]] = []
    listings: list[Listing] = []
    for code, symbol in enumerate(symbols):
        found = sorted((entry for (name, _), entry in unique.items() if name == symbol), key=lambda entry: entry[0].trade_id)
        price = max(1, *(_decimals(trade.price) for trade, _ in found))
        lot = max(1, *(_decimals(trade.quantity) for trade, _ in found))
        listings.append(Listing(symbol, price, lot, _mantissa(found[0][0].price, price), found[0][0].trade_id))
        rows += [(trade, order, code) for trade, order in _without_holes(found)]
    first_us = min(trade.time_us for trade, _, _ in rows)
    return listings, _block(rows, listings, first_us), first_us


def _without_holes(found: Sequence[tuple[RecordedTrade, int]]) -> Iterator[tuple[RecordedTrade, int]]:
    before: RecordedTrade | None = None
    for trade, order in found:
        missing = range(before.trade_id + 1, trade.trade_id) if before is not None else range(0)
        if len(missing) > _MOST_MISSING:
            raise ConfigError(f"{trade.symbol}: {len(missing)} ids are missing before {trade.trade_id}: these are two recordings")
        for number in missing:
            yield RecordedTrade(trade.symbol, number, trade.time_us, 0, "", "", is_buy=False, is_market=False), order
        yield trade, order
        before = trade


def _block(rows: Sequence[tuple[RecordedTrade, int, int]], listings: Sequence[Listing], first_us: int) -> Block:
    run_us = np.array([trade.time_us for trade, _, _ in rows], dtype=np.int64) - first_us
    push_us = np.array([trade.push_us for trade, _, _ in rows], dtype=np.int64)
    order = np.array([order for _, order, _ in rows], dtype=np.int64)
    symbol = np.array([code for _, _, code in rows], dtype=np.int64)
    # The trades of a frame go out together, with the last of them; a symbol's in the order of their ids.
    due_us = np.zeros(int(order.max()) + 1, dtype=np.int64)
    np.maximum.at(due_us, order, run_us + np.maximum(push_us, 0))
    due = due_us[order]
    for code in range(len(listings)):
        of = np.flatnonzero(symbol == code)
        due[of] = np.maximum.accumulate(due[of])
    sequence = np.lexsort((order, due))
    flags = [_flags(trade) for trade, _, _ in rows]
    price = [_mantissa(trade.price, listings[code].price_decimals) for trade, _, code in rows]
    quantity = [_mantissa(trade.quantity, listings[code].lot_decimals) for trade, _, code in rows]
    return Block(
        0,
        symbol[sequence],
        due[sequence],
        run_us[sequence],
        push_us[sequence],
        _ints(price)[sequence],
        _ints(quantity)[sequence],
        np.array(flags, dtype=np.uint8)[sequence],
        order[sequence],
    )


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def _flags(trade: RecordedTrade) -> int:
    return (IS_BUY * trade.is_buy + IS_MARKET * trade.is_market) if trade.price else ABSENT


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])


def _mantissa(text: str, decimals: int) -> int:
    whole, _, fraction = text.partition(".")
    return int(whole + fraction.ljust(decimals, "0")) if text else 0
