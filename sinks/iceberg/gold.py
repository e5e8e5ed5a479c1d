"""Candles on their way into Iceberg: one row per closed window, merged with the table's head at commit time.

What waits is an ordered list of changes (`market.schema.Change`), kept as Arrow IPC bytes in the engine's saved state. At a commit
they are merged with the rows they concern. New windows are appended; a revised one is swapped by rewriting the files that hold
it. Which windows are stored is known from the files' bounds and, where those overlap, from their key columns.

So that a commit every few seconds does not leave thousands of files, a new file takes in the files of its own size class in its
partition once there are seven of them: at most 7 files a class and partition, and each row is rewritten five times or less.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.types import TimestamptzType

from market.errors import Refused
from market.gold import merge_changes
from market.output import TableOutput
from market.record import topic_name
from market.schema import CHANGE, Change, gold_output_schema
from sinks.iceberg.fence import Change as FileChange
from sinks.iceberg.frontier import Frontier
from sinks.iceberg.layout import Layout
from sinks.iceberg.parquet import DataWriter, partition_record, read_rows, split_by_partition, to_data_file
from sinks.iceberg.state import Pending
from sinks.iceberg.workers import Lane, Workers

FULL_ROWS: Final = 131_072  # a file this large is never merged again
CLASS_FILES: Final = 7
CLASS_RATIO: Final = 8
ENCODED_ROWS: Final = 8_192  # at once, while more come: little is left for the barrier
CACHED_KEYS: Final = 1_000_000
_US_PER_MINUTE: Final = 60_000_000
_ROW: Final = pa.scalar(Change.ROW.value, pa.int8())
_LZ4: Final = pa.ipc.IpcWriteOptions(compression="lz4")

Keys = npt.NDArray[np.int64]
PartitionKey = tuple[int, str]  # time ordinal, exchange


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    rows: int
    size: int
    first_us: int  # bounds of window_start
    last_us: int


@dataclass(slots=True)
class _Plan:
    """Files of one planned commit, and the head it was planned on."""

    head: int | None
    added: list[tuple[PartitionKey, _File, DataFile]] = field(default_factory=list)
    removed: list[tuple[PartitionKey, _File]] = field(default_factory=list)


class GoldSide:
    """The rows of one candle table. `add`, `flush` by the engine's thread; `plan`, `landed` by the commit thread.

    Args:
        layout: of the table.
        workers: of this process; they encode.
    """

    def __init__(self, layout: Layout, workers: Workers) -> None:
        self._layout = layout
        self._lane = Lane(workers)
        self._lock = threading.Lock()
        self._changes: list[pa.RecordBatch] = []
        self._rows = 0  # in `_changes`
        self._encoded: list[Future[bytes]] = []
        self._taken = 0  # rows since the last flush
        self._index = _Index(layout)
        self._plans: list[_Plan] = []

    def add(self, output: TableOutput, rows: pa.RecordBatch) -> None:
        """Take changes; rows of candles that are still open are not stored here."""
        del output
        if rows.schema.names[-1] != CHANGE:
            raise ValueError(f"{self._layout.table.name} takes {gold_output_schema().names}")
        wanted = pc.or_(rows.column("is_closed"), pc.not_equal(rows.column(CHANGE), _ROW))
        if wanted.true_count:
            with self._lock:
                self._changes.append(rows.filter(wanted))
                self._rows += wanted.true_count
                if self._rows >= ENCODED_ROWS:
                    self._encode()

    def begin_flush(self) -> None:
        """Encode what is left, in the background."""
        with self._lock:
            if self._changes:
                self._encode()

    def flush(self) -> tuple[tuple[()], tuple[bytes, ...], int]:
        """Return no files, the changes since the last flush as bytes in their order, and how many they are."""
        self.begin_flush()
        with self._lock:
            encoded, taken = self._encoded, self._taken
            self._encoded, self._taken = [], 0
        return (), tuple(future.result() for future in encoded), taken

    def _encode(self) -> None:
        changes, self._changes = self._changes, []
        self._taken += self._rows
        self._rows = 0
        self._encoded.append(self._lane.submit(lambda: _encode(pa.concat_batches(changes))))

    def abandon(self) -> None:
        """Do nothing: changes are only in memory."""

    def recover(self, table: Any, pending: Pending, committed: Frontier) -> Pending:
        """Return what of a predecessor's changes is not in the table yet."""
        del table
        kept = [_after(_decode(body), committed) for body in pending.changes]
        changes = tuple(_encode(batch) for batch in kept if len(batch))
        return Pending(pending.frontier, (), changes, sum(len(batch) for batch in kept), pending.epochs)

    def begin(self) -> None:
        """Forget earlier plans: a new batch begins."""
        self._plans.clear()

    def plan(self, table: Any, pending: Pending) -> FileChange:
        """Merge the changes with a head; writes the new files. Raises OSError and drivers' errors."""
        self._index.load(table)
        plan = _Plan(table.metadata.current_snapshot_id)
        if pending.changes:
            changes = pa.concat_batches([_decode(body) for body in pending.changes])
            for ordinal, of_time in split_by_partition(changes, self._layout):
                for exchange, of_partition in _by_exchange(of_time):
                    self._plan_partition(table, plan, (ordinal, exchange), of_partition)
        self._plans.append(plan)
        spec_id = table.metadata.default_spec_id
        removed = [_removal(self._layout, key, file, spec_id) for key, file in plan.removed]
        return FileChange([file for _, _, file in plan.added], removed)

    def landed(self, table: Any, pending: Pending) -> None:
        """Bring the index up to date after a commit."""
        del pending
        head = table.metadata.current_snapshot()
        # After a second plan it is not sure which one landed: the index is then read anew.
        if len(self._plans) == 1 and head is not None and head.parent_snapshot_id == self._plans[0].head:
            self._index.apply(self._plans[0], head.snapshot_id)
        else:
            self._index.forget()
        self._plans.clear()

    def _plan_partition(self, table: Any, plan: _Plan, key: PartitionKey, changes: pa.RecordBatch) -> None:
        index = self._index
        wanted = np.unique(index.keys_of(changes))
        starts = changes.column("window_start").cast(pa.int64()).to_numpy()
        touched = [
            file for file in index.overlapping(key, int(starts.min()), int(starts.max()))
            if np.isin(index.stored_keys(table.io, file), wanted).any()
        ]  # fmt: skip
        held = {file.path: read_rows(table.io, file.path, self._layout) for file in touched}
        merged = pa.Table.from_batches([merge_changes(changes, _stored(index, held.values(), wanted))])
        if not len(merged):
            return
        changed = index.keys_of(merged)
        rewritten = [file for file in touched if np.isin(index.stored_keys(table.io, file), changed).any()]
        parts = [merged, *(_without(index, held[file.path], changed) for file in rewritten)]
        total = sum(len(part) for part in parts)
        absorbed = _to_absorb([f for f in index.files(key) if f not in rewritten], total)
        parts += [read_rows(table.io, file.path, self._layout) for file in absorbed]
        plan.removed += [(key, file) for file in (*rewritten, *absorbed)]
        self._write(table, plan, key, pa.concat_tables(parts))

    def _write(self, table: Any, plan: _Plan, key: PartitionKey, rows: pa.Table) -> None:
        rows = rows.sort_by([("window_start", "ascending"), ("canonical_symbol", "ascending")]).combine_chunks()
        for start in range(0, len(rows), FULL_ROWS):
            batch = rows.slice(start, FULL_ROWS).to_batches()[0]
            ordinal, exchange = key
            writer = DataWriter(table, self._layout, ordinal, exchange, topic_name(exchange))
            try:
                writer.write(batch)
                note = writer.close()
            except BaseException:
                writer.abandon()
                raise
            starts = batch.column("window_start").cast(pa.int64())
            file = _File(note.path, note.rows, note.size, starts[0].as_py(), starts[-1].as_py())
            self._index.remember(file, self._index.keys_of(batch))
            plan.added.append((key, file, to_data_file(table, self._layout, note, writer.footer)))


