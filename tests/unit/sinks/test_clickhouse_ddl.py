from __future__ import annotations

import pytest

from market.schema import DEAD_LETTERS, FEED_EVENTS, OHLCV, SILVER_TRADES, TRADE_GAPS, Kind, Layer, Table, all_tables, bronze_table
from sinks.clickhouse import ddl

TABLES = all_tables(("binance", "kraken"))


def test_every_kind_of_column_has_a_type() -> None:
    assert set(ddl.TYPES) == set(Kind)


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.name)
def test_a_table_has_the_columns_of_the_field_table_in_order(table: Table) -> None:
    statement = ddl.create_table(table)
    names = [line.split("`")[1] for line in statement.splitlines() if line.startswith("  `")]
    kept = [c.name for c in table.columns if not c.cold_only]
    assert names == kept + (["inserted_at"] if table.layer in {Layer.BRONZE, Layer.SILVER} else [])
    assert [name for name, _ in ddl.expected_columns(table)] == names
    assert f"ORDER BY ({', '.join(f'`{name}`' for name in table.key)})" in statement
    assert statement.startswith(f"CREATE TABLE IF NOT EXISTS k2.`{table.name}`")


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.name)
def test_codecs_fit_their_types(table: Table) -> None:
    for line in ddl.create_table(table).splitlines():
        if "Delta" in line:
            assert "Int64" in line or "DateTime64" in line


def test_bronze_and_silver_expire_by_the_day_of_insertion() -> None:
    for table, days in ((bronze_table("kraken"), 7), (SILVER_TRADES, 30)):
        statement = ddl.create_table(table)
        assert "PARTITION BY toYYYYMMDD(`inserted_at`)" in statement
        assert f"TTL toDateTime(`inserted_at`) + INTERVAL {days} DAY DELETE" in statement
        assert "`inserted_at` DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')" in statement


def test_gold_keeps_the_row_with_the_highest_offset_for_ever() -> None:
    for table in OHLCV.values():
        statement = ddl.create_table(table)
        assert "ENGINE = ReplacingMergeTree(`source_offset`) PARTITION BY toYYYYMM(`window_start`)" in statement
        assert "TTL" not in statement


def test_truth_tables_stay_for_ever() -> None:
    for table in (TRADE_GAPS, DEAD_LETTERS, FEED_EVENTS):
        statement = ddl.create_table(table)
        assert "ENGINE = MergeTree ORDER BY" in statement
        assert "TTL" not in statement


def test_only_what_people_query_has_a_view() -> None:
    views = {table.name for table in TABLES if ddl.create_view(table) is not None}
    assert views == {*(table.name for table in OHLCV.values()), "trade_gaps"}


def test_nullable_columns_are_nullable_and_others_are_not() -> None:
    types = dict(ddl.expected_columns(SILVER_TRADES))
    assert types["sequence_number"] == "Nullable(Int64)"
    assert [name for name, kind in types.items() if kind.startswith("Nullable")] == ["sequence_number"]


def test_verbatim_payloads_of_bronze_stay_cold() -> None:
    assert "payload" not in dict(ddl.expected_columns(bronze_table("binance")))
    assert dict(ddl.expected_columns(DEAD_LETTERS))["payload"] == "String"
