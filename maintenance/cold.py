"""The cold store as those see it who only read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, EqualTo, GreaterThanOrEqual, In, LessThan

from maintenance.stored import COLD, Frontier, Wanted
from market.schema import Layer, Table
from sinks.iceberg.reader import ColdReader


class ColdRows:
    """The cold store.

    Args:
        catalog: from `open_catalog`.
        tables: whose frontiers to read.
    """

    name = COLD

    def __init__(self, catalog: Catalog, tables: Sequence[Table]) -> None:
        self._reader = ColdReader(catalog)
        self._tables = tuple(tables)

    def frontiers(self) -> dict[tuple[str, str, int], Frontier]:
        """See `Stored`."""
        found: dict[tuple[str, str, int], Frontier] = {}
        for table in self._tables:
            status = self._reader.status(table)
            committed_us = None if status.last_commit is None else round(status.last_commit.timestamp() * 1e6)
            for (topic, partition), position in status.frontier.items():
                found[table.name, topic, partition] = Frontier(position.offset, position.generation, committed_us)
        return found

    def rows(self, table: Table, wanted: Wanted, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """See `Stored`."""
        return self._reader.batches(table, _filter(table, wanted), columns)

    def close(self) -> None:
        """Nothing is held."""


def _filter(table: Table, wanted: Wanted) -> BooleanExpression:
    parts: list[BooleanExpression] = []
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
    return And(AlwaysTrue(), *parts) if parts else AlwaysTrue()


def _iso(time_us: int) -> str:
    return str(pa.scalar(time_us, pa.timestamp("us")).cast(pa.string())).replace(" ", "T") + "+00:00"
