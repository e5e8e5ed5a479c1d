"""Frames that no scanner knew, one by one: which trades of a document count for a record, and why the others do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from connectors.venues.columns import Columns, empty
from connectors.venues.text import Unusable, read_json, shown
from market.exact import from_ints
from market.instrument import Instruments
from market.trade import NO_TAIL, Rejected

_WORD_LENGTH: Final = 32


class OwnKey(Enum):
    """Stands for the symbol of a trade whose frame does not name it: the record's key does."""

    OWN_KEY = "own key"


OWN_KEY: Final = OwnKey.OWN_KEY


@dataclass(frozen=True, slots=True)
class Item:
    """One trade of a document, not yet looked at: its fields, and what the frame around it says. `symbol` may be `OWN_KEY`."""

    fields: Mapping[str, object]
    symbol: object
    stream: str = "trade"
    is_snapshot: bool = False
    event_us: int | None = None


@dataclass(frozen=True, slots=True)
class ReadTrade:
    """One trade read; price and quantity are integers at scale 18. `word`: what the venue's extra field says.

    An id that is no number is a pair with `id_tail` (`market.ids`).
    """

    trade_id: int
    time_us: int
    event_us: int | None
    is_buy: bool
    price: int
    quantity: int
    word: object = None
    id_tail: int = NO_TAIL


Items = list[Item | Unusable]


def page_items(body: object, item: Callable[[Mapping[str, object]], Item]) -> Items:
    """Return the trades of a REST page that is a list of objects.

    Raises:
        Unusable: the body is no list.
    """
    if not isinstance(body, list):
        raise Unusable("bad_frame", f"the page is not a list: {shown(body)}")
    return [item(row) if isinstance(row, dict) else Unusable("bad_frame", f"a trade is not an object: {shown(row)}") for row in body]


class Reading:
    """Collects what the slowly read frames of one batch hold.

    Args:
        items: the trades of a document in frame order; None for a control frame; raises `Unusable`.
        read: one trade; raises `Unusable`.
        words: what the venue's extra field mostly says, numbered from 1.
    """

    def __init__(
        self, items: Callable[[object], Items | None], read: Callable[[Item], ReadTrade], instruments: Instruments, words: tuple[str, ...]
    ) -> None:
        self.rejected: list[Rejected] = []
        self.control_frames = 0
        self._items = items
        self._read = read
        self._instruments = instruments
        self._found: list[tuple[int, int, bool, ReadTrade]] = []  # row, symbol code, is_snapshot
        self._words = {word: number for number, word in enumerate(words, 1)}

    def add(self, row: int, frame: bytes, key: int) -> None:
        """Account for one frame of a record whose key is the instrument `key` (-1: no listed one)."""
        before = len(self.rejected) + len(self._found)
        try:
            self._take(row, self._items(read_json(frame)) or [], key)
        except Unusable as error:
            self._reject(row, error)
        if len(self.rejected) + len(self._found) == before:
            self.control_frames += 1

    def _take(self, row: int, items: Items, key: int) -> None:
        own, other = False, None
        for item in items:
            try:
                if isinstance(item, Unusable):
                    raise item
                code = self._code(item, key)
                if code == key:
                    own = True
                    self._found.append((row, key, item.is_snapshot, self._read(item)))
                elif code is not None:
                    other = code
            except Unusable as error:
                self._reject(row, error)
        if other is not None and not own:
            symbol = self._instruments.listed[other].canonical
            raise Unusable("key_mismatch", f"holds trades of {symbol}, none of its record's key")

    def _code(self, item: Item, key: int) -> int | None:
        # The listed instrument of a trade; None for the other stream of one, which numbers the same executions differently.
        if item.symbol is OWN_KEY:
            if key < 0:
                raise Unusable("unknown_symbol", "the frame names no symbol, and the record's key is of none that is listed")
            return key
        if type(item.symbol) is not str:
            raise Unusable("bad_symbol", f"symbol {shown(item.symbol)}")
        code = self._instruments.by_venue_symbol.get(item.symbol)
        if code is None:
            raise Unusable("unknown_symbol", f"symbol {shown(item.symbol)} is not listed")
        return code if self._instruments.listed[code].stream == item.stream else None

    def _reject(self, row: int, error: Unusable) -> None:
        self.rejected.append(Rejected(row, error.reason, error.detail))

    def columns(self) -> Columns:
        """Return the trades read, in row and frame order."""
        found = self._found
        result = empty(len(found))
        if not found:
            return result
        for k, (row, code, is_snapshot, trade) in enumerate(found):
            result.row[k], result.symbol[k], result.is_snapshot[k] = row, code, is_snapshot
            result.trade_id[k], result.time_us[k], result.is_buy[k] = trade.trade_id, trade.time_us, trade.is_buy
            result.event_us[k] = trade.time_us if trade.event_us is None else trade.event_us
            result.vendor[k], result.id_tail[k] = self._number(trade.word), trade.id_tail
        result.price[:] = from_ints([trade.price for *_, trade in found])
        result.quantity[:] = from_ints([trade.quantity for *_, trade in found])
        return result

    def _number(self, word: object) -> int:
        # A word that is none costs only itself: it decides nothing.
        if type(word) is not str or not 0 < len(word) <= _WORD_LENGTH or not (word.isascii() and word.isprintable()):
            return 0
        return self._words.setdefault(word, len(self._words) + 1)

    def words(self) -> tuple[str, ...]:
        """Return every word of the extra field by number, from 1; to be asked after `columns`."""
        return tuple(self._words)
