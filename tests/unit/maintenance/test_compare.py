from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from maintenance.compare import Difference, compare
from maintenance.fingerprint import CAUSE_KEY, HOUR_US, fingerprint, key_of
from market.schema import OHLCV, SILVER_TRADES, TRADE_GAPS, Kind, Table, bronze_table

START = datetime(2026, 1, 1, tzinfo=UTC)
VALUES: dict[Kind, Any] = {
    Kind.TEXT: "t", Kind.CODE: "c", Kind.INT: 7, Kind.DECIMAL: Decimal("1.5"), Kind.TIME: START, Kind.BOOL: True,
    Kind.LIST: ["x"], Kind.MAP: [("k", "v")], Kind.BYTES: b"\xff",
}  # fmt: skip
TABLES = [bronze_table("binance"), SILVER_TRADES, OHLCV["1m"], TRADE_GAPS]


def row(table: Table, **changed: Any) -> dict[str, Any]:
    return {c.name: VALUES[c.kind] for c in table.columns} | changed


def rows(table: Table, *these: dict[str, Any], warm: bool = False) -> pa.Table:
    return pa.Table.from_pylist(list(these), schema=table.arrow_schema(warm=warm))


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.name)
def test_every_field_counts_in_the_hash(table: Table) -> None:
    other: dict[Kind, Any] = {
        Kind.TEXT: "u", Kind.CODE: "d", Kind.INT: 8, Kind.DECIMAL: Decimal("1.500000000000000001"), Kind.TIME: START + timedelta(microseconds=1),
        Kind.BOOL: False, Kind.LIST: ["x", "y"], Kind.MAP: [("k", "w")], Kind.BYTES: b"\xfe",
    }  # fmt: skip
    same = fingerprint(table, rows(table, row(table), row(table)), warm=False)["hash"]
    assert same[0] == same[1]
    for column in table.columns:
        changed = fingerprint(table, rows(table, row(table), row(table, **{column.name: other[column.kind]})), warm=False)["hash"]
        assert changed[0] != changed[1], column.name


def test_encoding_batching_and_order_of_map_entries_do_not_count() -> None:
    table = SILVER_TRADES
    plain = rows(table, *(row(table, source_offset=n, vendor_data=[("a", "1"), ("b", "2")]) for n in range(5)))
    schema = pa.schema([f.with_type(pa.large_string()) if f.type == pa.string() else f for f in plain.schema])
    swapped = rows(table, *(row(table, source_offset=n, vendor_data=[("b", "2"), ("a", "1")]) for n in range(5))).cast(schema)
    parts = pl.concat([fingerprint(table, swapped.slice(0, 2), warm=False), fingerprint(table, swapped.slice(2), warm=False)])
    assert parts.equals(fingerprint(table, plain, warm=False))


def test_null_differs_from_empty_and_lists_do_not_run_together() -> None:
    table = SILVER_TRADES
    found = fingerprint(
        table,
        rows(
            table,
            *(
                row(table, **c)
                for c in ({"sequence_number": None}, {"sequence_number": 0}, {"trade_conditions": []}, {"trade_conditions": [""]})
            ),
        ),
        warm=False,
    )
    assert found["hash"].n_unique() == 4


def test_what_the_warm_store_does_not_keep_is_left_out_there() -> None:
    table = bronze_table("binance")
    a, b = rows(table, row(table)), rows(table, row(table, payload=b"other"))
    assert fingerprint(table, a, warm=False)["hash"][0] != fingerprint(table, b, warm=False)["hash"][0]
    warm = fingerprint(table, rows(table, {k: v for k, v in row(table).items() if k != "payload"}, warm=True), warm=True)
    assert fingerprint(table, a, warm=True).equals(warm)


