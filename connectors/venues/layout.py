"""Venues whose trades are told as data: one table gives the compiled scanner and the complete reader their fields.

What a frame *is* (trades, an ack, another channel) the venue's `items` and `said` tell from the document; everything that is
the same for all of them is here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import orjson

from connectors.venues.base import Venue
from connectors.venues.columns import Columns, Frames, Symbols
from connectors.venues.feeding import Notice, NoticeKind, Subscription
from connectors.venues.reading import OWN_KEY, Item, Items, ReadTrade
from connectors.venues.scan import spans_for
from connectors.venues.scan_layout import LATEST_US, MS, RFC3339, ROLES, program, scan_frames
from connectors.venues.text import NumberText, Unusable, digits, mantissa, rfc3339_us, shown, whole
from market.ids import uuid_halves
from market.instrument import Instrument, Instruments
from market.trade import NO_TAIL


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a trade's values stand; the syntax of `frames` is told in `scan_layout`.

    `others`: frequent frames without trades, in the same syntax. `texts`: fields that are JSON strings, the others are numbers.
    `symbol`: empty where only the record's key names it. `buy`, `sell`: what `side` says where the taker bought or sold; numbers
    as they are written. `event`: the frame's own time, a hole of `frames`. `unit_us`: how times are written: `MS`, `US` or
    `RFC3339`. `fixed`: a field (a string) that must say `fixed_text`; `fixed_must`: and may not be missing.
    """

    frames: tuple[str, ...]
    texts: frozenset[str]
    id: str
    time: str
    price: str
    quantity: str
    side: str
    buy: str
    sell: str
    symbol: str = ""
    event: str = ""
    others: tuple[str, ...] = ()
    unit_us: int = MS
    fixed: str = ""
    fixed_text: str = ""
    fixed_must: bool = False
    ids_are_uuids: bool = False


class TableReader(Venue):
    """A venue whose trades are read by a table, and whose control documents are its own matter.

    Its `vendor_field` is one of a trade's own, under the venue's name for it.
    """

    layout: ClassVar[Layout]

    def __init__(self) -> None:
        super().__init__()
        table = self.layout
        named = (table.symbol, table.id, table.time, table.price, table.quantity, table.side, table.event, table.fixed, self.vendor_field)
        fields = {role: name for role, name in zip(ROLES, named, strict=True) if name}
        words = (table.buy, table.sell, table.fixed_text, *self.vendor_words)
        self._program = program(
            table.frames, table.others, fields, table.texts, words, table.unit_us, must=table.fixed_must, uuids=table.ids_are_uuids
        )

    def scan(self, frames: Frames, symbols: Symbols, out: Columns) -> int:
        """Read the layout's frames."""
        table = self._program
        return scan_frames(frames, symbols, table, spans_for(table.keys), spans_for(table.keys), out)

    def trades(self, found: object, *, event_us: int | None = None, is_snapshot: bool = False) -> Items:
        """Return the trades of a list of objects.

        Raises:
            Unusable: it is no list.
        """
        if not isinstance(found, list):
            raise Unusable("bad_frame", f"not a list of trades: {shown(found)}")
        return [self.trade(one, event_us=event_us, is_snapshot=is_snapshot) for one in found]

    def trade(self, found: object, *, event_us: int | None = None, is_snapshot: bool = False) -> Item | Unusable:
        """Return one trade."""
        if not isinstance(found, dict):
            return Unusable("bad_frame", f"a trade is not an object: {shown(found)}")
        symbol = found.get(self.layout.symbol) if self.layout.symbol else OWN_KEY
        return Item(found, symbol, is_snapshot=is_snapshot, event_us=event_us)

    def read(self, item: Item) -> ReadTrade:
        """Return one trade."""
        table, fields = self.layout, item.fields
        number, tail = self._identifier(item)
        if number is None:
            raise Unusable("bad_trade_id", f"{table.id} {shown(fields.get(table.id))}")
        price = mantissa(fields.get(table.price), self._kind(table.price), "price")
        quantity = mantissa(fields.get(table.quantity), self._kind(table.quantity), "quantity")
        time = self.time_us(item)
        if time is None:
            raise Unusable("bad_time", f"{table.time} {shown(fields.get(table.time))}")
        side = fields.get(table.side)
        if type(side) is not self._kind(table.side) or side not in (table.buy, table.sell):
            raise Unusable("bad_side", f"{table.side} {shown(side)}")
        word = fields.get(self.vendor_field) if self.vendor_field is not None else None
        return ReadTrade(number, time, item.event_us, side == table.buy, price, quantity, word, tail)

    def time_us(self, item: Item) -> int | None:
        """Return the trade's time in µs."""
        return self.as_time(item.fields, self.layout.time)

    def as_time(self, fields: object, name: str) -> int | None:
        """Return a field in µs, None if it is no time; JSON numbers may be `NumberText` or `int`."""
        value = fields.get(name) if isinstance(fields, dict) else None
        unit = self.layout.unit_us
        if unit == RFC3339:
            return rfc3339_us(value)
        number = (digits(value) if type(value) is str else None) if name in self.layout.texts else whole(value)
        return number * unit if number is not None and number < LATEST_US // unit else None

    def _identifier(self, item: Item) -> tuple[int | None, int]:
        value = item.fields.get(self.layout.id)
        if self.layout.id not in self.layout.texts:
            return whole(value), NO_TAIL
        if type(value) is not str:
            return None, NO_TAIL
        if self.layout.ids_are_uuids:
            return uuid_halves(value) or (None, NO_TAIL)
        return digits(value), NO_TAIL

    def _kind(self, name: str) -> type[str]:
        return str if name in self.layout.texts else NumberText


