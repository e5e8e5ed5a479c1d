"""Rows on their way to ClickHouse: what waits, what may be inserted next, and how far each topic partition has come.

Plain state without I/O or locks; `warm.py` guards it. Time is passed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from market.schema import Layer, Table
from sinks.clickhouse.claims import Shard

INSERT_ROWS: Final = 65_536  # most rows of one insert: nearly the best rate; more makes a barrier wait longer
INSERT_BYTES: Final = 64 << 20
BULK_ROWS: Final = 40_000  # a bulk table with this much waiting does not wait any longer
# Least time between the starts of two inserts of a table. An insert of 10 rows costs the server nearly what one of 1,000 does,
# and all of them leave a part to merge. The first rows after a pause never wait.
QUICK_SPACING: Final = 0.08
BULK_SPACING: Final = 0.15
GATHER_SECONDS: Final = 0.008  # topic partitions are polled at the same instants: their rows for one table come within this
BUSY_SPACING: Final = 0.25  # of quick tables while bulk tables are behind: a replay, where nobody waits for the newest candle
PAUSE_PER_INSERT: Final = 4.0  # the pause is this much longer than the last insert took, up to BUSY_SPACING: a slow server is spared


@dataclass(slots=True)
class Position:
    """How far one table has come in one topic partition. All offsets are first ones not yet taken."""

    frontier: int  # recorded in k2.frontiers
    written: int  # handed over by the flow
    stored: int  # in the table
    waiting: int = 0  # outputs with rows that are not stored yet


@dataclass(frozen=True, slots=True)
class Item:
    """Rows of one output, already without those that the table has."""

    shard: Shard
    rows: pa.RecordBatch
    next_offset: int


@dataclass(slots=True)
class Lane:
    """One table's queue; at most one insert of a table is under way."""

    table: Table
    positions: dict[Shard, Position] = field(default_factory=dict)
    items: deque[Item] = field(default_factory=deque)
    rows: int = 0
    nbytes: int = 0
    busy: bool = False
    last_start: float = float("-inf")
    last_seconds: float = 0.0  # how long the last insert took
    waiting_since: float = 0.0  # when the first of the items was put

    @property
    def quick(self) -> bool:
        """Whether rows of this table are few and awaited."""
        return self.table.layer in {Layer.GOLD, Layer.TRUTH}

    def put(self, item: Item, now: float) -> None:
        """Append rows."""
        if not self.items:
            self.waiting_since = now
        self.items.append(item)
        self.rows += item.rows.num_rows
        self.nbytes += item.rows.nbytes
        self.positions[item.shard].waiting += 1

    @property
    def behind(self) -> bool:
        """Whether bulk rows come faster than their spacing lets them go."""
        return not self.quick and self.rows >= BULK_ROWS

    def ready_at(self, *, busy: bool = False) -> float:
        """Return when the next insert may start. `busy`: bulk tables are behind."""
        if not self.quick:
            spacing = BULK_SPACING
        elif busy:
            spacing = BUSY_SPACING
        else:
            spacing = min(max(QUICK_SPACING, PAUSE_PER_INSERT * self.last_seconds), BUSY_SPACING)
        return max(self.waiting_since + (GATHER_SECONDS if self.quick else 0.0), self.last_start + spacing)

    def take(self, now: float) -> list[Item]:
        """Take the next insert's items off the queue, in order."""
        taken: list[Item] = []
        rows = nbytes = 0
        while self.items:
            item = self.items[0]
            if taken and (rows + item.rows.num_rows > INSERT_ROWS or nbytes + item.rows.nbytes > INSERT_BYTES):
                break
            taken.append(self.items.popleft())
            rows += item.rows.num_rows
            nbytes += item.rows.nbytes
        self.rows -= rows
        self.nbytes -= nbytes
        self.busy = True
        self.last_start = self.waiting_since = now
        return taken

    def done(self, items: Iterable[Item], now: float) -> None:
        """Note that items are stored."""
        self.busy = False
        self.last_seconds = now - self.last_start
        for item in items:
            position = self.positions.get(item.shard)
            if position is None:
                continue  # its partition was let go meanwhile
            position.waiting -= 1
            position.stored = position.written if position.waiting == 0 else item.next_offset

    def drop(self, shard: Shard) -> None:
        """Forget a topic partition and its waiting rows."""
        self.positions.pop(shard, None)
        kept = [item for item in self.items if item.shard != shard]
        self.items = deque(kept)
        self.rows = sum(item.rows.num_rows for item in kept)
        self.nbytes = sum(item.rows.nbytes for item in kept)


def next_lane(lanes: Iterable[Lane], now: float, *, quick_only: bool, at_once: bool) -> tuple[Lane | None, float | None]:
    """Choose what an inserter does next: the table whose rows could have gone first.

    Args:
        lanes: all tables.
        now: the clock of `put`, `take` and `done`, seconds.
        quick_only: leave bulk tables to others.
        at_once: somebody waits for rows to be stored: no spacing.

    Returns:
        The lane, or None and how many seconds to wait before asking again (None: until something is put).
    """
    lanes = tuple(lanes)
    busy = any(lane.behind for lane in lanes)
    free = [lane for lane in lanes if lane.items and not lane.busy and (lane.quick or not quick_only)]
    first = min(free, key=lambda lane: lane.ready_at(busy=busy), default=None)
    ready = [lane for lane in free if at_once or lane.behind or lane.ready_at(busy=busy) <= now]
    if ready:
        return min(ready, key=lambda lane: lane.ready_at(busy=busy)), None
    return None, None if first is None else first.ready_at(busy=busy) - now
