"""Cutting and sorting rows for data files."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from market.schema import ARROW_TYPES, OHLCV, SILVER_TRADES, TRADE_GAPS, Kind, Table
from sinks.iceberg.gold import CLASS_FILES, FULL_ROWS, _File, _size_class, _to_absorb
from sinks.iceberg.layout import US_PER_DAY, Layout, iceberg_schema
from sinks.iceberg.parquet import sort_order, split_by_partition
from tests.integration.warm_outputs import rows

LAYOUT = Layout.of(SILVER_TRADES, iceberg_schema(SILVER_TRADES))


def with_column(batch: pa.RecordBatch, name: str, values: list[object]) -> pa.RecordBatch:
    number = batch.schema.get_field_index(name)
    return batch.set_column(number, batch.schema.field(number), pa.array(values).cast(batch.schema.field(number).type))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("table", [SILVER_TRADES, TRADE_GAPS], ids=lambda t: t.name)
def test_rows_are_put_in_order_of_symbol_then_time_and_ties_keep_theirs(table: Table, *, ordered: bool) -> None:
    rng = random.Random(1)
    batch = rows(table, 0, 400, 0)
    times = [rng.randint(0, 50) for _ in range(1200)]
    batch = with_column(batch, table.time_column, sorted(times) if ordered else times)  # type: ignore[arg-type]
    batch = with_column(batch, "canonical_symbol", [rng.choice(["B/C", "A/B", "Ä/Z"]) for _ in range(1200)])
    order = sort_order(batch, Layout.of(table, iceberg_schema(table)))
    assert order is not None
    symbols = batch.column("canonical_symbol").to_pylist()
    moments = batch.column(table.time_column).cast(pa.int64()).to_pylist()
    assert order.tolist() == sorted(range(1200), key=lambda i: (symbols[i].encode(), moments[i], i))


def test_rows_of_a_table_without_symbols_go_by_time() -> None:
    layout = Layout.of(OHLCV["1m"], iceberg_schema(OHLCV["1m"]))
    assert layout.symbol_column == "canonical_symbol"
    events = Layout.of(next(t for t in [SILVER_TRADES]), iceberg_schema(SILVER_TRADES))
    batch = with_column(rows(SILVER_TRADES, 0, 1, 0), "timestamp", [3, 1, 2])
    bare = Layout(
        events.table, events.schema, "source_offset", "source_partition", None, by_month=False, by_exchange=True, writer_options={}
    )
    assert list(sort_order(batch, bare)) == [1, 2, 0]  # type: ignore[arg-type]
    assert sort_order(with_column(batch, "timestamp", [1, 1, 2]), bare) is None


def test_rows_are_cut_at_midnight_utc() -> None:
    times = [US_PER_DAY - 1, US_PER_DAY, 2 * US_PER_DAY - 1, 2 * US_PER_DAY, 0, US_PER_DAY]
    batch = with_column(rows(SILVER_TRADES, 0, 2, 0), "timestamp", times)  # type: ignore[arg-type]
    parts = split_by_partition(batch, LAYOUT)
    assert [(day, part.column("timestamp").cast(pa.int64()).to_pylist()) for day, part in parts] == [
        (0, [US_PER_DAY - 1, 0]),
        (1, [US_PER_DAY, 2 * US_PER_DAY - 1, US_PER_DAY]),
        (2, [2 * US_PER_DAY]),
    ]


def test_months_are_cut_at_their_first_day() -> None:
    table = OHLCV["1d"]
    layout = Layout.of(table, iceberg_schema(table))
    batch = rows(table, 0, 1, 0)
    parts = split_by_partition(with_column(batch, "window_start", [31 * US_PER_DAY, 30 * US_PER_DAY, 59 * US_PER_DAY]), layout)
    assert [(month, len(part)) for month, part in parts] == [(0, 1), (1, 1), (2, 1)]


def test_no_rows_have_no_partitions() -> None:
    assert split_by_partition(rows(SILVER_TRADES, 0, 0, 0), LAYOUT) == []


def test_lists_and_maps_are_markets_types() -> None:
    assert LAYOUT.schema.field("vendor_data").type == ARROW_TYPES[Kind.MAP]


@pytest.mark.parametrize("rows_each", [1, 40, 3000])
def test_files_stay_few_however_many_commits_come(rows_each: int) -> None:
    files: list[_File] = []
    rewritten = 0
    for number in range(5_000):
        absorbed = _to_absorb(files, rows_each)
        rewritten += sum(f.rows for f in absorbed)
        total = rows_each + sum(f.rows for f in absorbed)
        files = [f for f in files if f not in absorbed]
        files.append(_File(str(number), total, 1, 0, 0))
        small = [f for f in files if f.rows < FULL_ROWS]
        assert len(small) <= CLASS_FILES * (_size_class(FULL_ROWS) + 1)
    assert sum(f.rows for f in files) == 5_000 * rows_each
    assert rewritten <= 6 * 5_000 * rows_each
