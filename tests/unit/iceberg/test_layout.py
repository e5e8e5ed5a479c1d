"""Schemas, partitions and properties are derived from the field table."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform, MonthTransform
from pyiceberg.types import TimestamptzType

from market.schema import OHLCV, SILVER_TRADES, Layer, Table, all_tables, bronze_table
from sinks.iceberg.layout import Layout, iceberg_schema, partition_spec, table_properties

TABLES = all_tables(("binance", "kraken"))


def micros(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[misc]


def ids_of(schema: Schema) -> list[int]:
    return sorted(schema._lazy_id_to_field)


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.name)
def test_columns_and_nullability_are_those_of_the_field_table(table: Table) -> None:
    schema = iceberg_schema(table)
    assert [(f.name, f.required, f.doc) for f in schema.fields] == [(c.name, not c.nullable, c.meaning) for c in table.columns]
    assert len(ids_of(schema)) == len(set(ids_of(schema)))


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.name)
def test_the_files_schema_is_the_markets_with_the_tables_field_ids(table: Table) -> None:
    schema = iceberg_schema(table)
    ours = Layout.of(table, schema).schema
    assert ours.equals(table.arrow_schema())
    theirs = schema_to_pyarrow(schema)
    assert [f.metadata[b"PARQUET:field_id"] for f in ours] == [f.metadata[b"PARQUET:field_id"] for f in theirs]
    for field in ours:
        if pa.types.is_list(field.type):
            assert field.type.value_field.metadata[b"PARQUET:field_id"].isdigit()
        if pa.types.is_map(field.type):
            assert field.type.item_field.metadata[b"PARQUET:field_id"].isdigit()
            assert field.type.key_field.metadata[b"PARQUET:field_id"].isdigit()


def test_no_column_is_a_dictionary() -> None:
    # Arrow dictionaries would poison later reads; dictionary encoding inside Parquet is another thing.
    assert not [f for t in TABLES for f in Layout.of(t, iceberg_schema(t)).schema if pa.types.is_dictionary(f.type)]


def test_trades_go_by_day_and_exchange_and_long_candles_by_month() -> None:
    def parts(table: Table) -> list[str]:
        return [f"{f.name}:{f.transform}" for f in partition_spec(table, iceberg_schema(table)).fields]

    assert parts(SILVER_TRADES) == ["timestamp_day:day", "exchange:identity"]
    assert parts(bronze_table("kraken")) == ["exchange_timestamp_day:day"]
    assert parts(OHLCV["30m"]) == ["window_start_day:day", "exchange:identity"]
    assert parts(OHLCV["1h"]) == parts(OHLCV["1d"]) == ["window_start_month:month", "exchange:identity"]


@pytest.mark.parametrize("when", [(1970, 1, 1), (1969, 12, 31, 23), (2009, 1, 31, 23, 59, 59), (2024, 2, 29, 12), (2099, 12, 31)])
@pytest.mark.parametrize("interval", ["1m", "1d"])
def test_partition_values_are_icebergs_own(when: tuple[int, ...], interval: str) -> None:
    layout = Layout.of(OHLCV[interval], iceberg_schema(OHLCV[interval]))
    transform = MonthTransform() if interval == "1d" else DayTransform()
    assert layout.partition_ordinal(micros(*when)) == transform.transform(TimestamptzType())(micros(*when))


def test_the_cause_of_a_row_is_found_in_every_table() -> None:
    for table in TABLES:
        layout = Layout.of(table, iceberg_schema(table))
        assert {layout.offset_column, layout.partition_column} <= set(layout.schema.names)
        assert (layout.symbol_column is None) == (table.name in {"dead_letters", "feed_events"})
        assert layout.by_exchange == (table.layer is not Layer.BRONZE)


def test_snapshots_stay_few_and_retries_stay_on() -> None:
    properties = table_properties(SILVER_TRADES)
    assert properties["write.metadata.delete-after-commit.enabled"] == "true"
    assert "commit.retry.num-retries" not in properties  # 0 would let pyiceberg delete manifests that are live
    assert properties["write.metadata.metrics.default"] == "none"
    assert "write.metadata.metrics.column.payload" not in table_properties(bronze_table("binance"))