def control_document(frame: bytes, quiet: tuple[bytes, ...]) -> dict[str, object] | None:
    """Return the object that a frame is; None if it is none, or begins like one that says nothing to a feed."""
    if frame.startswith(quiet):
        return None
    try:
        document = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


class TableVenue(TableReader):
    """A venue whose trades are read by a table, and of whose control documents only `said` and `request` are its own.

    `control_marks`: a frame without any of these says nothing to a feed. `answers_by_number`: replies repeat the number of
    the request; else they come in the order of the requests.
    """

    control_marks: ClassVar[tuple[bytes, ...]]
    answers_by_number: ClassVar[bool] = False

    @abstractmethod
    def said(self, document: object) -> Notice | None:
        """Return what a control document says to a feed."""

    @abstractmethod
    def request(self, symbols: list[str], number: int, *, subscribe: bool) -> object | None:
        """Return the document that begins or ends the subscription of these venue symbols; None: it cannot be said."""

    def confirmed_by(self, frame: bytes, instruments: Instruments) -> list[str]:
        """Return the canonical listed symbols that a control frame confirms by their names."""
        notice = self.notice(frame)
        names = notice.symbols if notice is not None and notice.kind is NoticeKind.CONFIRMED else ()
        codes = (instruments.by_venue_symbol.get(name) for name in names)
        return [instruments.listed[code].canonical for code in codes if code is not None]

    def notice(self, frame: bytes) -> Notice | None:
        """Return what a frame says to the feed."""
        if not any(mark in frame for mark in self.control_marks):
            return None
        try:
            return self.said(orjson.loads(frame))
        except orjson.JSONDecodeError:
            return None

    def subscriptions(self, instruments: Sequence[Instrument], first_request: int) -> list[Subscription]:
        """Return the messages that subscribe to these instruments."""
        return list(self._messages(instruments, first_request, subscribe=True))

    def unsubscriptions(self, instruments: Sequence[Instrument], first_request: int) -> list[Subscription]:
        """Return the messages that end these subscriptions; none where only a new connection can."""
        return list(self._messages(instruments, first_request, subscribe=False))

    def _messages(self, instruments: Sequence[Instrument], first: int, *, subscribe: bool) -> Iterator[Subscription]:
        size = self.feed.symbols_per_message if self.feed is not None else 1
        for number, at in enumerate(range(0, len(instruments), size), first):
            some = tuple(instruments[at : at + size])
            document = self.request([one.venue_symbol for one in some], number, subscribe=subscribe)
            if document is not None:
                yield Subscription(orjson.dumps(document).decode(), some, number if self.answers_by_number else None)
