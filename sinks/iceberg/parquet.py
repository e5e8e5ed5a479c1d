"""Data files: rows streamed into Parquet as sorted row groups, closed and synced, then described.

A file holds rows of one partition (day or month, exchange) from one raw topic. Its description goes into the engine's saved
state; Iceberg's own description is built from the Parquet footer when the file is committed.
"""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import compute_statistics_plan, data_file_statistics_from_parquet_metadata, parquet_path_to_id_mapping
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.typedef import Record

from market.errors import Refused, SinkUnavailable
from sinks.iceberg.durable import DurableFile
from sinks.iceberg.errors import translate
from sinks.iceberg.layout import US_PER_DAY, Layout

TARGET_FILE_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class FileNote:
    """A closed data file, as saved state describes it.

    Attributes:
        path: location URI.
        rows, size: to tell whether the file is still what it was.
        ordinal: partition's time value, days or months since 1970.
        exchange: partition's exchange, "" where the table has no such column.
        topic: raw topic that caused its rows.
        offsets: topic partition to (lowest, highest) causing offset.
    """

    path: str
    rows: int
    size: int
    ordinal: int
    exchange: str
    topic: str
    offsets: dict[int, tuple[int, int]]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON shape."""
        return {
            "path": self.path, "rows": self.rows, "size": self.size, "ordinal": self.ordinal, "exchange": self.exchange, "topic": self.topic,
            "offsets": {str(p): list(bounds) for p, bounds in self.offsets.items()},
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FileNote:
        """Return what `to_json` described."""
        offsets = {int(p): (int(low), int(high)) for p, (low, high) in value["offsets"].items()}
        return cls(**{**value, "offsets": offsets})


class DataWriter:
    """One open data file. Used by one thread at a time.

    Args:
        table: pyiceberg table.
        layout: of the table.
        ordinal, exchange: the partition.
        topic: raw topic of the rows.
    """

    def __init__(self, table: Any, layout: Layout, ordinal: int, exchange: str, topic: str) -> None:
        self._layout = layout
        self._key = (ordinal, exchange, topic)
        self._path = _new_path(table, layout, ordinal, exchange)
        self._file: DurableFile = table.io.new_output(self._path)
        self._stream = self._file.create_native()
        self._writer = pq.ParquetWriter(self._stream, layout.schema, **layout.writer_options)
        self._offsets: dict[int, tuple[int, int]] = {}
        self._rows = 0
        self.footer: Any = None

    @property
    def bytes_written(self) -> int:
        """Bytes that went to the file so far."""
        return int(self._stream.tell())

    def write(self, rows: pa.RecordBatch) -> None:
        """Add one row group, sorted; raises OSError when the store does not take it."""
        self._note_offsets(rows)
        order = sort_order(rows, self._layout)
        if order is not None:
            rows = rows.take(pa.array(order))
        self._writer.write_table(pa.Table.from_arrays(rows.columns, schema=self._layout.schema), row_group_size=max(len(rows), 1))
        self._rows += len(rows)

    def close(self) -> FileNote:
        """Finish the file and bring it to the disk."""
        self._writer.close()
        self.footer = self._writer.writer.metadata
        size = int(self._stream.tell())
        self._stream.close()
        self._file.sync()
        ordinal, exchange, topic = self._key
        return FileNote(self._path, self._rows, size, ordinal, exchange, topic, self._offsets)

    def abandon(self) -> None:
        """Let go of a file that nobody will ask for. Never raises."""
        for part in (self._writer, self._stream):
            with contextlib.suppress(Exception):
                part.close()

    def _note_offsets(self, rows: pa.RecordBatch) -> None:
        offsets = rows.column(self._layout.offset_column).to_numpy()
        partitions = rows.column(self._layout.partition_column).to_numpy()
        single = bool((partitions == partitions[0]).all())
        for partition in [int(partitions[0])] if single else np.unique(partitions).tolist():
            mine = offsets if single else offsets[partitions == partition]
            low, high = self._offsets.get(partition, (int(mine[0]), int(mine[0])))
            self._offsets[partition] = (min(low, int(mine.min())), max(high, int(mine.max())))


def _new_path(table: Any, layout: Layout, ordinal: int, exchange: str) -> str:
    folder = table.spec().partition_to_path(partition_record(layout, ordinal, exchange), table.schema())
    return f"{table.location_provider().new_data_location(f'{folder}/{uuid.uuid4()}.parquet')}"


def partition_record(layout: Layout, ordinal: int, exchange: str) -> Record:
    """Return a partition as Iceberg keeps it."""
    return Record(ordinal, exchange) if layout.by_exchange else Record(ordinal)


def sort_order(rows: pa.RecordBatch, layout: Layout) -> npt.NDArray[np.int64] | None:
    """Return the row numbers in (symbol, time) order, stable; None when they stand so already."""
    times = rows.column(layout.table.time_column).cast(pa.int64()).to_numpy()
    ascending = bool((times[1:] >= times[:-1]).all())
    if layout.symbol_column is None:
        return None if ascending else np.argsort(times, kind="stable")
    symbols = rows.column(layout.symbol_column).dictionary_encode()
    names = symbols.dictionary
    rank = np.empty(len(names), np.uint16 if len(names) < 1 << 16 else np.uint32)
    rank[pc.sort_indices(names).to_numpy()] = np.arange(len(names), dtype=rank.dtype)
    codes = rank[symbols.indices.to_numpy()]
    if ascending:
        return np.argsort(codes, kind="stable")  # a radix sort: codes are 16 bits wide
    by_time = np.argsort(times, kind="stable")
    return by_time[np.argsort(codes[by_time], kind="stable")]


def split_by_partition(rows: pa.RecordBatch, layout: Layout) -> list[tuple[int, pa.RecordBatch]]:
    """Return (partition's time value, its rows), ascending; rows keep their order. Empty for no rows."""
    if not len(rows):
        return []
    days = rows.column(layout.table.time_column).cast(pa.int64()).to_numpy() // US_PER_DAY
    first, last = int(days.min()), int(days.max())
    if layout.partition_ordinal(first * US_PER_DAY) == layout.partition_ordinal(last * US_PER_DAY):
        return [(layout.partition_ordinal(first * US_PER_DAY), rows)]
    distinct, inverse = np.unique(days, return_inverse=True)
    ordinals = np.array([layout.partition_ordinal(int(day) * US_PER_DAY) for day in distinct])[inverse]
    return [(int(o), rows.filter(pa.array(ordinals == o))) for o in np.unique(ordinals)]


def read_footer(io: Any, note: FileNote, table_name: str) -> Any:
    """Return the Parquet footer of a closed file.

    Raises:
        Refused: the file is gone or is not what it was; names the way out.
        SinkUnavailable: the store cannot be read.
    """
    lost = f"{table_name}: the saved state speaks of {note.path}, which"
    way_out = "Rows it held can be made again from the raw topics: run `k2 recover`"
    try:
        file = io.new_input(note.path)
        if len(file) != note.size:
            raise Refused(f"{lost} has {len(file)} bytes instead of {note.size}. {way_out}")
        with file.open() as stream:
            footer = pq.read_metadata(stream)
    except FileNotFoundError as error:
        raise Refused(f"{lost} is gone. {way_out}") from error
    except pa.ArrowInvalid as error:
        raise Refused(f"{lost} is damaged ({error}). {way_out}") from error
    except OSError as error:
        raise SinkUnavailable(f"read {note.path}: {error}") from error
    if footer.num_rows != note.rows:
        raise Refused(f"{lost} has {footer.num_rows} rows instead of {note.rows}. {way_out}")
    return footer


def to_data_file(table: Any, layout: Layout, note: FileNote, footer: Any) -> DataFile:
    """Return Iceberg's description of a closed file, statistics taken from its footer."""
    schema = table.schema()
    try:
        statistics = data_file_statistics_from_parquet_metadata(
            parquet_metadata=footer,
            stats_columns=compute_statistics_plan(schema, table.metadata.properties),
            parquet_column_mapping=parquet_path_to_id_mapping(schema),
        )
    except Exception as error:
        raise translate(error, f"describe {note.path}") from error
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=note.path,
        file_format=FileFormat.PARQUET,
        partition=partition_record(layout, note.ordinal, note.exchange),
        file_size_in_bytes=note.size,
        sort_order_id=None,
        spec_id=table.metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )


def read_rows(io: Any, path: str, layout: Layout, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of a data file in the market's Arrow types; raises OSError."""
    with io.new_input(path).open() as stream:
        rows = pq.ParquetFile(stream).read(columns=columns)
    schema = layout.table.arrow_schema()
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    return rows.select(schema.names).cast(schema)
