"""`ColdTable`: the one writer of one Iceberg table."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import structlog
from pyiceberg.catalog import Catalog

from market.errors import Refused, TransientError
from market.output import TableOutput
from market.schema import Layer, Table
from sinks.iceberg.append import AppendSide
from sinks.iceberg.catalog import open_catalog
from sinks.iceberg.committer import Committer
from sinks.iceberg.errors import translate
from sinks.iceberg.fence import Change, FencedTable
from sinks.iceberg.frontier import Frontier, Position, TopicPartition, committed_frontier
from sinks.iceberg.gold import GoldSide
from sinks.iceberg.layout import Layout, check_layout, identifier_of
from sinks.iceberg.parquet import FileNote
from sinks.iceberg.state import Pending, SavedState
from sinks.iceberg.workers import Workers

log = structlog.get_logger()
CLAIM_ATTEMPTS: Final = 6
CLAIM_PAUSE_S: Final = 1.0
CLOSE_WAIT_S: Final = 1.0


class _Side(Protocol):
    """What differs between append-only tables and candles. `add` and flushes: engine's thread; `plan` and `landed`: commit thread."""

    def add(self, output: TableOutput, rows: pa.RecordBatch) -> None: ...
    def begin_flush(self) -> None: ...
    def flush(self) -> tuple[tuple[FileNote, ...], tuple[bytes, ...], int]: ...
    def recover(self, table: Any, pending: Pending, committed: Frontier) -> Pending: ...
    def begin(self) -> None: ...
    def plan(self, table: Any, pending: Pending) -> Change: ...
    def landed(self, table: Any, pending: Pending) -> None: ...
    def abandon(self) -> None: ...


@functools.cache
def shared_workers() -> Workers:
    """Return the background threads that the tables of this process share."""
    return Workers()


