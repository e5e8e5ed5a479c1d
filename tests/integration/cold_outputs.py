"""What a flow would hand to the Iceberg sink, made up from offsets, and a store to hand it to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog

from market.output import TableOutput
from market.schema import SILVER_TRADES, Layer, Table, gold_output_schema
from sinks.iceberg import ColdReader, Position, open_catalog, prepare
from sinks.iceberg.table import ColdTable
from sinks.iceberg.workers import Workers
from tests.integration.warm_outputs import EXCHANGE, GENERATION, PER_RECORD, TABLES, TOPIC, rows

DAY_US = 86_400_000_000


def store(folder: Path, tables: Sequence[Table] = TABLES) -> Catalog:
    catalog = open_catalog(url_of(folder))
    prepare(catalog, tables)
    return catalog


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder}/cold/catalog.db"


@contextmanager
def writing(catalog: Catalog, table: Table = SILVER_TRADES, state: bytes | None = None, *, interval_s: float = 0.0) -> Iterator[ColdTable]:
    writer = ColdTable(catalog, table, commit_interval_s=interval_s, workers=Workers())
    writer.open(state)
    try:
        yield writer
    finally:
        writer.close()


def batch(
    first: int, count: int, *, table: Table = SILVER_TRADES, partition: int = 0, rows_of: pa.RecordBatch | None = None, **other: Any
) -> TableOutput:
    """Return the output of raw records [first, first + count), three rows each."""
    if rows_of is None:
        rows_of = rows(table, first, count, partition) if table.layer is not Layer.GOLD else nothing()
    values = {"exchange": EXCHANGE, "topic": TOPIC, "generation": GENERATION, **other}
    return TableOutput(
        table.name,
        values["exchange"],
        values["topic"],
        partition,
        values["generation"],
        first,
        first + count,
        rows_of,
    )


def nothing() -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=gold_output_schema())


def causes(catalog: Catalog, table: Table = SILVER_TRADES) -> list[tuple[int, int, int]]:
    """Return (partition, offset, index) of every stored row, sorted."""
    offset, partition = ("kafka_offset", "kafka_partition") if table.layer is Layer.BRONZE else ("source_offset", "source_partition")
    found = ColdReader(catalog).read(table, columns=[partition, offset, "source_index"])
    return sorted(zip(*(column.to_pylist() for column in found.columns), strict=True))


def expected(end: int, partition: int = 0, start: int = 0) -> list[tuple[int, int, int]]:
    return [(partition, offset, index) for offset in range(start, end) for index in range(PER_RECORD)]


def at(offset: int) -> Position:
    return Position(GENERATION, offset)


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it did not come to pass")
        time.sleep(0.01)
