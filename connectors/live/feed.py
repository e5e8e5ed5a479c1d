"""A live feed of one exchange: frames into the raw topic, and markers that say what has been received.

    received ─▶ flush ─▶ outbox            every few ms: frames become records
                  └────▶ observe           a few times a second: their ids and times are looked at
    alive, confirmed ──▶ mark ─▶ outbox    every second: what each connection can vouch for, behind the frames

A marker of a connection reaches up to its last proof of life, held back by the largest delay of the last ten minutes and one
µs: a frame read in that same µs may still come. It begins where the symbol's subscription was confirmed, by the smallest
delay. Everything here happens on the loop's thread, and times are given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
import structlog

from connectors.live.addressing import Addressed, Addressing, Arrivals
from connectors.live.delays import Bounds, DelayWindow
from connectors.live.feed_metrics import FeedCounts
from connectors.live.outbox import Outbox
from connectors.live.outgoing import Chunk, Outgoing, chunks_of
from connectors.markers import Assertion, event_payload
from connectors.venues.base import Venue
from market.instrument import Instrument, Instruments
from market.interval import SECOND
from market.record import KIND_EVENT, KIND_MARKER, RAW_SCHEMA, RawBatch, topic_name
from market.trade import Int64s, TradeBatch

log = structlog.get_logger()

FLUSH_FRAMES: Final = 2_000
OBSERVE_RECORDS: Final = 2_000
MARK_S: Final = 1.0


class Refills(Protocol):
    """Who gets missing trades; told what came."""

    def observed(self, symbol: str, ids: Int64s, times: Int64s) -> None:
        """Take ids and event times (epoch µs) of trades that are in the outbox, in the order they came."""

    def reconnected(self, symbols: Sequence[str]) -> None:
        """These symbols are subscribed (again): what came since their last known id may be missing."""


@dataclass(slots=True)
class _Connection:
    """One connection: what came and is not put yet, and what it asserts. `begins`: confirmed, no marker yet; when."""

    arrivals: Arrivals
    assertion: Assertion
    instruments: Sequence[Instrument]
    alive_us: int
    begins: dict[str, int] = field(default_factory=dict)
    marked_at: float = 0.0  # when its last marker was due, on the loop's clock
    marked_us: int = 0  # the proof of life that it reached up to


class Feed:
    """The `Listener` of one exchange's driver.

    Args:
        venue: whose frames they are.
        instruments: what is listed.
        partitions: of the raw topic.
        outbox: takes the records.
        now_us: wall clock of the records that are no frames, epoch µs.
        counts: metrics.
        wake: called when frames wait for a `flush`.
        refills: is told of ids; None where nothing can be asked for again.
        clock_speed: of `now_us`; another than 1 in simulations.
    """

    def __init__(
        self,
        venue: Venue,
        instruments: Instruments,
        partitions: int,
        outbox: Outbox,
        *,
        now_us: Callable[[], int],
        counts: FeedCounts,
        wake: Callable[[], None] = lambda: None,
        refills: Refills | None = None,
        clock_speed: float = 1.0,
    ) -> None:
        self.refills = refills
        self.topic = topic_name(venue.exchange)
        self.delays = DelayWindow(clock_speed)
        self._venue, self._partitions, self._outbox = venue, partitions, outbox
        self._now_us, self._counts, self._wake = now_us, counts, wake
        self._addressing = Addressing(venue, instruments, partitions)
        self._connections: dict[str, _Connection] = {}
        self._waiting = 0
        self._unobserved: list[Addressed] = []
        self._unobserved_records = 0
        self._is_far_off = False

    def warm_up(self) -> None:
        """Load the compiled code that the first frames would wait for."""
        instrument = self._addressing.instruments.listed[0]
        frame = Arrivals(self._venue, [b'{"stream":"","data":{}}'], [0], set())
        records = self._addressing.addressed([frame]).records
        keyed = records.set_column(1, "key", pa.array([instrument.key], pa.string()))
        self._venue.decode(self._raw(keyed.cast(records.schema)), self._addressing.instruments)

    def change(self, instruments: Instruments) -> None:
        """List these instruments from now on. Frames of those that went still find their key."""
        self.flush()
        self.observe()
        canonical, spelled = set(instruments.by_canonical), set(instruments.by_venue_symbol)
        gone = [i for i in self._addressing.instruments.listed if i.canonical not in canonical and i.venue_symbol not in spelled]
        self._addressing.change(Instruments(instruments.exchange, (*instruments.listed, *gone)))
        for connection in self._connections.values():
            connection.arrivals.seen.clear()  # codes have changed

    # What the driver tells.

    def connected(self, connection: str, instruments: Sequence[Instrument], at_us: int) -> None:
        """Note a new connection."""
        assertion = Assertion(connection, self._venue.exchange, self._partitions)
        self._connections[connection] = _Connection(Arrivals(self._venue.router(), [], [], set()), assertion, instruments, at_us)
        self._counts.connects += 1
        self._counts.connections[connection] = at_us
        self._report(connection, "connected", [i.canonical for i in instruments], at_us, at_us, "")
        log.info("feed_connected", connection=connection, symbols=len(instruments))

    def received(self, connection: str, frames: list[bytes], at_us: list[int]) -> None:
        """Take frames; they are put at the next flush, or at once when many wait."""
        if not frames:
            return
        found = self._connections[connection]
        found.arrivals.frames += frames
        found.arrivals.times += at_us
        self._counts.bytes += sum(map(len, frames))
        found.alive_us = at_us[-1]
        self._counts.connections[connection] = at_us[-1]
        if not self._waiting:
            self._wake()
        self._waiting += len(frames)
        if self._waiting >= FLUSH_FRAMES:
            self.flush()

    def alive(self, connection: str, at_us: int) -> None:
        """Note a proof of life without a frame."""
        found = self._connections[connection]
        found.alive_us = max(found.alive_us, at_us)

    def confirmed(self, connection: str, symbols: Sequence[str], at_us: int) -> None:
        """Begin to assert symbols."""
        found = self._connections[connection]
        found.begins.update({symbol: at_us for symbol in symbols if symbol not in found.assertion})
        found.alive_us = max(found.alive_us, at_us)
        if self.refills is not None:
            self.refills.reconnected(symbols)

    def ended(self, connection: str, symbols: Sequence[str], at_us: int, reason: str) -> None:
        """Assert symbols up to now, and no further."""
        found = self._connections[connection]
        self._mark([found])
        found.assertion.end(symbols)
        for symbol in symbols:
            found.begins.pop(symbol, None)
        self._report(connection, "ended", symbols, at_us, at_us, reason)
        log.warning("feed_symbols_ended", connection=connection, symbols=list(symbols)[:20], reason=reason)

    def disconnected(self, connection: str, at_us: int, reason: str) -> None:
        """Assert what this connection received, and forget it."""
        found = self._connections[connection]
        self._mark([found])
        del self._connections[connection]
        self._counts.disconnects += 1
        self._counts.connections.pop(connection, None)
        self._report(
            connection, "disconnected", [i.canonical for i in found.instruments], found.alive_us, max(at_us, found.alive_us), reason
        )
        log.info("feed_disconnected", connection=connection, reason=reason)

    async def room(self) -> None:
        """Return when the outbox has room."""
        await self._outbox.room()

    # What the clock asks for.

    def flush(self) -> None:
        """Put what was received into the outbox."""
        if not self._waiting:
            return
        arrivals = [c.arrivals for c in self._connections.values() if c.arrivals.frames]
        addressed = self._addressing.addressed(arrivals)
        for a in arrivals:
            self._counts.messages += len(a.frames)
            a.frames, a.times = [], []
        self._waiting = 0
        self._outbox.put(Chunk(self.topic, addressed.records))
        self._unobserved.append(addressed)
        self._unobserved_records += len(addressed.codes)
        if self._unobserved_records >= OBSERVE_RECORDS:
            self.observe()

    def observe(self) -> None:
        """Look at the trades that were put since the last time: their delays, and their ids for the refill."""
        batches, self._unobserved, self._unobserved_records = self._unobserved, [], 0
        if not batches:
            return
        codes = np.concatenate([b.codes for b in batches])
        past = np.concatenate([b.past for b in batches])
        records = pa.concat_batches([b.records for b in batches])
        of_symbols = codes >= 0
        if not of_symbols.all():
            records, past = records.filter(pa.array(of_symbols)), past[of_symbols]
        if not len(past):
            return
        decoded = self._venue.decode(self._raw(records), self._addressing.instruments)
        trades = decoded.trades
        self._counts.trades += len(trades)
        self._counts.rejected += len(decoded.rejected)
        if not len(trades):
            return
        live = ~trades.is_snapshot & ~past[trades.row]
        received: Int64s = records.column("received_us").to_numpy()[trades.row]
        self.delays.add(received[live], trades.time_us[live])
        self._counts.delays = self.delays.bounds
        self._tell_of_clock(received[live] - trades.time_us[live])
        if self.refills is not None:
            self._tell(self.refills, trades)

    def clock_was_set(self) -> None:
        """Forget what was measured by the clock of before. The driver ends all assertions next."""
        self.flush()
        self.observe()
        self.delays.forget()
        self._counts.delays = None
        now_us = self._now_us()
        for connection in self._connections.values():
            connection.alive_us = connection.marked_us = min(connection.alive_us, now_us)

    def mark(self) -> None:
        """Put what every connection can assert now."""
        self._mark(list(self._connections.values()))

    def mark_due(self, at: float) -> None:
        """Put what the connections can assert whose last marker is a second old and that have proven life since.

        At once after a proof: where a heartbeat comes each second, a marker at any other moment would be older than it need be.
        """
        due = [c for c in self._connections.values() if at - c.marked_at >= MARK_S and c.alive_us > c.marked_us]
        for connection in due:
            connection.marked_at, connection.marked_us = at, connection.alive_us
        if due:
            self._mark(due)

    def _mark(self, connections: Sequence[_Connection]) -> None:
        self.flush()
        self.observe()
        now_us = self._now_us()
        bounds = self.delays.settled(now_us)
        if bounds is None:
            return
        markers = [marker for c in connections for marker in self._asserted(c, bounds, now_us)]
        self._counts.markers += len(markers)
        self.put(markers)

    def _asserted(self, connection: _Connection, bounds: Bounds, now_us: int) -> list[Outgoing]:
        for symbol, confirmed_us in connection.begins.items():
            connection.assertion.begin(symbol, confirmed_us - bounds.smallest)
        connection.begins.clear()
        found = connection.assertion.advance(connection.alive_us - bounds.largest - 1)
        return [Outgoing("", payload, now_us, kind=KIND_MARKER, partition=partition) for partition, payload in found]

    def put(self, records: Sequence[Outgoing]) -> None:
        """Put records that are no frames of a socket, behind all frames received so far."""
        self.flush()
        for chunk in chunks_of(self.topic, self._partitions, records):
            self._outbox.put(chunk)

    def _report(self, connection: str, kind: str, symbols: Sequence[str], from_us: int, to_us: int, detail: str) -> None:
        payload = event_payload(
            feed=connection, exchange=self._venue.exchange, kind=kind, symbols=symbols, from_us=from_us, to_us=to_us, detail=detail
        )
        self.put([Outgoing("", payload, to_us, kind=KIND_EVENT)])

    def _tell_of_clock(self, delays: Int64s) -> None:
        is_far_off = self.delays.is_far_off
        if is_far_off and not self._is_far_off:
            log.warning("clock_far_off", exchange=self._venue.exchange, seconds=float(delays[-1]) / SECOND, kept="no markers")
        elif self._is_far_off and not is_far_off:
            log.info("clock_plausible", exchange=self._venue.exchange)
        self._is_far_off = is_far_off

    def _raw(self, records: pa.RecordBatch) -> RawBatch:
        zeros = pa.array(np.zeros(records.num_rows, np.int64))
        columns = [zeros, zeros, *records.columns[1:]]
        batch = pa.RecordBatch.from_arrays(columns, schema=RAW_SCHEMA)
        return RawBatch(self._venue.exchange, self.topic, 0, "", records.num_rows, batch)

    def _tell(self, refills: Refills, trades: TradeBatch) -> None:
        order = np.argsort(trades.symbol, kind="stable")
        codes, firsts = np.unique(trades.symbol[order], return_index=True)
        listed = self._addressing.instruments.listed
        for code, rows in zip(codes.tolist(), np.split(order, firsts[1:]), strict=True):
            refills.observed(listed[code].canonical, trades.trade_id[rows], trades.time_us[rows])
