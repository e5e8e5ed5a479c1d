"""What to ask a venue for next: missing ids of every symbol, and proofs that nothing is missing. No I/O, no clock.

    hole    ids missing between two known ones. Asked for once it is older than mere reordering; a page that passes ids by is
            asked for again, with growing waits, before they are given up (`not_at_venue`). Ids above all that a page holds
            are never given up: the venue's REST interface is only behind its own feed.
    newer   a symbol was subscribed again: is there anything above its newest id? A page that is not full says that there
            is not, so everything up to about the time of the request is known, and a marker may say so: a quiet symbol's
            candles become complete. Asked once the symbol has no hole left, and not where its ids reach that time anyway.

A hole of hours must not delay one of seconds: small ones go first, then those that begin earliest. One of more ids than a REST
interface could return in hours is none: a numbering began anew, or two of them were mixed. Nobody is asked for it.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from connectors.live.delays import Bounds
from connectors.refill.known_ids import KnownIds, Range, without
from connectors.venues.feeding import Wanted
from market.interval import SECOND
from market.trade import Int64s

MOST_IDS: Final = 5_000_000
"""Of a hole that is asked for."""

_SMALL_PAGES: Final = 20
_RECENT_US: Final = 60 * SECOND
_BEHIND_CAP_S: Final = 30.0
_STEP_US: Final = SECOND  # how much earlier a page by time begins when the last one passed ids by, or did not come to them
_SPARE_S: Final = 0.1
_ID_LIMIT: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How patient a refill is.

    `settle_seconds`: a hole so young may be mere reordering. `again_seconds`: waits before ids that a page passed by are
    asked for again; of ids in the past only the first. `lag_us`: how far REST may be behind the feed. `horizon_us`: a hole
    that begins so long before a symbol's newest trade is left to a backfill.
    """

    settle_seconds: float = 1.0
    again_seconds: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0)
    lag_us: int = SECOND
    horizon_us: int = 7 * 86_400 * SECOND


@dataclass(slots=True, eq=False)
class _Hole:
    """Missing ids, some of which may be known by now. `passed`, `behind`: pages that passed them by, that did not reach them.

    `since_us`: where a full page by time ended before it reached them: the next one goes on there.
    """

    first: int
    last: int
    due: float
    passed: int = 0
    behind: int = 0
    since_us: int | None = None


@dataclass(slots=True, eq=False)
class _Newer:
    """Whether anything is newer. `whole`: (newest event time, time of the request) of a page that was not full."""

    confirmed_us: int
    due: float
    whole: tuple[int, int] | None = None


@dataclass(slots=True)
class _Symbol:
    """`left`: ids not to be asked for (again), ascending."""

    known: KnownIds = field(default_factory=KnownIds)
    holes: list[_Hole] = field(default_factory=list)
    newer: _Newer | None = None
    left: list[Range] = field(default_factory=list)

    def ends(self) -> Range:
        """Only what changes these can make a hole that nobody knows of."""
        runs = self.known.runs
        return (runs[0].first, runs[-1].first) if runs else (0, 0)


