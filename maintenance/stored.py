"""Both stores behind one small contract for those who only read: how far tables have come, and their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import polars as pl
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, EqualTo, GreaterThanOrEqual, In, LessThan
from pyiceberg.table import Table as IcebergTable

from market.schema import Layer, Table
from sinks.clickhouse.reader import WarmReader, conformed
from sinks.endpoint import Endpoint
from sinks.iceberg.catalog import NAMESPACE
from sinks.iceberg.errors import translate
from sinks.iceberg.frontier import committed_frontier, last_commit_us

WARM: Final = "warm"
COLD: Final = "cold"
MINUTE: Final = "minute"
_MINUTE_US: Final = 60_000_000


@dataclass(frozen=True, slots=True)
class Frontier:
    """The first offset of a topic partition that a table has not taken in, of which topic, and when that was stored (epoch µs)."""

    offset: int
    generation: str
    committed_us: int | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows: none given means all. Times are epoch µs of the table's time column, start inclusive, end exclusive."""

    exchange: str | None = None
    symbols: tuple[str, ...] | None = None  # canonical
    start_us: int | None = None
    end_us: int | None = None
    closed: bool = False  # gold: only closed candles


class Stored(Protocol):
    """One store, to be read."""

    name: str  # warm | cold

    def frontiers(self) -> Mapping[tuple[str, str, int], Frontier]:
        """Return the frontier by (table, topic, partition); of tables that do not exist there is none."""

    def rows(self, table: Table, wanted: Wanted, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield rows in any order, in the types of `market.schema` (gold: the newest row of each candle).

        `columns` None: all that the store keeps. A table that does not exist has no rows.
        """


class WarmRows:
    """The warm store."""

    name = WARM

    def __init__(self, endpoint: Endpoint) -> None:
        self.reader = WarmReader(endpoint)
        self._tables: set[str] | None = None

    def frontiers(self) -> dict[tuple[str, str, int], Frontier]:
        """See `Stored`."""
        return {
            (f.table, f.topic, f.partition): Frontier(f.offset, f.generation, int(f.committed_at.timestamp() * 1_000_000))
            for f in self.reader.frontiers()
        }

    def rows(self, table: Table, wanted: Wanted, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """See `Stored`."""
        if table.name not in self._known():
            return
        clauses: list[str] = []
        bound: dict[str, Any] = {}
        if wanted.exchange is not None and table.layer is not Layer.BRONZE:
            clauses.append("`exchange` = {exchange:String}")
            bound["exchange"] = wanted.exchange
        if wanted.symbols is not None:
            clauses.append("`canonical_symbol` IN {symbols:Array(String)}")
            bound["symbols"] = list(wanted.symbols)
        for name, sign, time_us in (("start", ">=", wanted.start_us), ("end", "<", wanted.end_us)):
            if time_us is not None:
                clauses.append(f"`{table.time_column}` {sign} fromUnixTimestamp64Micro({{{name}:Int64}})")
                bound[name] = time_us
        if wanted.closed:
            clauses.append("`is_closed`")
        yield from self.reader.stream_table(table, " AND ".join(clauses), bound, columns=columns)

    def _known(self) -> set[str]:
        if self._tables is None:
            found = self.reader.arrow("SELECT name FROM system.tables WHERE database = 'k2'")
            self._tables = set(found.column("name").to_pylist()) if found.num_rows else set()
        return self._tables

    def close(self) -> None:
        """Close the connection."""
        self.reader.close()


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


def census(store: Stored, table: Table, wanted: Wanted, by: Sequence[str]) -> pl.DataFrame:
    """Count rows by columns; `minute` stands for the minute (epoch µs) of the table's time column.

    Shape: the columns of `by`, then `len`; sorted by `by`.
    """
    needed = [table.time_column if name == MINUTE else name for name in by]
    minute = (pl.col(table.time_column).to_physical() // _MINUTE_US * _MINUTE_US).alias(MINUTE)
    keys = [minute if name == MINUTE else pl.col(name) for name in by]
    counted: pl.DataFrame | None = None
    for batch in store.rows(table, wanted, needed):
        part = pl.DataFrame(batch).group_by(keys).len()
        counted = part if counted is None else pl.concat([counted, part])
        if counted.height > 100_000:
            counted = counted.group_by(list(by)).agg(pl.col("len").sum())
    if counted is None:
        return pl.DataFrame(schema={**dict.fromkeys(by, pl.Int64), "len": pl.UInt32})
    return counted.group_by(list(by)).agg(pl.col("len").sum()).sort(list(by))


def chunks(counted: pl.DataFrame, wanted: Wanted, most: int) -> Iterator[Wanted]:
    """Cut what is wanted into stretches of time of about `most` rows each, ascending.

    Args:
        counted: a census by minute of `wanted`.
        wanted: what to cut.
        most: rows of a stretch; a single minute may hold more.
    """
    start, rows = wanted.start_us, 0
    for minute, count in counted.select(MINUTE, "len").iter_rows():
        if rows and rows + count > most:
            yield replace(wanted, start_us=start, end_us=minute)
            start, rows = minute, 0
        rows += count
    if rows:
        yield replace(wanted, start_us=start)
