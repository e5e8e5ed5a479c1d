"""The cold store as those see it who only read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, EqualTo, GreaterThanOrEqual, In, LessThan
from pyiceberg.table import Table as IcebergTable

from maintenance.stored import COLD, Frontier, Wanted
from market.schema import Layer, Table
from sinks.clickhouse.reader import conformed
from sinks.iceberg.catalog import NAMESPACE
from sinks.iceberg.errors import translate
from sinks.iceberg.frontier import committed_frontier, last_commit_us


class ColdRows:
    """The cold store."""

    name = COLD

    def __init__(self, catalog: Catalog, tables: Sequence[Table]) -> None:
        self._catalog = catalog
        self._tables = tuple(tables)

    def frontiers(self) -> dict[tuple[str, str, int], Frontier]:
        """See `Stored`."""
        found: dict[tuple[str, str, int], Frontier] = {}
        for table in self._tables:
            stored = self._load(table)
            if stored is not None:
                committed_us = last_commit_us(stored.metadata)
                for (topic, partition), position in committed_frontier(stored.metadata, table.cold_name).items():
                    found[table.name, topic, partition] = Frontier(position.offset, position.generation, committed_us)
        return found

    def rows(self, table: Table, wanted: Wanted, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """See `Stored`."""
        stored = self._load(table)
        if stored is None or stored.metadata.current_snapshot() is None:
            return
        schema = table.arrow_schema()
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns])
        try:
            batches = stored.scan(row_filter=_filter(table, wanted), selected_fields=tuple(schema.names)).to_arrow_batch_reader()
            for batch in batches:
                if batch.num_rows:
                    yield from conformed(pa.Table.from_batches([batch]), schema).to_batches()
        except (OSError, RuntimeError) as error:
            raise translate(error, f"read {table.cold_name}") from error

    def _load(self, table: Table) -> IcebergTable | None:
        try:
            return self._catalog.load_table(f"{NAMESPACE}.{table.cold_name}")
        except NoSuchTableError:
            return None
        except Exception as error:
            raise translate(error, f"load {table.cold_name}") from error

    def close(self) -> None:
        """Nothing is held."""


def _filter(table: Table, wanted: Wanted) -> BooleanExpression:
    parts: list[BooleanExpression] = [AlwaysTrue()]
    if wanted.exchange is not None and table.layer is not Layer.BRONZE:
        parts.append(EqualTo("exchange", wanted.exchange))
    if wanted.symbols is not None:
        parts.append(In("canonical_symbol", set(wanted.symbols)))
    if wanted.start_us is not None:
        parts.append(GreaterThanOrEqual(table.time_column, _iso(wanted.start_us)))
    if wanted.end_us is not None:
        parts.append(LessThan(table.time_column, _iso(wanted.end_us)))
    if wanted.closed:
        parts.append(EqualTo("is_closed", True))
    return And(*parts) if len(parts) > 1 else parts[0]


def _iso(time_us: int) -> str:
    return str(pa.scalar(time_us, pa.timestamp("us")).cast(pa.string())).replace(" ", "T") + "+00:00"
