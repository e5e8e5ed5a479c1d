"""Both stores behind one small contract for those who only read: how far tables have come, and their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import polars as pl
import pyarrow as pa

from market.schema import Table

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

    def close(self) -> None:
        """Release connections."""


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