class _Index:
    """The live files of a candle table by partition, as of one head, and the keys of those that were looked into."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._head: int | None = None
        self._loaded = False
        self._files: dict[PartitionKey, list[_File]] = {}
        self._keys: dict[str, Keys] = {}  # least recently used first
        self._cached = 0
        self._codes: dict[str, int] = {}

    def load(self, table: Any) -> None:
        """Read the manifests unless the index is of this head already.

        Raises:
            Refused: another engine has left row-level deletes, which a rewrite would undo.
        """
        head = table.metadata.current_snapshot_id
        if self._loaded and head == self._head:
            return
        self._files = {}
        field_id = table.schema().find_field("window_start").field_id
        for task in table.scan().plan_files():
            if task.delete_files:
                raise Refused(
                    f"{'.'.join(table.name())} holds row-level deletes of another engine: let that engine compact them away first"
                )
            partition = task.file.partition
            key = (int(partition[0]), str(partition[1]))
            self._files.setdefault(key, []).append(_described(task.file, field_id))
        self._head, self._loaded = head, True

    def forget(self) -> None:
        """Read the manifests at the next commit."""
        self._loaded = False

    def apply(self, plan: _Plan, head: int) -> None:
        """Take over a plan that has landed."""
        for key, file in plan.removed:
            self._files[key] = [f for f in self._files[key] if f.path != file.path]
            self._cached -= len(self._keys.pop(file.path, ()))
        for key, file, _ in plan.added:
            self._files.setdefault(key, []).append(file)
        self._head = head

    def files(self, key: PartitionKey) -> list[_File]:
        """Return the files of a partition."""
        return self._files.get(key, [])

    def overlapping(self, key: PartitionKey, first_us: int, last_us: int) -> list[_File]:
        """Return the files of a partition that may hold windows starting in [first, last]."""
        return [f for f in self.files(key) if f.first_us <= last_us and f.last_us >= first_us]

    def stored_keys(self, io: Any, file: _File) -> Keys:
        """Return the keys of a file's rows."""
        keys = self._keys.pop(file.path, None)
        if keys is None:
            keys = self.keys_of(read_rows(io, file.path, self._layout, ["canonical_symbol", "window_start"]))
            self._cached += len(keys)
        self._keys[file.path] = keys
        self._trim()
        return keys

    def remember(self, file: _File, keys: Keys) -> None:
        """Keep the keys of a file that was just written."""
        self._keys[file.path] = keys
        self._cached += len(keys)
        self._trim()

    def keys_of(self, rows: Any) -> Keys:
        """Return (symbol, window) of each row as one number; of one exchange."""
        symbols = rows.column("canonical_symbol")
        symbols = (symbols.combine_chunks() if isinstance(symbols, pa.ChunkedArray) else symbols).dictionary_encode()
        codes = np.array([self._codes.setdefault(name, len(self._codes)) for name in symbols.dictionary.to_pylist()], np.int64)
        minutes = rows.column("window_start").cast(pa.int64()).to_numpy() // _US_PER_MINUTE
        return (codes[symbols.indices.to_numpy()] << 32) | minutes if len(codes) else np.empty(0, np.int64)

    def _trim(self) -> None:
        while self._cached > CACHED_KEYS and len(self._keys) > 1:
            oldest = next(iter(self._keys))
            self._cached -= len(self._keys.pop(oldest))


