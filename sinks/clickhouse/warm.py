"""The ClickHouse sink of one process: outputs in, rows in tables within milliseconds, each exactly once.

    WarmPartition.write ──▶ Lane per table ──▶ inserter threads ──▶ fenced insert ──▶ k2.<table>
    WarmPartition.commit ─ waits until all of it is stored ─────────────────────────▶ k2.frontiers

Rows are inserted at once, not at the epoch; a frontier only says up to where everything is in. After a crash the rows at or past
the frontier are looked up and left out of the replay.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from market.errors import InvariantViolation, PipelineError, Refused, SinkUnavailable
from market.output import TableOutput
from market.schema import CHANGE, Layer, Table
from sinks.clickhouse.claims import Claims, Shard
from sinks.clickhouse.inserter import Connection, Pairs, Provider, among, causes, retried, store, stored_pairs
from sinks.clickhouse.pending import Item, Lane, Position, next_lane
from sinks.clickhouse.reader import Frontier, frontiers_where
from sinks.clickhouse.session import DATABASE, Session

MAX_PENDING_ROWS: Final = 200_000  # a barrier may have to wait for as many
MAX_PENDING_BYTES: Final = 192 << 20
INSERTERS: Final = (True, False, False)  # whether the thread takes quick tables only, so that candles never wait behind bulk
CLOSE_SECONDS: Final = 30.0
FRONTIER_COLUMNS: Final = {
    "table": "String",
    "exchange": "String",
    "topic": "String",
    "partition": "Int64",
    "generation": "String",
    "offset": "Int64",
}


class ClickHouseWarm:
    """The sink of one process, shared by all its partitions.

    Args:
        provider: returns the endpoint, starting an embedded store that is down; called at each new connection.
        tables: every table that outputs may name.
        max_pending_rows: rows that may wait before `write` blocks.
    """

    def __init__(self, provider: Provider, tables: Sequence[Table], *, max_pending_rows: int = MAX_PENDING_ROWS) -> None:
        self._provider = provider
        self._lanes = {table.name: Lane(table) for table in tables}
        self._max_rows = max_pending_rows
        self._claims = Claims()
        self._ending = threading.Event()
        self._control = Connection(provider, self._ending)
        self._control_lock = threading.Lock()
        self._changed = threading.Condition()  # guards lanes, partitions and the fields below
        self._partitions: dict[Shard, WarmPartition] = {}
        self._failure: BaseException | None = None
        self._hurried = 0  # callers that wait for rows to be stored
        self._in_flight = (0, 0)
        self._closed = False
        self._threads: list[threading.Thread] = []

    def open(self, exchange: str, topic: str, partition: int, generation: str, resume_offset: int | None) -> WarmPartition:
        """Become the only writer of what comes from a topic partition, and find out what of it is stored. Any thread.

        Args:
            exchange: of the topic.
            topic: raw topic.
            partition: its number.
            generation: the topic's id; frontiers of another one are refused.
            resume_offset: position that the engine continues from; None or 0: the start of the log.

        Raises:
            Refused: a table does not hold what the saved state says it holds.
            SinkUnavailable: the store stayed away for a minute.
        """
        shard = Shard(exchange, partition)
        tables = [
            lane.table
            for lane in self._lanes.values()
            if lane.table.layer is not Layer.BRONZE or lane.table.name == f"bronze_trades_{exchange}"
        ]

        def checked(session: Session) -> dict[str, int]:
            bound = {"topic": topic, "partition": partition}
            rows = frontiers_where(session, "`topic` = {topic:String} AND `partition` = {partition:Int64}", bound)
            stored = {row.table: row for row in rows}
            for table in tables:
                _check_resume(table.name, shard, generation, resume_offset, stored.get(table.name))
            return {table.name: stored[table.name].offset if table.name in stored else 0 for table in tables}

        def attempt(session: Session) -> tuple[dict[str, int], dict[str, Pairs]]:
            checked(session)  # before the claim: what must not start must not end what runs either
            self._claims.take(session, shard, [table.name for table in tables])
            frontiers = checked(session)
            appended = {table: frontiers[table.name] for table in tables if table.layer is not Layer.GOLD}
            return frontiers, stored_pairs(session, appended, shard)

        connection = Connection(self._provider, self._ending)
        try:
            frontiers, present = retried(connection, attempt, f"opening {shard}")
        finally:
            connection.drop()
        opened = WarmPartition(self, shard, topic, generation, present)
        with self._changed:
            self._raise_failure()
            for table in tables:
                offset = frontiers[table.name]
                self._lanes[table.name].positions[shard] = Position(offset, offset, offset)
            self._partitions[shard] = opened
            self._start_threads()
        return opened

    def close(self) -> None:
        """End the inserters and connections; rows that no `commit` has waited for may be lost to the flow's replay. Never raises."""
        self._ending.set()
        with self._changed:
            self._closed = True
            for lane in self._lanes.values():
                lane.items.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(CLOSE_SECONDS)
        self._control.drop()

    def submit(self, table: str, item: Item | None, shard: Shard, next_offset: int) -> None:
        """Queue rows of an output, or only move its table's position; blocks while too much is waiting."""
        with self._changed:
            self._raise_failure()
            position = self._lanes[table].positions[shard]
            if item is not None:
                self._await_room(item.rows)
                lane = self._lanes[table]
                idle = not lane.items and not lane.busy
                lane.put(item, time.monotonic())
                if idle or lane.behind:  # else an inserter knows of this table already, and when it is due
                    self._changed.notify_all()
            position.written = max(position.written, next_offset)
            if position.waiting == 0:
                position.stored = position.written

    def table(self, name: str) -> Table:
        """Return a table by its name."""
        return self._lanes[name].table

    def frontier(self, table: str, shard: Shard) -> int:
        """Return the recorded frontier of a table."""
        return self._lanes[table].positions[shard].frontier

    def commit(self, shard: Shard) -> None:
        """Wait until everything written for a topic partition is stored, then record frontiers.

        Those of other partitions go along, up to what is stored of them: the partitions of one barrier share one insert.
        """
        with self._changed:
            self._hurried += 1
            self._changed.notify_all()
            try:
                while any(lane.positions[shard].waiting for lane in self._lanes.values() if shard in lane.positions):
                    self._raise_failure()
                    self._changed.wait()
                self._raise_failure()
            finally:
                self._hurried -= 1
        with self._control_lock:
            with self._changed:
                moved = [
                    (lane, owner, position, position.stored)
                    for lane in self._lanes.values()
                    for owner, position in lane.positions.items()
                    if position.stored > position.frontier and owner in self._partitions
                ]
                if not any(owner == shard for _, owner, _, _ in moved):
                    return
                rows = [self._partitions[owner].frontier_row(lane.table.name, offset) for lane, owner, _, offset in moved]
            self._record(rows, [(lane.table.name, owner) for lane, owner, _, _ in moved])
            with self._changed:
                for _, _, position, offset in moved:
                    position.frontier = max(position.frontier, offset)

    def let_go(self, shard: Shard) -> None:
        """Forget a topic partition and what waits for it."""
        with self._changed:
            self._partitions.pop(shard, None)
            for lane in self._lanes.values():
                lane.drop(shard)
            self._changed.notify_all()

    def _record(self, rows: list[dict[str, object]], pairs: list[tuple[str, Shard]]) -> None:
        names = ", ".join(f"`{name}`" for name in FRONTIER_COLUMNS)
        structure = ", ".join(f"`{name}` {kind}" for name, kind in FRONTIER_COLUMNS.items())
        values = ", ".join(f"({', '.join(_literal(row[name]) for name in FRONTIER_COLUMNS)})" for row in rows)
        sql = f"INSERT INTO {DATABASE}.frontiers ({names}) SELECT * FROM values('{structure}', {values}) WHERE {self._claims.fence(pairs)}"

        def attempt(session: Session) -> None:
            # Recording twice is harmless: a frontier is a fact, and the highest one counts.
            if session.insert(sql, None, query_id=self._claims.query_id()) != len(rows):
                raise self._claims.lost(session, pairs)

        retried(self._control, attempt, "recording frontiers")

    def _await_room(self, rows: pa.RecordBatch) -> None:
        while not self._has_room(rows.num_rows, rows.nbytes):
            self._changed.wait()
            self._raise_failure()

    def _has_room(self, rows: int, nbytes: int) -> bool:
        waiting = sum(lane.rows for lane in self._lanes.values()) + self._in_flight[0]
        if waiting == 0:
            return True
        held = sum(lane.nbytes for lane in self._lanes.values()) + self._in_flight[1]
        return waiting + rows <= self._max_rows and held + nbytes <= MAX_PENDING_BYTES

    def _start_threads(self) -> None:
        if not self._threads:
            for number, quick_only in enumerate(INSERTERS):
                thread = threading.Thread(target=self._insert_until_closed, args=(quick_only,), name=f"warm-insert-{number}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _insert_until_closed(self, quick_only: bool) -> None:  # noqa: FBT001 a thread's argument
        connection = Connection(self._provider, self._ending)
        try:
            while (taken := self._take(quick_only=quick_only)) is not None:
                lane, items = taken
                store(connection, self._claims, lane.table, [(item.shard, item.rows) for item in items])
                self._stored(lane, items)
        except BaseException as error:
            self._fail(error)
        finally:
            connection.drop()

    def _take(self, *, quick_only: bool) -> tuple[Lane, list[Item]] | None:
        with self._changed:
            while not self._closed and self._failure is None:
                now = time.monotonic()
                lane, wait = next_lane(self._lanes.values(), now, quick_only=quick_only, at_once=self._hurried > 0)
                if lane is not None:
                    items = lane.take(now)
                    self._count(items, 1)
                    return lane, items
                self._changed.wait(wait)
            return None

    def _stored(self, lane: Lane, items: list[Item]) -> None:
        with self._changed:
            lane.done(items, time.monotonic())
            self._count(items, -1)
            self._changed.notify_all()

    def _count(self, items: list[Item], sign: int) -> None:
        rows, nbytes = self._in_flight
        self._in_flight = rows + sign * sum(i.rows.num_rows for i in items), nbytes + sign * sum(i.rows.nbytes for i in items)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._failure is None:
                self._failure = error
            self._changed.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            if isinstance(self._failure, PipelineError):
                raise type(self._failure)(str(self._failure)) from self._failure
            raise InvariantViolation(f"an inserter stopped: {self._failure!r}") from self._failure
        if self._closed:
            raise SinkUnavailable("the warm sink is closed")


class WarmPartition:
    """Everything that comes from one topic partition, for all tables. Used by one thread at a time."""

    def __init__(self, warm: ClickHouseWarm, shard: Shard, topic: str, generation: str, present: dict[str, Pairs]) -> None:
        self._warm = warm
        self._shard = shard
        self._topic = topic
        self._generation = generation
        self._present = {name: pairs for name, pairs in present.items() if len(pairs[0])}

    def write(self, output: TableOutput) -> None:
        """Hand over one output; its rows are inserted in the background, at once. Blocks only when too much is waiting.

        Raises:
            PipelineError: an earlier insert failed for good.
        """
        table = self._warm.table(output.table)
        rows = output.rows
        if rows.num_rows:
            names = [c.name for c in table.warm_columns]
            rows = rows.select([*names, CHANGE] if table.layer is Layer.GOLD else names)
            rows = self._new_rows(table, output, rows)
        item = Item(self._shard, rows, output.next_offset) if rows.num_rows else None
        self._warm.submit(output.table, item, self._shard, output.next_offset)

    def commit(self) -> None:
        """Return when everything written is stored and the frontiers say so; part of the engine's barrier."""
        self._warm.commit(self._shard)

    def abort(self) -> None:
        """Drop what waits. Never raises."""
        self._warm.let_go(self._shard)

    def frontier_row(self, table: str, offset: int) -> dict[str, object]:
        """Return the row that records a frontier."""
        return {
            "table": table,
            "exchange": self._shard.exchange,
            "topic": self._topic,
            "partition": self._shard.partition,
            "generation": self._generation,
            "offset": offset,
        }

    def _new_rows(self, table: Table, output: TableOutput, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows whose cause is at or past the frontier and that an unfinished epoch has not stored already."""
        frontier = self._warm.frontier(table.name, self._shard)
        if output.first_offset < frontier:
            rows = rows.filter(pa.array(rows[table.cause_columns[1]].to_numpy() >= frontier))
        known = self._present.get(table.name)
        if known is not None and rows.num_rows:
            if output.first_offset > int(known[0].max()):
                del self._present[table.name]
            else:
                rows = rows.filter(pa.array(~among(causes(table, rows), known)))
        return rows


def _literal(value: object) -> str:
    return str(value) if isinstance(value, int) else "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _check_resume(table: str, shard: Shard, generation: str, resume_offset: int | None, stored: Frontier | None) -> None:
    if stored is not None and stored.generation != generation:
        raise Refused(
            f"{DATABASE}.{table} holds rows of another topic {stored.topic} (generation {stored.generation}, now {generation}): it was deleted and "
            "created again. Point K2_TOPICS_URL at the old log, or use a new K2_HOME for the new one"
        )
    have = 0 if stored is None else stored.offset
    if resume_offset is not None and resume_offset > have:
        raise Refused(
            f"the flow continues {shard} at offset {resume_offset}, but {DATABASE}.{table} is only complete up to {have}: the table is older than the "
            "saved state, from a backup perhaps. Run `k2 recover`: it starts from the log, and what is stored stays"
        )
