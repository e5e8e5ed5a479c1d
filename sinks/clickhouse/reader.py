"""Reads the warm store in the project's own Arrow types, for status, audit, export and the sink itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.compute as pc

from market.schema import Layer, Table
from sinks.clickhouse.session import DATABASE, Session
from sinks.endpoint import Endpoint

ANSWER_SECONDS: Final = 300
LISTED_KEYS: Final = 1_000  # more window starts of one symbol are asked for as a range


@dataclass(frozen=True, slots=True)
class Frontier:
    """The first offset of a topic partition that a table has not yet taken in."""

    table: str
    exchange: str
    topic: str
    partition: int
    generation: str
    offset: int
    committed_at: datetime  # by the server's clock, UTC


class WarmReader:
    """Queries over one connection; not thread-safe. Reads as the user who may only read, where there is one."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._session = Session(endpoint.reader(), answer_seconds=ANSWER_SECONDS)

    def arrow(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Run a query with bound parameters (`{name:Type}`) and return its whole result.

        Raises:
            SinkUnavailable, FatalError: as `sinks.clickhouse.errors` maps them.
        """
        return self._session.arrow(sql, parameters)

    def frontiers(self) -> list[Frontier]:
        """Return all frontiers, ascending by table, topic and partition; none where no flow has ever written."""
        return read_frontiers(self._session)

    def read_table(
        self,
        table: Table,
        where: str = "",
        parameters: Mapping[str, Any] | None = None,
        *,
        columns: Sequence[str] | None = None,
        order_by: Sequence[str] = (),
    ) -> pa.Table:
        """Return rows of a table in the types of `market.schema`; of gold tables the newest row of each candle."""
        batches = list(self.stream_table(table, where, parameters, columns=columns, order_by=order_by))
        return pa.Table.from_batches(batches, schema=_schema(table, columns))

    def stream_table(
        self,
        table: Table,
        where: str = "",
        parameters: Mapping[str, Any] | None = None,
        *,
        columns: Sequence[str] | None = None,
        order_by: Sequence[str] = (),
    ) -> Iterator[pa.RecordBatch]:
        """Yield the same block by block; the connection is taken until the end."""
        schema = _schema(table, columns)
        sql = _select(table, schema.names, where)
        if order_by:
            sql += " ORDER BY " + ", ".join(f"`{name}`" for name in order_by)
        for batch in self._session.arrow_batches(sql, parameters):
            yield from conformed(pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch, schema).to_batches()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_frontiers(session: Session, where: str = "1", parameters: Mapping[str, Any] | None = None) -> list[Frontier]:
    """Return stored frontiers; none when the database was never prepared."""
    known = session.arrow("SELECT 1 FROM system.tables WHERE database = {db:String} AND name = 'frontiers'", {"db": DATABASE})
    return frontiers_where(session, where, parameters) if known.num_rows else []


def frontiers_where(session: Session, where: str, parameters: Mapping[str, Any] | None = None) -> list[Frontier]:
    """Return stored frontiers of a prepared database."""
    rows = session.arrow(
        f"SELECT `table`, `exchange`, `topic`, `partition`, `generation`, toInt64(`offset`) AS `offset`, `committed_at` "
        f"FROM {DATABASE}.frontiers FINAL WHERE {where} ORDER BY `table`, `topic`, `partition`",
        parameters,
    )
    return [Frontier(**row) for row in rows.to_pylist()]


def read_newest(session: Session, table: Table, keys: pa.Table) -> pa.Table:
    """Return the newest stored rows of some candles; keys: exchange, canonical_symbol, window_start, each once."""
    schema = table.arrow_schema(warm=True)
    found = []
    symbols = keys.group_by(["exchange", "canonical_symbol"]).aggregate([("window_start", "list")])
    for row in symbols.to_pylist():
        starts = sorted(pc.cast(pa.array(row["window_start_list"], keys.schema.field("window_start").type), pa.int64()).to_pylist())
        parameters: dict[str, Any] = {"exchange": row["exchange"], "symbol": row["canonical_symbol"], "low": starts[0], "high": starts[-1]}
        where = "`exchange` = {exchange:String} AND `canonical_symbol` = {symbol:String} AND "
        if len(starts) <= LISTED_KEYS:
            where += f"`window_start` IN ({', '.join(f'fromUnixTimestamp64Micro({start})' for start in starts)})"
        else:
            where += "`window_start` BETWEEN fromUnixTimestamp64Micro({low:Int64}) AND fromUnixTimestamp64Micro({high:Int64})"
        rows = conformed(session.arrow(_select(table, schema.names, where), parameters), schema)
        if len(starts) > LISTED_KEYS:
            rows = rows.filter(pc.is_in(rows["window_start"].cast(pa.int64()), pa.array(starts)))
        found.append(rows)
    return pa.concat_tables(found) if found else schema.empty_table()


def conformed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows with exactly the project's Arrow types: the server has other names for fields inside lists and maps."""
    columns = [_cast(rows[name], schema.field(name).type) for name in schema.names]
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if column.type == wanted:
        return column
    if pa.types.is_map(wanted):
        chunks = [
            pa.MapArray.from_arrays(chunk.offsets, chunk.keys.cast(wanted.key_type), chunk.items.cast(wanted.item_type), type=wanted)
            for chunk in column.chunks
        ]
        return pa.chunked_array(chunks, type=wanted)
    return column.cast(wanted)


def _schema(table: Table, columns: Sequence[str] | None) -> pa.Schema:
    schema = table.arrow_schema(warm=True)
    return schema if columns is None else pa.schema([schema.field(name) for name in columns])


def _select(table: Table, columns: Sequence[str], where: str) -> str:
    names = ", ".join(f"`{name}`" for name in columns)
    final = " FINAL" if table.layer is Layer.GOLD else ""
    sql = f"SELECT {names} FROM {DATABASE}.`{table.name}`{final}"
    return f"{sql} WHERE {where}" if where else sql