def _described(file: DataFile, field_id: int) -> _File:
    lower, upper = (bounds.get(field_id) for bounds in (file.lower_bounds or {}, file.upper_bounds or {}))
    first = -(1 << 62) if lower is None else int(from_bytes(TimestamptzType(), lower))
    last = 1 << 62 if upper is None else int(from_bytes(TimestamptzType(), upper))
    return _File(file.file_path, file.record_count, file.file_size_in_bytes, first, last)


def _removal(layout: Layout, key: PartitionKey, file: _File, spec_id: int) -> DataFile:
    # pyiceberg finds the manifest entry by path and specification; the rest goes into the summary.
    removal = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=file.path,
        file_format=FileFormat.PARQUET,
        partition=partition_record(layout, *key),
        record_count=file.rows,
        file_size_in_bytes=file.size,
    )
    removal.spec_id = spec_id
    return removal


def _stored(index: _Index, tables: Iterable[pa.Table], wanted: Keys) -> pa.RecordBatch | None:
    parts = [t.filter(pa.array(np.isin(index.keys_of(t), wanted))) for t in tables]
    batches = pa.concat_tables(parts).combine_chunks().to_batches() if parts else []
    return batches[0] if batches else None


def _without(index: _Index, rows: pa.Table, keys: Keys) -> pa.Table:
    return rows.filter(pa.array(~np.isin(index.keys_of(rows), keys)))


def _to_absorb(files: list[_File], rows: int) -> list[_File]:
    absorbed: list[_File] = []
    while rows < FULL_ROWS:
        peers = [f for f in files if f.rows < FULL_ROWS and _size_class(f.rows) == _size_class(rows) and f not in absorbed]
        if len(peers) < CLASS_FILES:
            break
        absorbed += peers
        rows += sum(f.rows for f in peers)
    return absorbed


def _size_class(rows: int) -> int:
    return int(math.log(max(rows, 1), CLASS_RATIO))


def _by_exchange(changes: pa.RecordBatch) -> list[tuple[str, pa.RecordBatch]]:
    names = changes.column("exchange").unique().to_pylist()
    if len(names) == 1:
        return [(names[0], changes)]
    return [(name, changes.filter(pc.equal(changes.column("exchange"), name))) for name in sorted(names)]


def _after(changes: pa.RecordBatch, committed: Frontier) -> pa.RecordBatch:
    # What another execution has taken in meanwhile is stored already.
    for (topic, partition), position in committed.items():
        mine = pc.and_(pc.equal(changes.column("source_partition"), partition), _of_topic(changes, topic))
        changes = changes.filter(pc.invert(pc.and_(mine, pc.less(changes.column("source_offset"), position.offset))))
    return changes


def _of_topic(changes: pa.RecordBatch, topic: str) -> pa.Array:
    names = [n for n in changes.column("exchange").unique().to_pylist() if topic_name(n) == topic]
    return pc.is_in(changes.column("exchange"), value_set=pa.array(names, pa.string()))


def _encode(changes: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, changes.schema, options=_LZ4) as writer:
        writer.write_batch(changes)
    return bytes(sink.getvalue())


def _decode(body: bytes) -> pa.RecordBatch:
    with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
        batches = reader.read_all().combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=gold_output_schema())
