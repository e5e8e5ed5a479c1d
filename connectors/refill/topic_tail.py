"""What the end of a raw topic says about each symbol: the ids it holds, and those that were given up.

A feed that starts goes on from there. Partitions are read from the end backwards: the last minutes whole, for what the last
feed missed, and from there on only for the symbols that were not found yet, up to a bound.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.refill.known_ids import KnownIds, Range
from connectors.topics.base import TopicLog
from connectors.topics.stretch import read_stretch
from connectors.venues.base import Venue
from market.errors import PositionLost
from market.instrument import Instruments, partition_of
from market.interval import SECOND
from market.marker import BadRecord, read_unfillable
from market.record import KIND_UNFILLABLE, RawBatch, topic_name

AT_LEAST: Final = 20_000
AT_LEAST_US: Final = 120 * SECOND
AT_MOST: Final = 400_000
DEEP: Final = 4_000_000
"""A bound for a search beside a running feed: seconds a partition of SQLite's time, half a minute of Kafka's."""
_DEEP_US: Final = 86_400 * SECOND  # and one of time
_POLITE_S: Final = 0.5
_FIRST_CHUNK: Final = 5_000
_LARGEST_CHUNK: Final = 80_000


@dataclass(frozen=True, slots=True)
class Tail:
    """By canonical symbol; symbols of which nothing was found are missing."""

    known: dict[str, KnownIds] = field(default_factory=dict)
    given_up: dict[str, list[Range]] = field(default_factory=dict)


def read_tail(
    log: TopicLog,
    venue: Venue,
    instruments: Instruments,
    symbols: Container[str] | None = None,
    *,
    at_least: int = AT_LEAST,
    at_least_us: int = AT_LEAST_US,
    at_most: int = AT_MOST,
) -> Tail:
    """Return what the end of the exchange's raw topic holds; blocks, so call it in a thread.

    Args:
        log: the topic log.
        venue: decodes.
        instruments: what is listed.
        symbols: the canonical symbols that are looked for; None: all that are listed.
        at_least: records of each partition that are read in any case, so that what the last feed missed is found; 0: only
            what it takes to find the symbols, with pauses.
        at_least_us: and those appended so long before the last one.
        at_most: records of each partition after which symbols that were not found are left alone.

    Raises:
        SourceDisconnected: the log cannot be reached, or brings nothing for half a minute.
    """
    topic, tail = topic_name(venue.exchange), Tail()
    if not venue.contiguous_ids or topic not in log.topics():
        return tail
    starts, ends = log.start_offsets(topic), log.end_offsets(topic)
    generation = log.generation(topic)
    for partition, (start, end) in enumerate(zip(starts, ends, strict=True)):
        reading = _Partition(venue, instruments, generation, partition, len(ends), symbols)
        if not reading.wanted:
            continue
        is_enough = at_least == 0
        began = time.monotonic()
        for records in _backwards(log, topic, partition, start, end):
            reading.take(records, wanted_only=is_enough)
            read = end - reading.lowest
            is_enough = is_enough or (read >= at_least and reading.reaches_us >= at_least_us)
            if read >= at_most or reading.reaches_us >= _DEEP_US or (is_enough and not reading.wanted):
                break
            if at_least == 0:  # half of the time is for others: what a feed receives late holds back its markers
                time.sleep(min(time.monotonic() - began, _POLITE_S))
                began = time.monotonic()
        reading.conclude(tail)
    return tail


def _backwards(log: TopicLog, topic: str, partition: int, start: int, end: int) -> Iterator[pa.RecordBatch]:
    """Yield consecutive stretches of a partition, the last one first; ever larger ones: a broker is slow to step back."""
    size = _FIRST_CHUNK
    while end > start:
        begin, size = max(start, end - size), min(2 * size, _LARGEST_CHUNK)
        try:
            pieces = list(read_stretch(log, topic, partition, begin, end))
        except PositionLost:  # retention was faster: there is nothing older
            return
        if pieces:
            yield pa.concat_batches(pieces)
        end = begin


class _Partition:
    """Gathers one partition, latest records first.

    A hole between two ids is one only above the lowest id that a live frame brought: what is missing there would stand
    behind that frame. Below it, ids of a refill or a snapshot only show that older records have been left unread.
    """

    def __init__(
        self, venue: Venue, instruments: Instruments, generation: str, partition: int, partitions: int, symbols: Container[str] | None
    ) -> None:
        self._venue, self._instruments = venue, instruments
        self._generation, self._partition = generation, partition
        here = [code for code, i in enumerate(instruments.listed) if partition_of(i.canonical, partitions) == partition]
        self._mine = frozenset(code for code in here if symbols is None or instruments.listed[code].canonical in symbols)
        self.wanted = set(self._mine)  # codes of which no live trade was found
        self.lowest = 1 << 62  # offset of the oldest record that was read
        self._oldest_us = self._newest_us = 0
        self._known: dict[int, KnownIds] = {}
        self._floor: dict[int, int] = {}
        self._given_up: dict[str, list[Range]] = {}

    @property
    def reaches_us(self) -> int:
        """How far the appends of what was read lie apart."""
        return self._newest_us - self._oldest_us

    def take(self, records: pa.RecordBatch, *, wanted_only: bool) -> None:
        self.lowest = records.column("offset")[0].as_py()
        self._oldest_us = records.column("append_us")[0].as_py()
        self._newest_us = max(self._newest_us, records.column("append_us")[-1].as_py())
        if wanted_only:
            keys = pa.array([self._instruments.listed[code].key for code in self.wanted], pa.string())
            records = records.filter(pc.is_in(records.column("key"), keys))
        if not records.num_rows:
            return
        end = records.column("offset")[-1].as_py() + 1
        batch = RawBatch(self._venue.exchange, topic_name(self._venue.exchange), self._partition, self._generation, end, records)
        trades = self._venue.decode(batch, self._instruments).trades
        live = ~trades.is_snapshot & pc.equal(records.column("source"), "live").fill_null(True).to_numpy(zero_copy_only=False)[trades.row]
        for code in self._mine.intersection(np.unique(trades.symbol).tolist()):
            mine = trades.symbol == code
            self._known.setdefault(code, KnownIds()).add(trades.trade_id[mine], trades.time_us[mine])
            found = trades.trade_id[mine & live]
            if len(found):
                self._floor[code] = min(self._floor.get(code, int(found.min())), int(found.min()))
                self.wanted.discard(code)
        self._take_given_up(records.filter(pc.equal(records.column("kind"), KIND_UNFILLABLE).fill_null(False)))

    def _take_given_up(self, records: pa.RecordBatch) -> None:
        for payload in records.column("payload").to_pylist():
            try:
                found = read_unfillable(payload, instruments=self._instruments)
            except BadRecord:  # a dead letter of the flow
                continue
            symbol = self._instruments.listed[found.symbol].canonical
            self._given_up.setdefault(symbol, []).append((found.first, found.last))

    def conclude(self, tail: Tail) -> None:
        for code, known in self._known.items():
            floor = self._floor.get(code, known.runs[-1].first)
            known.runs = [run for run in known.runs if run.last >= floor]
            tail.known[self._instruments.listed[code].canonical] = known
        tail.given_up.update({symbol: sorted(parts) for symbol, parts in self._given_up.items() if symbol in tail.known})
