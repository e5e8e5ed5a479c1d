"""Read the cold store: frontiers for the status, rows for the audit and exports, locations for other engines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.io.pyarrow import ArrowScan

from market.schema import Table
from sinks.iceberg.catalog import NAMESPACE
from sinks.iceberg.errors import translate
from sinks.iceberg.frontier import Position, TopicPartition, committed_frontier, last_commit_us
from sinks.iceberg.layout import identifier_of

ALL_ROWS: Final = AlwaysTrue()
READ_AHEAD_BYTES: Final = 16 << 20  # of compressed files


@dataclass(frozen=True, slots=True)
class TableFrontier:
    """How far one table has come in one topic partition; `table` is its market name (`silver_trades`, `ohlcv_1m`)."""

    table: str
    topic: str
    partition: int
    generation: str
    offset: int


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One table at one head.

    Attributes:
        frontier: of the head; empty for a table that was never written or does not exist.
        rows, files, size: live rows, data files and their bytes.
        last_commit: when a writer last committed.
    """

    frontier: dict[TopicPartition, Position]
    rows: int
    files: int
    size: int
    last_commit: datetime | None


class ColdReader:
    """Reads tables of a catalog at their heads; every call sees the newest commit.

    Args:
        catalog: from `open_catalog`.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def status(self, table: Table) -> TableStatus:
        """Return frontier, size and last commit of a table, from metadata alone."""
        found = self._load(table)
        if found is None:
            return TableStatus({}, 0, 0, 0, None)
        head = found.metadata.current_snapshot()
        summary = None if head is None else head.summary
        rows, files, size = (
            0 if summary is None else int(summary[k] or 0) for k in ("total-records", "total-data-files", "total-files-size")
        )
        committed = last_commit_us(found.metadata)
        when = None if committed is None else datetime.fromtimestamp(committed / 1e6, UTC)
        return TableStatus(committed_frontier(found.metadata, ".".join(identifier_of(table))), rows, files, size, when)

    def frontiers(self) -> list[TableFrontier]:
        """Return how far every table of the store has come in every topic partition; by table, topic and partition."""
        rows: list[TableFrontier] = []
        try:
            for identifier in self._catalog.list_tables(NAMESPACE) if self._catalog.namespace_exists(NAMESPACE) else ():
                frontier = committed_frontier(self._catalog.load_table(identifier).metadata, ".".join(identifier))
                name = identifier[-1].removeprefix("gold_")
                rows += [TableFrontier(name, topic, partition, p.generation, p.offset) for (topic, partition), p in frontier.items()]
        except Exception as error:
            raise translate(error, "read the frontiers of the cold store") from error
        return sorted(rows, key=lambda row: (row.table, row.topic, row.partition))

    def metadata_location(self, table: Table) -> str:
        """Return what DuckDB, ClickHouse and polars are to be given. Guessing by folder may show uncommitted rows.

        Raises:
            SchemaMismatch: there is no such table.
        """
        return str(self._require(table).metadata_location)

    def read(self, table: Table, row_filter: str | BooleanExpression = ALL_ROWS, columns: Sequence[str] | None = None) -> pa.Table:
        """Return rows in the market's Arrow types, in no particular order.

        Args:
            table: which; one that does not exist has no rows.
            row_filter: Iceberg expression; times as ISO text with offset: `timestamp >= '2024-01-01T00:00:00+00:00'`.
            columns: in this order; None: all.
        """
        return pa.Table.from_batches(self.batches(table, row_filter, columns), schema=_schema(table, columns))

    def batches(
        self, table: Table, row_filter: str | BooleanExpression = ALL_ROWS, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Return what `read` returns, piece by piece, so that memory stays bounded. One head for all pieces."""
        schema = _schema(table, columns)
        found = self._load(table)
        if found is None:
            return
        try:
            scan = found.scan(row_filter=row_filter, selected_fields=tuple(schema.names))
            arrow = ArrowScan(found.metadata, found.io, scan.projection(), scan.row_filter, scan.case_sensitive)
            for files in _grouped(scan.plan_files()):
                for batch in arrow.to_record_batches(files):
                    if len(batch):
                        rows = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
                        yield from rows.to_batches()
        except Exception as error:
            raise translate(error, f"read {table.cold_name}") from error

    def _load(self, table: Table) -> Any | None:
        try:
            return self._catalog.load_table(identifier_of(table))
        except NoSuchTableError:
            return None
        except Exception as error:
            raise translate(error, f"read {table.cold_name}") from error

    def _require(self, table: Table) -> Any:
        try:
            return self._catalog.load_table(identifier_of(table))
        except Exception as error:
            raise translate(error, f"read {table.cold_name}") from error


def _grouped(files: Iterable[Any]) -> Iterator[list[Any]]:
    # pyiceberg reads every file it is given at once, however slowly its batches are taken: it gets a few at a time.
    group: list[Any] = []
    size = 0
    for file in files:
        if group and size + file.file.file_size_in_bytes > READ_AHEAD_BYTES:
            yield group
            group, size = [], 0
        group.append(file)
        size += file.file.file_size_in_bytes
    if group:
        yield group


def _schema(table: Table, columns: Sequence[str] | None) -> pa.Schema:
    schema = table.arrow_schema()
    return schema if columns is None else pa.schema([schema.field(name) for name in columns])
