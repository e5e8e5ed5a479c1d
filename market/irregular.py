"""The exact rules for the records that the hot path does not do: plain code, one record and symbol at a time.

Each does four things: find the times around which completeness may change, note what it is there now, change ids, gaps and
coverage, and judge again. The thresholds that `Book.settle` leaves behind tell the hot path when to stop again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from market.book import Book, History
from market.candle import close, closed_between, create, find, fold, mark
from market.coverage import Coverage, Stretch
from market.exact import SUM_LIMIT, to_ints
from market.gaps import Segment, Unfillable
from market.ids import id_text
from market.interval import INTERVALS
from market.layout import (
    CAUSE,
    CHANGE,
    CLOSED,
    COMPLETE,
    COVERED_TO,
    DAY_LEVEL,
    DELTA_HEADS,
    FULL,
    HEADS,
    LENGTHS,
    LEVEL,
    LEVELS,
    NEVER,
    NEWEST,
    QUOTE,
    START,
    UNSETTLED,
    UPDATED,
    VOLUME,
)
from market.marker import Marker, UnfillableIds
from market.schema import Change
from market.seen import is_seen, remember
from market.sequence import Growth
from market.state import Trades
from market.trade import Rejected

_DAY: Final = INTERVALS[-1]
_MINUTE: Final = LENGTHS[0]


@dataclass(frozen=True, slots=True)
class Cause:
    """The record at hand: its place in the batch, its offset, its receive time."""

    row: int
    offset: int
    received: int


@dataclass(slots=True)
class Findings:
    """What the records of a batch cause besides trades and candles, in the order of their records."""

    gaps: list[tuple[int, int, Segment]] = field(default_factory=list)  # record, symbol, ledger row
    coverage: dict[tuple[int, str, int, int], list[int]] = field(default_factory=dict)  # record, kind, from, to: symbols
    rejected: list[Rejected] = field(default_factory=list)


class Irregular:
    """Applies irregular records of one batch to a book."""

    def __init__(self, book: Book, trades: Trades, findings: Findings) -> None:
        self._book = book
        self._trades = trades
        self._findings = findings
        self._lists: tuple[list[int], ...] = ()

    def apply_trades(self, first: int, end: int, cause: Cause) -> bool:
        """Apply the trades [first, end) of one record; return whether their folding is left to the walk."""
        ids, times, symbols, order = self._columns()
        by_symbol: dict[int, list[int]] = {}
        for trade in order[first:end]:
            by_symbol.setdefault(symbols[trade], []).append(trade)
        left = False
        for symbol, found in by_symbol.items():
            if self._book.rules.contiguous_ids:
                new: dict[int, tuple[int, int]] = {}  # id: trade, time
                for trade in found:
                    new.setdefault(ids[trade], (trade, times[trade]))
                left = self._apply_contiguous(symbol, new, cause, may_leave=len(by_symbol) == 1)
            else:
                self._apply_jumping(symbol, found, cause)
        return left

    def _columns(self) -> tuple[list[int], ...]:
        # Plain numbers are read faster from lists, and a batch with one irregular record has more.
        if not self._lists:
            trades = self._trades
            self._lists = tuple(column.tolist() for column in (trades.trade_id, trades.time, trades.symbol, trades.order))
        return self._lists

    def _apply_contiguous(self, symbol: int, found: dict[int, tuple[int, int]], cause: Cause, *, may_leave: bool) -> bool:
        book = self._book
        history = book.history(symbol)
        new = {number: entry for number, entry in found.items() if not history.runs.holds(number)}
        if new and book.state.symbols[symbol, FULL]:
            more: dict[int, list[int]] = {}
            new = {number: entry for number, entry in new.items() if self._fits(symbol, entry[0], more, cause)}
        if not new:
            return may_leave
        growth = history.runs.growth([(number, time) for number, (_, time) in new.items()])
        covered_to, where = -NEVER, []
        if history.coverage.stretches:
            covered_to = history.coverage.stretches[-1][1]
            where = _around_growth(history.coverage, covered_to - book.rules.gap_grace_us, growth)
        judge = _Judge(book, symbol, history, where, cause, [time for _, time in new.values()]) if where else None
        for number, (_, time) in new.items():
            history.runs.accept(number, time)
        self._tell(cause, symbol, history.gaps.change(growth, covered_to - book.rules.gap_grace_us))
        book.settle(symbol, history)
        accepted = [trade for trade, _ in new.values()]
        self._trades.accepted[accepted] = True
        watermark = covered_to - book.rules.lateness_us
        if may_leave and judge is None and all(time - time % _MINUTE + _MINUTE > watermark for _, time in new.values()):
            return True  # no closed candle is concerned
        self._fold(accepted, cause)
        (judge or _Judge(book, symbol, history, [], cause)).again()
        book.forget_deltas(symbol)
        return False

    def _apply_jumping(self, symbol: int, found: list[int], cause: Cause) -> None:
        self._book.make_room(0, len(found))
        state, trades = self._book.state, self._trades
        newest = int(state.symbols[symbol, NEWEST])
        oldest = newest - self._book.rules.dedup_horizon_us
        more: dict[int, list[int]] = {}
        new = []
        for trade in found:
            number, tail, time = int(trades.trade_id[trade]), int(trades.id_tail[trade]), int(trades.time[trade])
            if time < oldest:
                detail = f"trade {id_text(number, tail)} at {time}, more than the dedup horizon behind {newest}"
                self._findings.rejected.append(Rejected(cause.row, "too_old_to_deduplicate", detail))
            elif not is_seen(state.seen, symbol, number, tail, oldest) and (
                not state.symbols[symbol, FULL] or self._fits(symbol, trade, more, cause)
            ):
                remember(state.seen, state.progress, symbol, number, tail, time)
                newest = max(newest, time)
                new.append(trade)
        if new:
            judge = _Judge(self._book, symbol, self._book.history(symbol), [], cause)
            state.symbols[symbol, NEWEST] = newest
            self._trades.accepted[new] = True
            self._fold(new, cause)
            judge.again()
            self._book.forget_deltas(symbol)

    def _fits(self, symbol: int, trade: int, more: dict[int, list[int]], cause: Cause) -> bool:
        # A day's sums bound those of every candle inside it that is in state; `more`: what this record adds to them.
        state, day = self._book.state, _DAY.window_start(int(self._trades.time[trade]))
        slot = find(state.candles, state.symbols[symbol, HEADS + DAY_LEVEL], day)
        sums = to_ints(state.sums[slot, VOLUME : QUOTE + 2].reshape(2, 2)) if slot >= 0 else [0, 0]
        added = to_ints(np.stack([self._trades.quantity[trade], self._trades.quote_volume[trade]]))
        pending = [old + new for old, new in zip(more.get(day, [0, 0]), added, strict=True)]
        if all(old + new < SUM_LIMIT for old, new in zip(sums, pending, strict=True)):
            more[day] = pending
            return True
        name = id_text(int(self._trades.trade_id[trade]), int(self._trades.id_tail[trade]))
        detail = f"trade {name} would take a sum to 10^20"
        self._findings.rejected.append(Rejected(cause.row, "volume_overflow", detail))
        return False

    def _fold(self, accepted: list[int], cause: Cause) -> None:
        self._book.make_room(LEVELS * len(accepted))
        for trade in accepted:
            fold(self._book.state, self._trades, trade, cause.offset, cause.received)

    def apply_marker(self, symbol: int, marker: Marker, cause: Cause) -> None:
        """Apply a marker to one of its symbols."""
        book = self._book
        history = book.history(symbol)
        before = int(book.state.symbols[symbol, COVERED_TO])
        covered_to = max(before, marker.to_us)
        parts = history.coverage.uncovered(marker.from_us + 1, marker.to_us)
        opening = history.gaps.due(covered_to - book.rules.gap_grace_us)
        if not parts and not opening and covered_to == before:
            return
        judge = _Judge(book, symbol, history, [*parts, *(hole.span for hole in opening)], cause)
        change = history.coverage.cover(marker.from_us + 1, marker.to_us)
        for kind, stretches in (("uncovered", change.uncovered), ("covered", change.covered)):
            for low, high in stretches:
                self._findings.coverage.setdefault((cause.row, kind, low - 1, high), []).append(symbol)
        self._tell(cause, symbol, history.gaps.open(opening))
        book.settle(symbol, history)
        close(book.state, symbol, covered_to - book.rules.lateness_us, cause.offset, cause.received)
        judge.again()
        book.forget_deltas(symbol)

    def apply_unfillable(self, given: UnfillableIds, cause: Cause) -> None:
        """Note ids that cannot be got; a gap touches its windows whether it is open or not, so no candle changes."""
        history = self._book.history(given.symbol)
        holes = history.runs.holes(given.first, given.last)
        self._tell(cause, given.symbol, history.gaps.give_up(Unfillable(given.first, given.last, given.reason), holes))

    def _tell(self, cause: Cause, symbol: int, rows: list[Segment]) -> None:
        self._findings.gaps += [(cause.row, symbol, row) for row in rows]


def _around_growth(coverage: Coverage, line: int, growth: Growth) -> list[Stretch]:
    """Return the times around which growth may change completeness."""
    # Windows that both a gap that goes and one that comes would touch are touched before and after.
    gone = [hole.span for hole in growth.gone if hole.before <= line]
    new = [hole.span for hole in growth.new if hole.before <= line]
    found = [*_without(gone, new), *_without(new, gone)] if gone or new else []
    # What grows together bridges at most what lies between its outermost times and is not inside one of the runs already.
    newest = coverage.stretches[-1][0]
    for group in growth.joined:
        low, high = min(run.min_time for run in group), max(run.max_time for run in group)
        if low < newest:
            runs = [run for run in group if run.first not in growth.ids]
            longest = max(runs, key=lambda run: run.max_time - run.min_time) if runs else None
            sides = [(low, high)] if longest is None else [(low, longest.min_time - 1), (longest.max_time + 1, high)]
            found += [side for side in sides if side[0] <= side[1] and side[0] < newest and coverage.uncovered(*side)]
    return found


def _without(spans: list[Stretch], others: list[Stretch]) -> list[Stretch]:
    for begin, end in others:
        parts = [[(low, min(high, begin - 1)), (max(low, end + 1), high)] for low, high in spans]
        spans = [(low, high) for both in parts for low, high in both if low <= high]
    return spans


class _Judge:
    """Completeness around some times: as it is when this is made, and again when the record has been applied."""

    def __init__(self, book: Book, symbol: int, history: History, where: list[Stretch], cause: Cause, times: Iterable[int] = ()) -> None:
        self._book = book
        self._symbol = symbol
        self._history = history
        self._cause = cause
        self._where: list[Stretch] = []
        self._evicted: dict[tuple[int, int], bool] = {}
        if where:
            # A window that ends after the watermark is not closed, whatever is known about it.
            watermark = int(book.state.symbols[symbol, COVERED_TO]) - book.rules.lateness_us
            self._where = [(low, high) for low, high in where if low < watermark]
            limit = watermark - book.rules.horizon_us
            old = [(low, high) for low, high in self._where if low < limit]
            if old:
                # Windows of the record's own trades get deltas, which say what is complete then.
                own = {(level, time - time % length) for time in times for level, length in enumerate(LENGTHS)}
                self._evicted = self._judge_evicted(old, limit, own)

    def _judge_evicted(self, where: list[Stretch], limit: int, own: set[tuple[int, int]]) -> dict[tuple[int, int], bool]:
        # Closed windows that may have left the state, by (level, start). Only days with trades have stored rows.
        state = self._book.state
        heads = state.symbols[self._symbol, HEADS : HEADS + LEVELS].tolist()
        days = self._book.days_of(self._symbol, self._history)
        found: dict[tuple[int, int], bool] = {}
        for low, high in where:
            within = range(_DAY.window_start(low), high + 1, _DAY.length_us)
            for day in [day for day in within if day in days] if len(within) < len(days) else [day for day in days if day in within]:
                for level, length in enumerate(LENGTHS):
                    first = max(day, low - low % length)
                    for start in range(first, min(high + 1, day + _DAY.length_us, limit - length + 1), length):
                        window = level, start
                        if window not in found and window not in own and find(state.candles, heads[level], start) < 0:
                            found[window] = self._book.complete(self._history, start, start + length)
        return found

    def again(self) -> None:
        """Set what is complete now on closed candles, and say so of evicted windows whose completeness has changed."""
        state = self._book.state
        if state.progress[UNSETTLED]:
            for slot in state.unsettled[: state.progress[UNSETTLED]].tolist():
                start, level = state.candles[slot, [START, LEVEL]].tolist()
                state.candles[slot, COMPLETE] = self._book.complete(self._history, start, start + LENGTHS[level])
            state.progress[UNSETTLED] = 0
        for low, high in self._where:
            self._judge_closed(low, high)
        for (level, start), before in self._evicted.items():
            now = self._book.complete(self._history, start, start + LENGTHS[level])
            if now != before:
                self._tell_status(level, start, complete=now)

    def _judge_closed(self, low: int, high: int) -> None:
        state, cause = self._book.state, self._cause
        slots = np.empty(len(state.candles), np.int64)
        for slot in slots[: closed_between(state, self._symbol, low, high, slots)].tolist():
            start, level, before = state.candles[slot, [START, LEVEL, COMPLETE]].tolist()
            now = self._book.complete(self._history, start, start + LENGTHS[level])
            if now != bool(before):
                mark(state, slot, cause.offset, cause.received)
                state.candles[slot, COMPLETE] = now

    def _tell_status(self, level: int, start: int, *, complete: bool) -> None:
        self._book.make_room(1)
        state, cause = self._book.state, self._cause
        slot = create(state, self._symbol, DELTA_HEADS + level, level, start)
        mark(state, slot, cause.offset, cause.received)
        columns, values = [CHANGE, CLOSED, COMPLETE, CAUSE, UPDATED], [Change.STATUS.value, 1, complete, cause.offset, cause.received]
        state.candles[slot, columns] = values