def test_key_and_hour_are_those_of_the_row() -> None:
    silver = fingerprint(
        SILVER_TRADES, rows(SILVER_TRADES, row(SILVER_TRADES, source_partition=1, source_offset=2, source_index=3)), warm=False
    )
    assert silver.select(CAUSE_KEY).row(0) == (1, 2, 3)
    assert silver["hour"][0] == int(START.timestamp() * 1_000_000) // HOUR_US
    assert key_of(OHLCV["1d"]) == ("canonical_symbol", "window_start")


def prints(*cells: tuple[int, int, int]) -> pl.DataFrame:
    """(offset, hour, hash) triples."""
    return pl.DataFrame(
        {
            "partition": [0] * len(cells), "offset": [c[0] for c in cells], "index": [0] * len(cells),
            "hour": [c[1] for c in cells], "hash": [c[2] for c in cells],
        },
        schema={"partition": pl.Int32, "offset": pl.Int64, "index": pl.Int32, "hour": pl.Int32, "hash": pl.UInt64},
    )  # fmt: skip


def kinds(expected: pl.DataFrame, actual: pl.DataFrame, ignored: pl.Expr | None = None) -> tuple[dict[int, int], list[Difference]]:
    found = compare(expected, actual, CAUSE_KEY, ignored)
    return found.differences, [kind for kind, _ in found.examples]


def test_equal_rows_in_any_order_are_no_difference() -> None:
    assert kinds(prints((1, 5, 9), (2, 6, 8)), prints((2, 6, 8), (1, 5, 9))) == ({}, [])


def test_each_kind_of_difference_is_found_in_its_hour() -> None:
    wanted = prints((1, 5, 9), (2, 6, 8), (3, 7, 7))
    assert kinds(wanted, prints((1, 5, 9), (3, 7, 7))) == ({6: 1}, [Difference.MISSING])
    assert kinds(wanted, prints((1, 5, 9), (2, 6, 8), (3, 7, 7), (4, 5, 1))) == ({5: 1}, [Difference.EXTRA])
    assert kinds(wanted, prints((1, 5, 9), (2, 6, 1), (3, 7, 7))) == ({6: 1}, [Difference.CHANGED])
    assert kinds(wanted, prints((1, 5, 9), (2, 6, 8), (2, 6, 8), (2, 6, 8), (3, 7, 7))) == ({6: 2}, [Difference.REPEATED])


@pytest.mark.parametrize("offset", [-1, -(2**63), 1 << 40, 2**63 - 1])
def test_row_at_an_offset_that_no_log_has_is_found_at_once(offset: int) -> None:
    assert kinds(prints((1, 5, 9)), prints((1, 5, 9), (offset, 5, 1))) == ({5: 1}, [Difference.EXTRA])


def test_copy_with_other_values_is_a_changed_row() -> None:
    differences, found = kinds(prints((1, 5, 9)), prints((1, 5, 9), (1, 5, 3)))
    assert found == [Difference.CHANGED]
    assert differences[5] >= 1


def test_ignored_keys_may_be_missing_but_not_wrong() -> None:
    wanted, old = prints((1, 5, 9), (2, 6, 8)), pl.col("offset") < 2
    assert kinds(wanted, prints((2, 6, 8)), old) == ({}, [])
    assert kinds(wanted, prints((1, 5, 1), (2, 6, 8)), old) == ({5: 1}, [Difference.CHANGED])


def test_counts_are_by_hour_and_examples_are_few() -> None:
    found = compare(prints(*((n, n // 10, n) for n in range(40))), prints(*((n, n // 10, n) for n in range(10))), CAUSE_KEY)
    assert found.expected == {0: 10, 1: 10, 2: 10, 3: 10}
    assert found.actual == {0: 10}
    assert found.differences == {1: 10, 2: 10, 3: 10}
    assert [key["offset"] for _, key in found.examples] == [10, 11, 12, 13, 14]


def test_nothing_and_nothing_are_equal() -> None:
    assert kinds(prints(), prints()) == ({}, [])
    assert kinds(prints(), prints((1, 1, 1))) == ({1: 1}, [Difference.EXTRA])
