"""All state of a shard: the arrays of the hot path, and per symbol what only rare records need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from market.candle import evict
from market.coverage import Coverage
from market.gaps import Gaps
from market.layout import (
    AT_SPECIAL,
    AT_SYMBOL,
    AT_TRADE,
    BRIDGE_HIGH,
    BRIDGE_LOW,
    CHANGE,
    CHANGED,
    CLEAN_FROM,
    COVERED_FROM,
    COVERED_TO,
    DAY_DELTAS,
    DAY_LEVEL,
    DECIDED,
    DELTA_HEADS,
    DIRTY,
    FIRST,
    FREE,
    HEADS,
    LAST,
    LEVEL,
    LEVELS,
    NEVER,
    NEWEST,
    NEXT,
    NEXT_CLOSE,
    NEXT_EVICT,
    NEXT_GAP,
    RUN_MAX,
    RUN_MIN,
    SEEN,
    START,
    SYMBOL,
    SYMBOL_WIDTH,
    UNSETTLED,
)
from market.rules import Rules
from market.schema import Change
from market.seen import move_live, new_table
from market.sequence import Runs
from market.state import grown, new_state
from market.trade import Int64s

_SPARE_SLOTS = 1_024


@dataclass(slots=True)
class History:
    """What a symbol's state holds besides the hot arrays."""

    runs: Runs = field(default_factory=Runs)
    gaps: Gaps = field(default_factory=Gaps)
    coverage: Coverage = field(default_factory=Coverage)
    days: set[int] = field(default_factory=set)  # window starts of the days that have trades and have left the state


class Book:
    """State of all symbols of one topic partition; a symbol's code is its position in `names`."""

    def __init__(self, names: Sequence[str], rules: Rules) -> None:
        self.names = list(names)
        self.rules = rules
        self.state = new_state(blank_symbols(len(names)), rules, new_table(0 if rules.contiguous_ids else _SPARE_SLOTS))
        self.histories: dict[int, History] = {}
        self._noted = 0  # changed candles whose days are known

    def history(self, symbol: int) -> History:
        """Return a symbol's history, its newest run and stretch as the hot arrays have them now."""
        history = self.histories.get(symbol)
        if history is None:
            history = self.histories[symbol] = History()
            return history
        last, _, last_time, _, least, greatest, _, covered_to = self.state.symbols[symbol, : COVERED_TO + 1].tolist()
        if history.runs.runs:
            run = history.runs.runs[-1]
            run.last, run.last_time, run.min_time, run.max_time = last, last_time, least, greatest
        if history.coverage.stretches:
            history.coverage.stretches[-1][1] = covered_to
        return history

    def settle(self, symbol: int, history: History) -> None:
        """Set the hot arrays of a symbol, thresholds included, from its history."""
        runs, coverage = history.runs.runs, history.coverage
        run = runs[-1] if runs else None
        numbers = [-2, NEVER, 0, 0, NEVER, -NEVER]
        if run is not None:
            numbers = [run.last, run.first, run.last_time, run.first_time, run.min_time, run.max_time]
        if not coverage.stretches:
            numbers += [NEVER, -NEVER, NEVER, NEVER, -NEVER, NEVER]
        else:
            begin, end = coverage.stretches[-1]
            line = history.gaps.next_line()
            numbers += [
                begin,
                end,
                line if line == NEVER else line + self.rules.gap_grace_us,
                max(begin, history.gaps.spans.reach() + 1),
                -NEVER if run is None else coverage.uncovered_before(run.min_time),
                NEVER if run is None else coverage.uncovered_after(run.max_time),
            ]
        self.state.symbols[symbol, : BRIDGE_HIGH + 1] = numbers

    def complete(self, history: History, start: int, end: int) -> bool:
        """Return whether nothing is known to be missing in a closed window [start, end)."""
        if history.gaps.spans.reach(end - 1) >= start:
            return False
        return all(history.runs.bridges(low, high) for low, high in history.coverage.uncovered(start, end - 1))

    def days_of(self, symbol: int, history: History) -> set[int]:
        """Return the window starts of all days in which the symbol has trades."""
        self.note_days()
        days = set(history.days)
        slot = int(self.state.symbols[symbol, HEADS + DAY_LEVEL])
        while slot >= 0:
            days.add(int(self.state.candles[slot, START]))
            slot = int(self.state.candles[slot, NEXT])
        return days

    def note_days(self) -> None:
        """Enter the days of the deltas made since the last call."""
        progress = self.state.progress
        if progress[DAY_DELTAS] == 0:
            return
        found = self.state.candles[self.state.changed[self._noted : progress[CHANGED]]]
        for symbol, start in found[(found[:, LEVEL] == DAY_LEVEL) & (found[:, CHANGE] == Change.DELTA.value)][:, [SYMBOL, START]].tolist():
            self.histories.setdefault(symbol, History()).days.add(start)
        self._noted = int(progress[CHANGED])
        progress[DAY_DELTAS] = 0

    def forget_deltas(self, symbol: int) -> None:
        """End a record: its deltas are whole, the next record makes its own."""
        self.state.symbols[symbol, DELTA_HEADS : DELTA_HEADS + LEVELS] = -1

    def make_room(self, candles: int, ids: int = 0) -> None:
        """See to free candle slots and to free places for seen ids."""
        progress = self.state.progress
        if progress[FREE] < candles:
            self.state = grown(self.state, candles + _SPARE_SLOTS)
        if not self.rules.contiguous_ids and 2 * (progress[SEEN] + ids) > len(self.state.seen):
            live = new_table(int(progress[SEEN]) + ids)
            move_live(self.state.seen, self.state.symbols, self.state.rules, live, progress)
            table = new_table(2 * int(progress[SEEN]) + ids + _SPARE_SLOTS)
            move_live(live, self.state.symbols, self.state.rules, table, progress)
            self.state = self.state._replace(seen=table)

    def begin(self) -> None:
        """Start a batch."""
        self.state.progress[[AT_TRADE, AT_SPECIAL, AT_SYMBOL, CHANGED, UNSETTLED, DECIDED]] = 0
        self._noted = 0

    def end(self) -> None:
        """End a batch whose changed candles have been taken: free what is not kept, evict what is older than the horizon."""
        self.note_days()
        state, progress = self.state, self.state.progress
        slots = state.changed[: progress[CHANGED]]
        state.candles[slots, DIRTY] = 0
        gone = slots[state.candles[slots, CHANGE] != Change.ROW.value]
        state.free[progress[FREE] : progress[FREE] + len(gone)] = gone
        progress[FREE] += len(gone)
        days = np.empty((len(state.candles), 2), np.int64)
        for symbol, start in days[: evict(state, days)].tolist():
            self.histories.setdefault(symbol, History()).days.add(start)


def blank_symbols(count: int) -> Int64s:
    """Return the hot rows of symbols that nothing is known of."""
    rows = np.zeros((count, SYMBOL_WIDTH), np.int64)
    rows[:, LAST] = -2
    for column in (FIRST, RUN_MIN, COVERED_FROM, NEXT_GAP, CLEAN_FROM, BRIDGE_HIGH, NEXT_CLOSE, NEXT_EVICT):
        rows[:, column] = NEVER
    for column in (RUN_MAX, COVERED_TO, BRIDGE_LOW, NEWEST):
        rows[:, column] = -NEVER
    rows[:, HEADS : HEADS + 2 * LEVELS] = -1
    return rows