@dataclass(frozen=True, slots=True)
class Ask:
    """One page to ask for, and why; `beside`: other holes that it may hold."""

    symbol: str
    wanted: Wanted
    job: _Hole | _Newer
    beside: tuple[_Hole, ...] = ()


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Ids that cannot be had."""

    symbol: str
    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class Proof:
    """Every trade of a symbol with an event time in (from_us, to_us] is known."""

    symbol: str
    from_us: int
    to_us: int


class RefillPlan:
    """The known and the missing ids of one exchange. `at`: any monotonic seconds; `now_us`: the wall clock, epoch µs."""

    def __init__(
        self,
        page_rows: int,
        pace: Pace,
        noticed: Callable[[int], None] = lambda _: None,
        too_large: Callable[[str, int, int], None] = lambda _symbol, _first, _last: None,
        *,
        by_time: bool = False,
    ) -> None:
        """`noticed` is told of each new hole's size, `too_large` of each that is not asked for; `by_time`: the venue's pages are asked by time."""
        self._page_rows, self._pace, self._noticed, self._too_large, self._by_time = page_rows, pace, noticed, too_large, by_time
        self._symbols: dict[str, _Symbol] = {}

    def begin(self, symbol: str, known: KnownIds, given_up: Iterable[Range], at: float) -> None:
        """Take what a symbol's raw topic holds, and what was given up before."""
        found = self._symbols.setdefault(symbol, _Symbol())
        found.known.absorb(known)
        found.left = sorted([*found.left, *given_up])
        self._look_for_holes(symbol, found, at)

    def keep(self, symbols: Iterable[str]) -> None:
        """Forget all other symbols."""
        kept = set(symbols)
        self._symbols = {name: symbol for name, symbol in self._symbols.items() if name in kept}

    def observed(self, name: str, ids: Int64s, times: Int64s, at: float) -> int:
        """Take ids that are on their way into the topic; return how many are new."""
        symbol = self._symbols.setdefault(name, _Symbol())
        ends = symbol.ends()
        new = symbol.known.add(ids, times)
        if symbol.ends() != ends:
            self._look_for_holes(name, symbol, at)
        return new

    def reconnected(self, names: Sequence[str], now_us: int, at: float, bounds: Bounds | None) -> None:
        """Symbols are subscribed from now on; what was traded since their newest known id may be missing."""
        wait = self._pace.settle_seconds
        if bounds is not None:  # by then one page can prove all that there is to prove
            wait = (self._until(now_us, bounds) + bounds.largest + self._pace.lag_us - now_us) / SECOND + _SPARE_S
        for name in names:  # also where no id is known yet: it may be found deeper in the topic
            self._symbols.setdefault(name, _Symbol()).newer = _Newer(now_us, at + wait)

    def forget_proofs(self) -> None:
        """Prove nothing by what was asked before; who is subscribed again asks anew."""
        for symbol in self._symbols.values():
            symbol.newer = None

    def knows(self, name: str) -> bool:
        """Return whether any id of a symbol is known."""
        symbol = self._symbols.get(name)
        return symbol is not None and bool(symbol.known.runs)

    def waiting_ids(self) -> int:
        """Return how many ids are missing and may still be had."""
        return sum(b - a + 1 for s in self._symbols.values() for h in s.holes for a, b in s.known.missing(h.first, h.last))

    def next(self, at: float, now_us: int, bounds: Bounds | None) -> Ask | None:
        """Return the most urgent page that is due, or None."""
        best: tuple[tuple[bool, int], Ask] | None = None
        for name, symbol in self._symbols.items():
            for urgency, ask in self._due(name, symbol, at, now_us, bounds):
                if best is None or urgency < best[0]:
                    best = urgency, ask
        return None if best is None else best[1]

    def _due(self, name: str, symbol: _Symbol, at: float, now_us: int, bounds: Bounds | None) -> Iterator[tuple[tuple[bool, int], Ask]]:
        newest = symbol.known.newest
        if newest is None:
            return
        for hole in [hole for hole in symbol.holes if hole.due <= at]:
            ask = self._ask_for_hole(name, symbol, hole, at)
            if ask is not None:
                yield (hole.last - hole.first >= _SMALL_PAGES * self._page_rows, ask.wanted.after_us), ask
        newer = symbol.newer
        if newer is None or newer.due > at or newer.whole is not None or symbol.holes:
            return
        if bounds is not None:
            reached = newest.max_time >= self._until(newer.confirmed_us, bounds)
            if reached or now_us - bounds.smallest - newest.max_time > self._pace.horizon_us:
                symbol.newer = None
                return
        wanted = Wanted(first_id=newest.last + 1, last_id=None, after_us=newest.last_time, rows=self._page_rows)
        yield (False, newest.last_time), Ask(name, wanted, newer)

    def _ask_for_hole(self, name: str, symbol: _Symbol, hole: _Hole, at: float) -> Ask | None:
        # What became known is taken off both ends; parts in the middle come again with the page. Requests are scarcer than
        # bytes: the page is made long enough for the holes that follow.
        missing = symbol.known.missing(hole.first, hole.last)
        below = symbol.known.below(missing[0][0]) if missing else None
        newest = symbol.known.newest
        if below is None or newest is None:
            symbol.holes.remove(hole)
            return None
        hole.first, hole.last = missing[0][0], missing[-1][1]
        if newest.max_time - below.last_time > self._pace.horizon_us:
            symbol.holes.remove(hole)
            insort(symbol.left, (hole.first, hole.last))
            return None
        end = hole.first + self._page_rows - 1
        beside = tuple(h for h in symbol.holes if h is not hole and h.due <= at and h.first > hole.first and h.last < end)
        # One more, which is known: a page that holds it has passed all the others.
        need = max(h.last for h in (hole, *beside)) - hole.first + 2
        rows = self._page_rows if hole.passed or hole.behind or hole.since_us is not None else min(need, self._page_rows)
        # A clock that was set back stands between its trades: what follows an instant may not be all that follows a trade.
        after_us = below.last_time - (hole.passed + hole.behind) * _STEP_US if hole.since_us is None else hole.since_us
        return Ask(name, Wanted(first_id=hole.first, last_id=hole.last, after_us=after_us, rows=rows), hole, beside)

    def answered(
        self, ask: Ask, ids: Int64s, times: Int64s, *, is_full: bool, asked_us: int, at: float, is_newest: bool = False
    ) -> tuple[int, list[GivenUp]]:
        """Take a page.

        Args:
            ask: what `next` returned last.
            ids: of its trades, in any order.
            times: their event times, epoch µs.
            is_full: it has as many rows as were asked for.
            asked_us: wall clock when the request was sent.
            at: now.
            is_newest: it holds the newest trades of all; there are no other pages, so what is older cannot be had.

        Returns:
            How many ids are new, and what is given up. The page must be in the outbox before the next marker is put.
        """
        symbol = self._symbols.get(ask.symbol)
        if symbol is None:
            return 0, []
        new = self.observed(ask.symbol, ids, times, at)
        if isinstance(ask.job, _Hole):
            top = int(ids.max()) if len(ids) else -1
            if is_newest and len(ids):
                given = self._beyond(ask.symbol, symbol, ask.job, int(ids.min()))
                return new, [*given, *self._after_hole(ask.symbol, symbol, ask.job, top, at)]
            if self._by_time and is_full and top < ask.job.first and ask.job in symbol.holes and int(times.max()) > ask.wanted.after_us:
                ask.job.since_us = int(times.max())
                return new, []
            holes = [ask.job, *(hole for hole in ask.beside if hole.last <= top)]
            return new, [part for hole in holes for part in self._after_hole(ask.symbol, symbol, hole, top, at)]
        newest = symbol.known.newest
        if int(ids.min(initial=_ID_LIMIT)) > ask.wanted.first_id if is_newest else is_full:
            ask.job.due = at if new else at + self._pace.settle_seconds
        elif newest is not None:
            ask.job.whole = newest.max_time, asked_us
        return new, []

    def _beyond(self, name: str, symbol: _Symbol, hole: _Hole, bottom: int) -> list[GivenUp]:
        # Give up what is below the oldest id that can be had.
        last = min(hole.last, bottom - 1)
        if hole not in symbol.holes or hole.first > last:
            return []
        parts = symbol.known.missing(hole.first, last)
        hole.first = last + 1
        return [self._give_up(name, symbol, _Hole(a, b, hole.due), "older_than_rest") for a, b in parts]

    def _after_hole(self, name: str, symbol: _Symbol, hole: _Hole, top: int, at: float) -> list[GivenUp]:
        if hole not in symbol.holes:
            return []
        symbol.holes.remove(hole)
        given: list[GivenUp] = []
        is_past = self._is_past(symbol, hole)
        for first, last in symbol.known.missing(hole.first, hole.last):
            if first <= top:
                given += self._passed(name, symbol, _Hole(first, min(last, top), at, hole.passed), at, is_past=is_past)
            if last > top:
                progress = top >= hole.first
                wait = 0.0 if progress else min(2.0**hole.behind, _BEHIND_CAP_S)
                behind = 0 if progress else min(hole.behind + 1, 30)
                symbol.holes.append(_Hole(max(first, top + 1), last, at + wait, hole.passed, behind))
        return given

    def _passed(self, name: str, symbol: _Symbol, hole: _Hole, at: float, *, is_past: bool) -> list[GivenUp]:
        waits = self._pace.again_seconds[:1] if is_past else self._pace.again_seconds
        if hole.passed >= len(waits):
            return [self._give_up(name, symbol, hole, "not_at_venue")]
        hole.due, hole.passed = at + waits[hole.passed], hole.passed + 1
        symbol.holes.append(hole)
        return []

    @staticmethod
    def _is_past(symbol: _Symbol, hole: _Hole) -> bool:
        below, newest = symbol.known.below(hole.first), symbol.known.newest
        return below is not None and newest is not None and newest.max_time - below.last_time > _RECENT_US

    @staticmethod
    def _give_up(name: str, symbol: _Symbol, hole: _Hole, reason: str) -> GivenUp:
        insort(symbol.left, (hole.first, hole.last))
        return GivenUp(name, hole.first, hole.last, reason)

    def put_off(self, ask: Ask, until: float) -> None:
        """Ask for the same again, not before `until`."""
        ask.job.due = until

    def refused(self, ask: Ask, reason: str, at: float) -> list[GivenUp]:
        """Take that the venue will not answer: asked again as if a page had passed the ids by, then given up."""
        symbol = self._symbols.get(ask.symbol)
        if symbol is None:
            return []
        if isinstance(ask.job, _Newer):
            if symbol.newer is ask.job:
                symbol.newer = None
            return []
        hole = ask.job
        if hole not in symbol.holes:
            return []
        if hole.passed < len(self._pace.again_seconds[:1]):
            hole.due, hole.passed = at + self._pace.again_seconds[hole.passed], hole.passed + 1
            return []
        symbol.holes.remove(hole)
        return [self._give_up(ask.symbol, symbol, _Hole(a, b, at), reason) for a, b in symbol.known.missing(hole.first, hole.last)]

    def proofs(self, at: float, bounds: Bounds) -> list[Proof]:
        """Return what can be vouched for now, each once; to be put behind the pages."""
        found = []
        for name, symbol in self._symbols.items():
            newer, newest = symbol.newer, symbol.known.newest
            if newer is None or newer.whole is None or newest is None:
                continue
            from_us, asked_us = newer.whole
            to_us = asked_us - bounds.largest - self._pace.lag_us
            until = self._until(newer.confirmed_us, bounds)
            if symbol.holes:  # found meanwhile: what is in them may be as new as that
                newer.whole = None
                continue
            if to_us > from_us:
                found.append(Proof(name, from_us, to_us))
            if max(to_us, newest.max_time) >= until:
                symbol.newer = None
            else:
                newer.whole, newer.due = None, at + (until - to_us) / SECOND + _SPARE_S
        return found

    def _until(self, confirmed_us: int, bounds: Bounds) -> int:
        # The connection vouches from `confirmed - smallest` on; the smallest delay may still move a little.
        return confirmed_us - bounds.smallest + SECOND

    def _look_for_holes(self, name: str, symbol: _Symbol, at: float) -> None:
        runs = symbol.known.runs
        symbol.left = [part for part in symbol.left if part[1] >= runs[0].first] if runs else symbol.left
        taken = sorted([*symbol.left, *((hole.first, hole.last) for hole in symbol.holes)])
        for hole in symbol.known.holes():
            for first, last in without((hole.first, hole.last), taken):
                if last - first + 1 > MOST_IDS:
                    insort(symbol.left, (first, last))
                    self._too_large(name, first, last)
                    continue
                symbol.holes.append(_Hole(first, last, at + self._pace.settle_seconds))
                self._noticed(last - first + 1)
