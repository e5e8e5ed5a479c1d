"""Gets what a disconnect lost: pages of past trades over REST, into the raw topic as records of their own.

    observed, reconnected ─▶ RefillPlan ─▶ one request at a time ─▶ page ─▶ put        source=refill, verbatim in an envelope
                                                              ├──▶ given up ─▶ put     kind=unfillable, with the reason
                                                              └──▶ nothing newer ─▶ put a marker of its own

A page is read as the flow will read it: what the flow would reject does not count as had. Network trouble, rate limits and
maintenance never make ids unfillable; they are asked for again as long as the feed runs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Final, Protocol

import numpy as np
import orjson
import pyarrow as pa
import structlog

from connectors.live.delays import Bounds
from connectors.live.outgoing import Outgoing
from connectors.markers import marker_payload
from connectors.pacing import Backoff
from connectors.refill.refill_plan import Ask, GivenUp, Pace, RefillPlan
from connectors.refill.rest import Answer, RestUnreachable, is_busy, is_refusal
from connectors.refill.topic_tail import Tail
from connectors.venues.base import Venue
from connectors.venues.envelope import wrap
from connectors.venues.feeding import PageRequest, Wanted
from connectors.venues.text import Unusable
from market.instrument import Instrument, Instruments
from market.record import KIND_MARKER, KIND_UNFILLABLE, RAW_SCHEMA, RawBatch, topic_name
from market.trade import Int64s

log = structlog.get_logger()

_SOURCE: Final = "refill"
_LOOK_S: Final = 0.2  # how often an idle refill looks whether something is due
_PAUSE_S: Final = 10.0  # first pause after a rate limit that does not say how long
_LONGEST_PAUSE_S: Final = 300.0
_FIRST_RETRY_S: Final = 1.0
_LONGEST_RETRY_S: Final = 60.0


class Client(Protocol):
    """What a refill needs of `connectors.refill.rest.RestClient`."""

    async def turn(self) -> None:
        """Wait until the pace allows a request, and count it."""

    async def get(self, path: str) -> Answer:
        """Return the answer for a path; raises `RestUnreachable`."""

    async def close(self) -> None:
        """Close the connections."""


@dataclass(slots=True)
class RefillCounts:
    """Since the start: ids found missing, got and given up; requests sent, of them failed; pauses the venue asked for."""

    gap_ids: int = 0
    refilled_ids: int = 0
    unfillable_ids: int = 0
    refill_requests: int = 0
    refill_failures: int = 0
    refill_pauses: int = 0


@dataclass(frozen=True, slots=True)
class _Page:
    """A page as the flow will read it. `error`: why it is none; `is_final`: asking again cannot help."""

    payload: bytes = b""
    rows: int = 0
    ids: Int64s = field(default_factory=lambda: np.empty(0, np.int64))
    times: Int64s = field(default_factory=lambda: np.empty(0, np.int64))
    error: str = ""
    is_final: bool = False


class Refiller:
    """The refill of one exchange; everything happens on the loop, pages are read in a thread.

    Args:
        venue: whose trades they are. Without `rest`, missing ids are given up as `no_rest_interface`; without contiguous
            ids nothing can be known to be missing, and nothing is done.
        instruments: what is listed.
        client: the venue's REST interface; None where it has none.
        feed: id of the feed; its markers are those of `<feed>-refill`.
        put: takes records, in order, behind every frame that was observed.
        bounds: delays of recent live trades, None before the first.
        now_us: wall clock, epoch µs.
        random: in [0, 1), for jitter.
        pace: how patient to be.
    """

    def __init__(
        self,
        venue: Venue,
        instruments: Instruments,
        client: Client | None,
        *,
        feed: str,
        put: Callable[[Sequence[Outgoing]], None],
        bounds: Callable[[], Bounds | None],
        now_us: Callable[[], int],
        random: Callable[[], float],
        pace: Pace | None = None,
    ) -> None:
        self.counts = RefillCounts()
        self._venue, self._instruments, self._client = venue, instruments, client
        self._feed, self._put, self._bounds, self._now_us = f"{feed}-refill", put, bounds, now_us
        rules = venue.rest
        self._plan = RefillPlan(
            1000 if rules is None else rules.page_rows,
            pace or Pace(),
            self._found_missing,
            self._found_too_many,
            by_time=rules is not None and rules.wholly_by_time,
        )
        self._retry = Backoff(_FIRST_RETRY_S, _LONGEST_RETRY_S, random)
        self._pause = Backoff(_PAUSE_S, _LONGEST_PAUSE_S, random)
        self._paused_until = 0.0
        self._is_unreachable = False
        self._needs_key = False
        self._clock: Callable[[], float] = lambda: asyncio.get_running_loop().time()

    def begin(self, tail: Tail) -> None:
        """Take what the topic holds; at any time, and as often as more of it is found."""
        if self._venue.contiguous_ids:
            for symbol, known in tail.known.items():
                self._plan.begin(symbol, known, tail.given_up.get(symbol, ()), self._clock())

    def observed(self, symbol: str, ids: Int64s, times: Int64s) -> None:
        """Take ids and event times (epoch µs) of trades that are on their way into the topic."""
        if self._venue.contiguous_ids:
            self._plan.observed(symbol, ids, times, self._clock())

    def reconnected(self, symbols: Sequence[str]) -> None:
        """Symbols are subscribed (again) just now: what came since their last known id may be missing."""
        if self._venue.contiguous_ids and self._client is not None:
            self._plan.reconnected(symbols, self._now_us(), self._clock(), self._bounds())

    def forget_proofs(self) -> None:
        """Prove nothing by what was asked before."""
        self._plan.forget_proofs()

    def change(self, instruments: Instruments) -> None:
        """List these instruments from now on."""
        self._instruments = instruments
        self._plan.keep(instruments.by_canonical)

    def unknown(self) -> frozenset[str]:
        """Return the listed symbols of which no id is known: what they have lost cannot be told."""
        return frozenset(symbol for symbol in self._instruments.by_canonical if not self._plan.knows(symbol))

    def counted(self) -> Mapping[str, int]:
        """Return the counts by name."""
        return asdict(self.counts)

    def waiting_ids(self) -> int:
        """Return how many ids are missing and may still be had."""
        return self._plan.waiting_ids()

    async def run(self) -> None:
        """Refill until cancelled."""
        while True:
            self._vouch()
            at = self._clock()
            ask = self._plan.next(at, self._now_us(), self._bounds()) if at >= self._paused_until else None
            if ask is None:
                await asyncio.sleep(_LOOK_S)
            elif self._client is None:
                self._give_up(self._plan.refused(ask, "no_rest_interface", at))
            else:
                await self._client.turn()
                # What was due may have come meanwhile, and something else may be more urgent.
                ask = self._plan.next(self._clock(), self._now_us(), self._bounds())
                if ask is not None:
                    await self._request(self._client, ask)

    async def stop(self) -> None:
        """Close the connections; `run` must have ended."""
        if self._client is not None:
            await self._client.close()

    async def _request(self, client: Client, ask: Ask) -> None:
        found = self._instruments.by_canonical.get(ask.symbol)
        if found is None:
            self._plan.keep(self._instruments.by_canonical)
            return
        instrument = self._instruments.listed[found]
        request = self._page_request(instrument, ask.wanted)
        asked_us = self._now_us()
        self.counts.refill_requests += 1
        try:
            answer = await client.get(request.path)
        except RestUnreachable as error:
            self._failed(ask, f"{error}")
            return
        if is_busy(answer.status):
            self._be_patient(answer)
        elif answer.status == HTTPStatus.OK:
            page = await self._in_thread(request.path, instrument, answer.body)
            self._take(ask, instrument, page, request, asked_us)
        elif answer.status == HTTPStatus.UNAUTHORIZED and not request.is_newest and self._venue.newest_page(instrument) is not None:
            self._no_key(ask)
        elif is_refusal(answer.status):
            self._refused(ask, f"http_{answer.status}", answer.body[:200].decode("utf-8", "replace"))
        else:
            self._failed(ask, f"{request.path}: status {answer.status}", answer.retry_after)

    def _page_request(self, instrument: Instrument, wanted: Wanted) -> PageRequest:
        newest = self._venue.newest_page(instrument) if self._needs_key else None
        return self._venue.page_request(instrument, wanted) if newest is None else newest

    def _no_key(self, ask: Ask) -> None:
        self.counts.refill_failures += 1
        self._needs_key = True
        self._plan.put_off(ask, self._clock())
        log.warning("refill_limited", exchange=self._venue.exchange, detail="past trades want an API key: only the newest can be refilled")

    def _in_thread(self, path: str, instrument: Instrument, body: bytes) -> Awaitable[_Page]:
        return asyncio.to_thread(_read_page, self._venue, self._instruments, instrument, path, body, self._now_us())

    def _take(self, ask: Ask, instrument: Instrument, page: _Page, request: PageRequest, asked_us: int) -> None:
        if page.error:
            if page.is_final:
                self._refused(ask, "refused", page.error)
            else:
                self._failed(ask, page.error)
            return
        self._reached()
        self._pause.reset()
        at = self._clock()
        is_full = page.rows >= request.rows
        new, given = self._plan.answered(ask, page.ids, page.times, is_full=is_full, asked_us=asked_us, at=at, is_newest=request.is_newest)
        if new:
            self.counts.refilled_ids += new
            self._put([Outgoing(instrument.canonical, page.payload, self._now_us(), source=_SOURCE)])
            log.debug("trades_refilled", exchange=self._venue.exchange, symbol=ask.symbol, new=new, rows=page.rows)
        self._give_up(given)

    def _refused(self, ask: Ask, reason: str, detail: str) -> None:
        self.counts.refill_failures += 1
        log.warning("refill_refused", exchange=self._venue.exchange, symbol=ask.symbol, reason=reason, detail=detail)
        self._give_up(self._plan.refused(ask, reason, self._clock()))

    def _give_up(self, given: Sequence[GivenUp]) -> None:
        for part in given:
            self.counts.unfillable_ids += part.last - part.first + 1
            body = {
                "feed": self._feed,
                "exchange": self._venue.exchange,
                "symbol": part.symbol,
                "first_id": part.first,
                "last_id": part.last,
                "reason": part.reason,
            }
            payload = json.dumps(body, separators=(",", ":")).encode()
            self._put([Outgoing(part.symbol, payload, self._now_us(), source=_SOURCE, kind=KIND_UNFILLABLE)])
            log.warning("ids_given_up", **{name: value for name, value in body.items() if name != "feed"})

    def _vouch(self) -> None:
        bounds = self._bounds()
        if bounds is None:
            return
        now_us = self._now_us()
        # All of them first: putting may bring news to the plan.
        for proof in self._plan.proofs(self._clock(), bounds):
            payload = marker_payload(
                feed=self._feed, exchange=self._venue.exchange, from_us=proof.from_us, to_us=proof.to_us, symbols=[proof.symbol]
            )
            self._put([Outgoing(proof.symbol, payload, now_us, source=_SOURCE, kind=KIND_MARKER)])

    def _be_patient(self, answer: Answer) -> None:
        # The venue counts what comes meanwhile too, so nobody asks it anything until then.
        self.counts.refill_pauses += 1
        seconds = _PAUSE_S + self._pause.next_seconds() if answer.retry_after is None else max(answer.retry_after, 1.0)
        self._paused_until = self._clock() + seconds
        log.warning("refill_paused", exchange=self._venue.exchange, status=answer.status, seconds=round(seconds, 1))

    def _failed(self, ask: Ask, detail: str, retry_after: float | None = None) -> None:
        self.counts.refill_failures += 1
        seconds = (retry_after or 0.0) + self._retry.next_seconds()
        # The others wait less: it may be this one request that the venue cannot answer.
        at = self._clock()
        self._plan.put_off(ask, at + 2 * seconds)
        self._paused_until = at + seconds
        if not self._is_unreachable:
            log.warning("refill_unreachable", exchange=self._venue.exchange, symbol=ask.symbol, detail=detail)
        self._is_unreachable = True

    def _reached(self) -> None:
        if self._is_unreachable:
            log.info("refill_reachable", exchange=self._venue.exchange)
        self._is_unreachable = False
        self._retry.reset()

    def _found_missing(self, ids: int) -> None:
        self.counts.gap_ids += ids

    def _found_too_many(self, symbol: str, first: int, last: int) -> None:
        detail = "so many ids are not asked for: a numbering began anew, or another stream's was mixed in"
        log.warning("refill_hole_too_large", exchange=self._venue.exchange, symbol=symbol, first_id=first, last_id=last, detail=detail)


def _read_page(venue: Venue, instruments: Instruments, instrument: Instrument, path: str, body: bytes, received_us: int) -> _Page:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _Page(error=f"{path}: not JSON: {error}")
    complaint = venue.rest_error(document)
    if complaint is not None:
        return _Page(error=complaint.text, is_final=complaint.is_final)
    try:
        rows = len(venue.rest_items(document, instrument.venue_symbol))
    except Unusable as error:
        return _Page(error=f"{path}: {error.detail}")
    payload = wrap(path, instrument.venue_symbol, body)
    values = [[0], [received_us], [instrument.key], [_SOURCE], [received_us], [None], [None], [payload]]
    arrays = [pa.array(value, field.type) for value, field in zip(values, RAW_SCHEMA, strict=True)]
    record = pa.RecordBatch.from_arrays(arrays, schema=RAW_SCHEMA)
    decoded = venue.decode(RawBatch(venue.exchange, topic_name(venue.exchange), 0, "", 1, record), instruments)
    return _Page(payload, rows, decoded.trades.trade_id, decoded.trades.time_us)