class ColdTable:
    """The one writer of one table: rows in, exactly once in the table, in the background.

    Delivery: a row is stored iff its cause is at or past the table's frontier, which moves in the same atomic commit as the rows.
    A row that is written twice, in this run or after a crash, is stored once.

    Blocking: `write` only while the background is far behind; `snapshot` for closing files, never for the catalog.

    Threads: `write`, `snapshot`, `drain` and `close` from one thread.

    Args:
        catalog: an open catalog or its URL.
        table: which one; `prepare` must have created it.
        commit_interval_s: between two commits.
        now: monotonic seconds.
        workers: background threads; by default those of the process.
    """

    def __init__(
        self, catalog: Catalog | str, table: Table, *, commit_interval_s: float = 10.0, now: Callable[[], float] = time.monotonic,
        workers: Workers | None = None,
    ) -> None:  # fmt: skip
        self._catalog = catalog
        self._market_table = table
        self._interval_s = commit_interval_s
        self._now = now
        self._workers = workers or shared_workers()
        self._name = ".".join(identifier_of(table))
        self._taken: dict[TopicPartition, Position] = {}
        self._opened = False
        self._fenced: FencedTable
        self._side: _Side
        self._committer: Committer
        self._layout: Layout

    def open(self, resume_state: bytes | None) -> None:
        """Claim the table, so that no earlier writer can commit any more, and take over what one left uncommitted.

        Args:
            resume_state: what `snapshot` returned at the barrier that the engine resumes from; None to begin.

        Raises:
            Refused: the saved state does not fit the table; the message names `k2 recover`.
            SchemaMismatch: the table is missing or has another shape; the state has another version.
            SinkUnavailable: the catalog cannot be reached.
        """
        catalog = open_catalog(self._catalog) if isinstance(self._catalog, str) else self._catalog
        table = self._load(catalog)
        self._layout = Layout.of(self._market_table, table.schema())
        self._fenced = FencedTable(table, stale=False)
        if self._market_table.layer is Layer.GOLD:
            self._side = GoldSide(self._layout, self._workers)
        else:
            self._side = AppendSide(table, self._layout, self._workers)
        saved = None if resume_state is None else SavedState.decode(resume_state)
        if saved is not None:  # before the claim: a state that does not fit must not stop a flow that does
            self._check_saved(saved, committed_frontier(table.metadata, self._name))
        committed = self._claim()
        self._taken = dict(committed)
        pending = None if saved is None else self._resume(saved, committed)
        if pending is not None:
            self._taken = dict(pending.frontier)
        self._committer = Committer(self._name, self._commit, self._workers, self._interval_s, self._now)
        self._committer.start(committed, pending)
        self._workers.join(self)
        self._opened = True

    def write(self, output: TableOutput) -> None:
        """Take the rows that a raw batch caused; those that the table already has are dropped.

        Raises:
            Fenced: another writer has claimed the table.
            Refused: the rows are of another topic than those in the table.
            SinkUnavailable: files or commits have failed for too long.
        """
        self._committer.raise_failure()
        key = (output.topic, output.partition)
        known = self._taken.get(key)
        rows = output.rows
        if known is not None:
            if known.generation != output.generation:
                raise Refused(self._of_another_topic(output.topic, known.generation, output.generation))
            if output.next_offset <= known.offset:
                return
            if output.first_offset < known.offset and len(rows):
                rows = rows.filter(pc.greater_equal(rows.column(self._layout.offset_column), known.offset))
        if len(rows):
            self._committer.wait_for_room()
            self._side.add(output, rows)
        self._taken[key] = Position(output.generation, output.next_offset)

    def snapshot(self) -> bytes:
        """Return state in which every row written so far is kept, in closed data files or in the state itself, and queue its commit.

        Raises:
            Fenced, Refused: the commits have ended.
            SinkUnavailable: a data file could not be written.
        """
        self._committer.raise_failure()
        self._workers.begin_barrier()
        files, changes, rows = self._side.flush()
        self._committer.add(Pending(dict(self._taken), files, changes, rows))
        outstanding = self._committer.outstanding()
        return SavedState(self._name, self._uuid, outstanding.committed, outstanding.pending).encode()

    def begin_flush(self) -> None:
        """Start closing files before `snapshot` asks for them; any thread."""
        if self._opened:
            self._side.begin_flush()

    def hurry(self) -> None:
        """Commit what waits now; any thread."""
        if self._opened:
            self._committer.hurry()

    def drain(self, timeout_s: float) -> None:
        """Return once everything snapshotted is committed, frontier included.

        Raises:
            SinkUnavailable: it was not within the time.
            Fenced, Refused: the commits have ended.
        """
        self._workers.hurry()
        self._committer.drain(timeout_s)

    def frontiers(self) -> dict[TopicPartition, Position]:
        """Return the committed frontier."""
        return self._committer.outstanding().committed

    def pressure(self) -> float:
        """Return how far commits are behind; at 1 `write` blocks."""
        return self._committer.pressure()

    def close(self) -> None:
        """Let go of threads and open files; what is not committed stays described in the engine's saved state. Never raises."""
        if not self._opened:
            return
        self._opened = False
        with contextlib.suppress(Exception):
            self._side.abandon()
        with contextlib.suppress(Exception):
            self._committer.stop(CLOSE_WAIT_S)
        with contextlib.suppress(Exception):
            self._workers.leave(self)

    @property
    def _uuid(self) -> str:
        return str(self._fenced.table.metadata.table_uuid)

    def _of_another_topic(self, topic: str, stored: str, now: str) -> str:
        return (
            f"{self._name} holds rows of another topic of the name {topic} (generation {stored}, now {now}): it was deleted and created "
            "again. Point K2_TOPICS_URL at the old log, or use a new K2_HOME for the new one; `k2 recover` does not help here"
        )

    def _load(self, catalog: Catalog) -> Any:
        try:
            table = catalog.load_table(identifier_of(self._market_table))
        except Exception as error:
            raise translate(error, f"open {self._name}") from error
        check_layout(table, self._market_table)
        return table

    def _claim(self) -> dict[TopicPartition, Position]:
        for attempt in range(CLAIM_ATTEMPTS - 1):
            try:
                return self._fenced.claim()
            except TransientError as error:
                log.warning("cold_claim_postponed", table=self._name, reason=str(error))
                time.sleep(CLAIM_PAUSE_S * 2**attempt)
        return self._fenced.claim()

    def _check_saved(self, saved: SavedState, committed: Frontier) -> None:
        way_out = "Run `k2 recover`: it reads the raw topics from their start and stores what is missing"
        if saved.table != self._name or saved.uuid != self._uuid:
            raise Refused(f"the saved state is of {saved.table} ({saved.uuid}), not of this {self._name} ({self._uuid}). {way_out}")
        for (topic, partition), base in saved.base.items():
            stored = committed.get((topic, partition))
            if stored is not None and stored.generation != base.generation:
                raise Refused(self._of_another_topic(topic, stored.generation, base.generation))
            if stored is None or stored.offset < base.offset:
                raise Refused(
                    f"{self._name} has {topic} partition {partition} up to offset {0 if stored is None else stored.offset}, and had it up to "
                    f"{base.offset} when the flow's state was saved: the table was set back. {way_out}"
                )

    def _resume(self, saved: SavedState, committed: Frontier) -> Pending | None:
        self._check_saved(saved, committed)
        pending: Pending | None = None
        for epoch in saved.pending:
            missing = self._side.recover(self._fenced.table, epoch, committed)
            pending = missing if pending is None else pending.then(missing)
        if pending is None:
            return None
        # Another execution may have come further than the saved state: a frontier never goes back.
        frontier = dict(committed)
        for key, position in pending.frontier.items():
            if key not in frontier or frontier[key].offset < position.offset:
                frontier[key] = position
        if not pending.rows and frontier == dict(committed):
            return None
        return Pending(frontier, pending.files, pending.changes, pending.rows, pending.epochs)

    def _commit(self, pending: Pending, key: str) -> None:
        self._side.begin()
        self._fenced.commit(lambda table: self._plan(table, pending), pending.frontier, key)
        self._side.landed(self._fenced.table, pending)

    def _plan(self, table: Any, pending: Pending) -> Change:
        try:
            return self._side.plan(table, pending)
        except Exception as error:
            raise translate(error, f"plan a commit of {self._name}") from error
