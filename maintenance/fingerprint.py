"""Rows as (key, hour, 64-bit hash of all other fields): enough to compare millions of rows of two sources in little memory.

Hashes are comparable within one process only. Two different rows share one by accident once in 10^19.
"""

from __future__ import annotations

from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from market.schema import Kind, Layer, Table

HOUR_US: Final = 3_600_000_000
HASH: Final = "hash"
HOUR: Final = "hour"
CAUSE_KEY: Final = ("partition", "offset", "index")
CANDLE_KEY: Final = ("canonical_symbol", "window_start")
_SEPARATORS: Final = ("\x1e", "\x1f")


def key_of(table: Table) -> tuple[str, ...]:
    """Return the columns that name a row within one exchange: the candle, or the cause."""
    return CANDLE_KEY if table.layer is Layer.GOLD else CAUSE_KEY


def fingerprint(table: Table, rows: pa.RecordBatch | pa.Table, *, warm: bool) -> pl.DataFrame:
    """Return key, hour and hash of each row.

    Args:
        table: whose rows they are.
        rows: with the table's columns in any order and any encoding.
        warm: leave out what ClickHouse does not keep.

    Shape: `key_of(table)`, `hour` (event time, hours since the epoch), `hash`; one row a row, in order.
    """
    columns = table.warm_columns if warm else table.columns
    schema = table.arrow_schema(warm=warm)
    frame = pl.DataFrame(
        {c.name: _comparable(c.kind, rows.column(c.name), schema.field(c.name).type) for c in columns},
    )
    partition, offset = table.cause_columns
    named = {"partition": pl.col(partition).cast(pl.Int32), "offset": pl.col(offset)}
    if table.layer is not Layer.GOLD:
        named["index"] = pl.col("source_index").cast(pl.Int32)
    else:
        named = {"canonical_symbol": pl.col("canonical_symbol"), "window_start": pl.col("window_start").to_physical()}
    hour = (pl.col(table.time_column).to_physical() // HOUR_US).cast(pl.Int32)
    return frame.select(**named, hour=hour, hash=frame.hash_rows())


def _comparable(kind: Kind, column: pa.Array | pa.ChunkedArray, wanted: pa.DataType) -> pl.Series:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # of no chunk
        array = pa.array([], array.type)
    if kind is Kind.MAP:
        # Entries as sorted texts: a store may keep them in another order.
        joined = pc.binary_join_element_wise(array.keys, array.items, _SEPARATORS[1])
        lists = pl.Series(pl.from_arrow(pa.ListArray.from_arrays(array.offsets, joined)))
        if lists.list.len().gt(1).any():  # sorting is slow, and venues give one field or none
            lists = lists.list.sort()
        return lists.list.join(_SEPARATORS[0])
    return pl.Series(pl.from_arrow(array if array.type == wanted else array.cast(wanted)))


def empty(table: Table) -> pl.DataFrame:
    """Return the fingerprints of no rows."""
    return fingerprint(table, table.arrow_schema().empty_table(), warm=False)
