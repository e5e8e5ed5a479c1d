"""Rows on their way into data files of an append-only table: cheap to hand over, written in the background, closed at a barrier."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa

from market.output import TableOutput
from market.schema import Kind
from sinks.iceberg.errors import translate
from sinks.iceberg.fence import Change
from sinks.iceberg.frontier import Frontier
from sinks.iceberg.layout import Layout
from sinks.iceberg.parquet import TARGET_FILE_BYTES, DataWriter, FileNote, read_footer, read_rows, split_by_partition, to_data_file
from sinks.iceberg.state import Pending
from sinks.iceberg.workers import Lane, Workers

GROUP_ROWS: Final = 32_768  # of a row group; larger leaves more to do at the barrier
IDLE_GROUP_ROWS: Final = 8_192  # enough while the writers are idle; costs 10 % more per row
GROUP_BYTES: Final = 16 << 20
ROW_BYTES: Final = 180  # of a row without its payload, about
MAX_OPEN_FILES: Final = 32  # per lane: an epoch over many days of old data closes the oldest ones early


@dataclass(slots=True)
class _Rows:
    """Rows of one exchange and topic that are not a row group yet, and the lane that writes them."""

    lane: Lane
    exchange: str
    topic: str
    batches: list[pa.RecordBatch] = field(default_factory=list)
    rows: int = 0
    size: int = 0
    # Only touched by the lane's work:
    open: dict[int, DataWriter] = field(default_factory=dict)
    closed: list[FileNote] = field(default_factory=list)


class AppendSide:
    """The rows of one append-only table. `add` and `begin_flush` may come from different threads.

    Args:
        table: pyiceberg table.
        layout: of the table.
        workers: of this process.
    """

    def __init__(self, table: Any, layout: Layout, workers: Workers) -> None:
        self._table = table
        self._layout = layout
        self._workers = workers
        self._payloads = [c.name for c in layout.table.columns if c.kind is Kind.BYTES]
        self._footers: dict[str, Any] = {}  # of closed files that are not committed yet
        self._lock = threading.Lock()
        self._parts: dict[tuple[str, str], _Rows] = {}
        self._flushes: list[Future[list[FileNote]]] = []
        self._error: BaseException | None = None

    def add(self, output: TableOutput, rows: pa.RecordBatch) -> None:
        """Take rows; waits only while the background is far behind. Raises what a writer thread met."""
        key = (output.exchange, output.topic)
        with self._lock:
            part = self._parts.get(key)
            if part is None:
                exchange = output.exchange if self._layout.by_exchange else ""
                part = self._parts[key] = _Rows(Lane(self._workers), exchange, output.topic)
            part.batches.append(rows)
            part.rows += len(rows)
            part.size += self._size(rows)
            enough = IDLE_GROUP_ROWS if self._workers.is_idle() else GROUP_ROWS
            full = part.rows >= enough or part.size >= GROUP_BYTES
            if full:
                self._submit_group(part)
        if full:
            self._workers.wait_for_room()
        self._raise()

    def begin_flush(self) -> None:
        """Hand over what is left and close the open files, in the background."""
        with self._lock:
            for part in self._parts.values():
                if part.batches:
                    self._submit_group(part)
            if self._parts:
                self._flushes += [part.lane.submit(partial(self._close_files, part)) for part in self._parts.values()]
                self._parts = {}

    def flush(self) -> tuple[tuple[FileNote, ...], tuple[()], int]:
        """Return the files closed since the last flush, no changes, and their rows: all that `add` took. Raises what a writer thread met."""
        self.begin_flush()
        with self._lock:
            flushes, self._flushes = self._flushes, []
        notes = tuple(note for flush in flushes for note in flush.result())
        self._raise()
        return notes, (), sum(note.rows for note in notes)

    def recover(self, table: Any, pending: Pending, committed: Frontier) -> Pending:
        """Return what of a predecessor's files is not in the table yet.

        Raises:
            Refused: a file that is needed is gone; names the way out.
        """
        files = tuple(kept for note in pending.files if (kept := self._missing_part(table, note, committed)) is not None)
        return Pending(pending.frontier, files, (), sum(note.rows for note in files), pending.epochs)

    def begin(self) -> None:
        """Do nothing: files are not planned anew."""

    def plan(self, table: Any, pending: Pending) -> Change:
        """Describe the files that a commit adds."""
        return Change([to_data_file(table, self._layout, note, self._footer(table, note)) for note in pending.files])

    def landed(self, table: Any, pending: Pending) -> None:
        """Forget the footers of files that are committed."""
        del table
        for note in pending.files:
            self._footers.pop(note.path, None)

    def abandon(self) -> None:
        """Drop what is not in a closed file. Never raises."""
        with self._lock:
            parts, self._parts = self._parts, {}
        for part in parts.values():
            part.lane.submit(partial(_abandon, part))

    def _footer(self, table: Any, note: FileNote) -> Any:
        if note.path not in self._footers:
            self._footers[note.path] = read_footer(table.io, note, ".".join(table.name()))
        return self._footers[note.path]

    def _missing_part(self, table: Any, note: FileNote, committed: Frontier) -> FileNote | None:
        stored = {p: committed[note.topic, p].offset for p in note.offsets if (note.topic, p) in committed}
        if all(high < stored.get(p, 0) for p, (_, high) in note.offsets.items()):
            return None
        self._footer(table, note)
        if all(low >= stored.get(p, 0) for p, (low, _) in note.offsets.items()):
            return note
        # Another execution has taken in the first part of this file's rows: keep the others.
        rows = read_rows(table.io, note.path, self._layout).combine_chunks().to_batches()[0]
        limits = np.array([stored.get(p, 0) for p in rows.column(self._layout.partition_column).to_pylist()], np.int64)
        rows = rows.filter(pa.array(rows.column(self._layout.offset_column).to_numpy() >= limits))
        if not len(rows):
            return None
        writer = DataWriter(table, self._layout, note.ordinal, note.exchange, note.topic)
        try:
            writer.write(rows)
            kept = writer.close()
        except BaseException:
            writer.abandon()
            raise
        self._footers[kept.path] = writer.footer
        return kept

    def _size(self, rows: pa.RecordBatch) -> int:
        # Asking Arrow for all columns costs as much as everything else here; payloads are what differs.
        return len(rows) * ROW_BYTES + sum(rows.column(name).nbytes for name in self._payloads)

    def _submit_group(self, part: _Rows) -> None:
        group, size = part.batches, part.size
        part.batches, part.rows, part.size = [], 0, 0
        self._workers.takes(size)
        part.lane.submit(partial(self._write_group, part, group, size))

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _write_group(self, part: _Rows, group: list[pa.RecordBatch], size: int) -> None:
        try:
            if self._error is None:
                rows = group[0] if len(group) == 1 else pa.concat_batches(group)
                for ordinal, of_partition in split_by_partition(rows, self._layout):
                    self._write(part, ordinal, of_partition)
        except Exception as error:  # surfaces at the next call of the engine's thread
            self._error = translate(error, f"write a data file of {self._layout.table.cold_name}")
        finally:
            self._workers.wrote(size)

    def _write(self, part: _Rows, ordinal: int, rows: pa.RecordBatch) -> None:
        writer = part.open.pop(ordinal, None)
        if writer is None:
            if len(part.open) >= MAX_OPEN_FILES:
                self._close(part, next(iter(part.open)))
            writer = DataWriter(self._table, self._layout, ordinal, part.exchange, part.topic)
        part.open[ordinal] = writer  # most recently used last
        for start in range(0, len(rows), GROUP_ROWS):
            writer.write(rows.slice(start, GROUP_ROWS))
        if writer.bytes_written >= TARGET_FILE_BYTES:
            self._close(part, ordinal)

    def _close(self, part: _Rows, ordinal: int) -> None:
        writer = part.open.pop(ordinal)
        note = writer.close()
        self._footers[note.path] = writer.footer
        part.closed.append(note)

    def _close_files(self, part: _Rows) -> list[FileNote]:
        try:
            while part.open and self._error is None:
                self._close(part, next(iter(part.open)))
        except Exception as error:  # surfaces in `flush`
            self._error = translate(error, f"close a data file of {self._layout.table.cold_name}")
        return part.closed


def _abandon(part: _Rows) -> None:
    for writer in part.open.values():
        writer.abandon()
