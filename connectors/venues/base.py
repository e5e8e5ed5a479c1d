"""What a venue is to the rest of the platform, and how any venue's frames become trades.

A venue module says which layouts its compiled scanner reads, how its documents are read in general, and how its symbols are
spelled. What a record counts, and the accounting of every frame, is the same for all venues.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar, Protocol

import numpy as np
import orjson

from connectors.venues.columns import (
    CONTROL,
    UNREAD,
    Bytes,
    Columns,
    Frames,
    Symbols,
    Texts,
    columns_for,
    frames_of,
    merged,
    symbols_of,
)  # fmt: skip
from connectors.venues.envelope import ENVELOPE
from connectors.venues.feeding import FeedRules, Notice, PageRequest, RestError, RestRules, Subscription, Wanted
from connectors.venues.reading import Item, Items, Reading, ReadTrade
from connectors.venues.routing import UNSURE, Route, route_frames
from connectors.venues.scan import mark_other_channels
from connectors.venues.symbols import spellings, split
from connectors.venues.text import Unusable
from connectors.venues.validate import validated
from market.instrument import Instrument, Instruments
from market.record import RawBatch, received_us
from market.trade import Decoded, Int32s


class Router(Protocol):
    """Who the frames of one connection are for. It must see every frame of that connection, control frames too, in order."""

    def symbols_in(self, frame: bytes, instruments: Instruments, /) -> list[str]:
        """Return the canonical listed symbols whose trades the frame holds, each once, in frame order; [] for any other frame."""


class Venue(ABC):
    """One exchange: its frames, and how it spells symbols. Holds no state but the symbol table and the frame it used last.

    `contiguous_ids`: trade ids are numbered without holes, so a hole is a loss. `native_side_is_maker`: the venue's own side
    field names the maker (trades here always carry the taker's).
    """

    exchange: ClassVar[str]
    contiguous_ids: ClassVar[bool] = True
    native_side_is_maker: ClassVar[bool] = False
    streams: ClassVar[tuple[str, ...]] = ("trade",)
    separator: ClassVar[str]  # between base and quote on the wire
    quotes: ClassVar[str]  # quote assets by which spellings without a separator are split
    vendor_field: ClassVar[str | None] = None  # kept beside each trade
    vendor_words: ClassVar[tuple[str, ...]] = ()  # what it mostly says; the scanner writes their numbers, from 1
    trade_marks: ClassVar[tuple[bytes, ...]]  # a frame without any of these holds no trades
    other_channels: ClassVar[Texts]  # how frames of channels without trades begin
    route: ClassVar[Route | None] = None  # how most trade frames name their symbol; None: every frame is parsed for it
    feed: ClassVar[FeedRules | None] = None  # None: frames of this venue are only loaded from files
    rest: ClassVar[RestRules | None] = None  # None: nothing can be asked for again
    replays_last: ClassVar[bool] = False  # a symbol's first trades on a connection are past ones, and the frame does not say so

    def __init__(self) -> None:
        self._table: tuple[Instruments, Symbols] | None = None
        self._last: tuple[bytes, list[Item]] | None = None

    @abstractmethod
    def scan(self, frames: Frames, symbols: Symbols, out: Columns) -> int:
        """Write the trades of frames of known layouts to `out`, mark the status of every frame, return the number of trades."""

    @abstractmethod
    def items(self, document: object) -> Items | None:
        """Return the trades of a document in frame order, or None for a frame without trades (ack, heartbeat, channel).

        Raises:
            Unusable: the document is none of the venue's frames.
        """

    def rest_items(self, body: object, symbol: object) -> Items:  # noqa: ARG002 - venues that can be asked again say how
        """Return the trades of a REST page's body, in its order; `symbol` is the one that was asked for.

        Raises:
            Unusable: the body is none of the venue's pages.
        """
        raise Unusable("unknown_frame", f"{self.exchange} has no pages of past trades here")

    def contents(self, document: object) -> Items | None:
        """Return the trades of any record's document: a frame, or a page of past trades in its envelope.

        Raises:
            Unusable: the document is neither.
        """
        if isinstance(document, dict) and document.keys() == ENVELOPE:
            return self.rest_items(document["body"], document["symbol"])
        return self.items(document)

    @abstractmethod
    def read(self, item: Item) -> ReadTrade:
        """Return one trade.

        Raises:
            Unusable: naming the first field that is wrong.
        """

    @abstractmethod
    def time_us(self, item: Item) -> int | None:
        """Return when a trade happened, epoch µs, or None where the time cannot be read."""

    def acknowledged(self, document: dict[str, object]) -> list[object]:  # noqa: ARG002 - not every venue's acks name symbols
        """Return the venue symbols whose trade subscription a control document confirms."""
        return []

    @abstractmethod
    def subscriptions(self, instruments: Sequence[Instrument], first_request: int) -> list[Subscription]:
        """Return the messages that subscribe to these instruments, `feed.symbols_per_message` at most in each.

        Args:
            instruments: what to subscribe to; may be empty (a message that keeps the connection alive may still be due).
            first_request: id of the first message; the next one has the next number.
        """

    @abstractmethod
    def unsubscriptions(self, instruments: Sequence[Instrument], first_request: int) -> list[Subscription]:
        """Return the messages that end these subscriptions."""

    @abstractmethod
    def notice(self, frame: bytes) -> Notice | None:
        """Return what a frame says to the feed, or None for trades, heartbeats, pongs and everything else. Must be cheap for trades."""

    def frame_number(self, frame: bytes) -> int | None:  # noqa: ARG002 - most venues do not count
        """Return a frame's place in its connection where the venue counts frames (step 1); a step over one is a loss."""
        return None

    def page_request(self, instrument: Instrument, wanted: Wanted) -> PageRequest:
        """Return the REST request for a page of past trades; only venues with `rest` have one."""
        raise NotImplementedError(f"{self.exchange} gives no pages of past trades")  # no stub: the refill asks venues with `rest` only

    def newest_page(self, instrument: Instrument) -> PageRequest | None:  # noqa: ARG002 - most venues ask nobody for a key
        """Return the request for the newest trades, where past ones are refused without a key and these are not."""
        return None

    def rest_error(self, document: object) -> RestError | None:  # noqa: ARG002 - most venues tell by the status
        """Return what a REST answer with status 200 complains about, or None."""
        return None

    def venue_symbol(self, canonical: str) -> str:
        """Return the spelling of the venue's trade frames."""
        return canonical.replace("/", self.separator)

    def aliases(self, canonical: str) -> tuple[str, ...]:
        """Return every spelling that is accepted on input, the venue's own and those that people use for it."""
        base, _, quote = canonical.partition("/")
        return spellings([(base, quote)])

    def canonical(self, spelling: str) -> str | None:
        """Return the canonical symbol of any spelling, or None if it cannot be split into base and quote."""
        pair = split(spelling, self.quotes.split())
        return None if pair is None else f"{pair[0]}/{pair[1]}"

    def decode(self, batch: RawBatch, instruments: Instruments) -> Decoded:
        """Decode the frames of a batch (its records with no `kind`).

        A record counts the trades of its key's symbol. Trades of other listed symbols stand in records of their own and are
        left out, provided that the key's symbol is in the frame at all; else the frame is rejected (`key_mismatch`). Trades of
        symbols that are not listed are rejected one by one, like any trade that is not right; the others of the frame count.

        Raises:
            Nothing for bad input: every frame ends as trades, as a control frame or as rejects.
        """
        frames = frames_of(batch, instruments)
        scanned = columns_for(frames)
        n = self.scan(frames, self._symbols(instruments), scanned)
        mark_other_channels(frames, self.other_channels)
        reading = Reading(self.contents, self.read, instruments, self.vendor_words)
        for row in np.flatnonzero(frames.status == UNREAD).tolist():
            start, stop = frames.starts[row : row + 2].tolist()
            reading.add(row, frames.data[start:stop].tobytes(), int(frames.codes[row]))
        columns = merged(scanned, n, reading.columns())
        vendor = {self.vendor_field: reading.words()} if self.vendor_field is not None else {}
        trades, rejected = validated(columns, received_us(batch.records), vendor)
        control = int(np.count_nonzero(frames.status == CONTROL)) + reading.control_frames
        return Decoded(trades, sorted(reading.rejected + rejected, key=lambda r: r.row), control)

    def route_codes(self, data: Bytes, starts: Int32s, instruments: Instruments) -> Int32s:
        """Return the instrument code of each frame `data[starts[k]:starts[k + 1]]`, or `UNSURE` where `symbols_in` must say."""
        codes = np.full(len(starts) - 1, UNSURE, np.int32)
        if self.route is not None:
            route_frames(data, starts, self.route, self._symbols(instruments), codes)
        return codes

    def router(self) -> Router:
        """Return who the frames of a new connection are for: the venue itself where every frame names its symbols."""
        return self

    def symbols_in(self, frame: bytes, instruments: Instruments) -> list[str]:
        """Return the canonical listed symbols whose trades the frame holds, each once, in frame order; [] for any other frame."""
        found: dict[str, None] = {}
        for item in self._items_of(frame):
            code = instruments.by_venue_symbol.get(item.symbol) if isinstance(item.symbol, str) else None
            if code is not None and instruments.listed[code].stream == item.stream:
                found[instruments.listed[code].canonical] = None
        return list(found)

    def confirmed_by(self, frame: bytes, instruments: Instruments) -> list[str]:
        """Return the canonical listed symbols whose trade subscription the frame acknowledges."""
        if b'"subscri' not in frame:
            return []
        try:
            document = orjson.loads(frame)
        except orjson.JSONDecodeError:
            return []
        names = self.acknowledged(document) if isinstance(document, dict) else []
        codes = dict.fromkeys(instruments.by_venue_symbol.get(name) for name in names if isinstance(name, str))
        return [instruments.listed[code].canonical for code in codes if code is not None]

    def event_times(self, frame: bytes) -> list[int]:
        """Return the event times (epoch µs) of the trades of a live frame; [] for snapshots and any other frame."""
        times = [self.time_us(item) for item in self._items_of(frame) if not item.is_snapshot]
        return [time for time in times if time is not None]

    def _items_of(self, frame: bytes) -> list[Item]:
        last = self._last  # who asks for a frame's symbols asks for its times next
        if last is not None and last[0] is frame:
            return last[1]
        found: Items | None = None
        if any(mark in frame for mark in self.trade_marks):
            with suppress(orjson.JSONDecodeError, Unusable):
                found = self.items(orjson.loads(frame))
        items = [item for item in found or () if isinstance(item, Item)]
        self._last = (frame, items)
        return items

    def _symbols(self, instruments: Instruments) -> Symbols:
        table = self._table
        if table is None or table[0] is not instruments:
            table = self._table = (instruments, symbols_of(instruments))
        return table[1]
