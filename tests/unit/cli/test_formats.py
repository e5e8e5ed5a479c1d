from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.formats import FORMATS, write_rows
from market.schema import DEAD_LETTERS, OHLCV, SILVER_TRADES, Kind

TIME = datetime(2024, 8, 8, 23, 55, tzinfo=UTC)


def silver(**changed: Any) -> pa.RecordBatch:
    row = {
        "timestamp": TIME, "exchange": "kraken", "symbol": "BTC/USD", "canonical_symbol": "BTC/USD", "trade_id": "7", "sequence_number": 7,
        "price": Decimal("61000.10"), "quantity": Decimal("0.000000000000000001"), "quote_volume": Decimal(100), "side": "buy",
        "trade_conditions": [], "vendor_data": [("ord_type", "limit")], "validation_errors": ["a", 'b"'], "receive_time": TIME,
        "source": "live", "source_partition": 0, "source_offset": 1, "source_index": 0,
    } | changed  # fmt: skip
    return pa.RecordBatch.from_pylist([row], schema=SILVER_TRADES.arrow_schema(warm=True))


def text(form: str, *batches: pa.RecordBatch, schema: pa.Schema | None = None) -> str:
    out = io.BytesIO()
    write_rows(out, form, schema or batches[0].schema, batches)
    return out.getvalue().decode()


def test_csv_is_as_the_contract_says() -> None:
    rows = list(csv.DictReader(io.StringIO(text("csv", silver()))))
    assert list(rows[0]) == [c.name for c in SILVER_TRADES.warm_columns]
    assert rows[0]["timestamp"] == "2024-08-08T23:55:00.000000Z"
    assert (rows[0]["price"], rows[0]["quantity"], rows[0]["quote_volume"]) == ("61000.1", "0.000000000000000001", "100")
    assert json.loads(rows[0]["vendor_data"]) == {"ord_type": "limit"}
    assert json.loads(rows[0]["validation_errors"]) == ["a", 'b"']
    assert rows[0]["trade_conditions"] == "[]"


def test_csv_tells_null_from_empty_text() -> None:
    assert ',"",' in text("csv", silver(trade_id="", sequence_number=None))
    assert ',"",,' in text("csv", silver(trade_id="", sequence_number=None))


@pytest.mark.parametrize(
    ("value", "written"), [("0", "0"), ("10", "10"), ("0.5", "0.5"), ("999999999999999.999999999999999999",) * 2, ("-1.50", "-1.5")]
)
def test_decimals_are_plain(value: str, written: str) -> None:
    assert next(csv.DictReader(io.StringIO(text("csv", silver(price=Decimal(value))))))["price"] == written
    assert json.loads(text("json", silver(price=Decimal(value))))[0]["price"] == written


def test_csv_booleans_and_microseconds() -> None:
    schema = OHLCV["1m"].arrow_schema()
    zero = {Kind.DECIMAL: Decimal(1), Kind.INT: 1, Kind.TIME: TIME.replace(microsecond=7), Kind.BOOL: True, Kind.CODE: "x", Kind.TEXT: "1"}
    row = {c.name: zero[c.kind] for c in OHLCV["1m"].columns} | {"is_complete": False}
    line = next(csv.DictReader(io.StringIO(text("csv", pa.RecordBatch.from_pylist([row], schema=schema)))))
    assert (line["is_closed"], line["is_complete"]) == ("true", "false")
    assert line["window_start"] == "2024-08-08T23:55:00.000007Z"


def test_json_is_one_array_and_jsonl_one_object_a_line() -> None:
    batches = [silver(), silver(sequence_number=None)]
    rows = json.loads(text("json", *batches))
    assert [json.loads(line) for line in text("jsonl", *batches).splitlines()] == rows
    assert rows[0]["vendor_data"] == {"ord_type": "limit"}
    assert rows[0]["trade_conditions"] == []
    assert rows[0]["sequence_number"] == 7
    assert rows[1]["sequence_number"] is None


def test_bytes_that_are_not_utf8_are_base64_in_json() -> None:
    schema = DEAD_LETTERS.arrow_schema()
    row = {c.name: {Kind.INT: 1, Kind.TIME: TIME, Kind.BYTES: b"ok"}.get(c.kind, "x") for c in DEAD_LETTERS.columns}
    batch = pa.RecordBatch.from_pylist([row, row | {"payload": b"\xff{"}], schema=schema)
    rows = json.loads(text("json", batch))
    assert rows[0]["payload"] == "ok"
    assert "payload" not in rows[1]
    assert rows[1]["payload_b64"] == "/3s="
    assert [r["payload"] for r in csv.DictReader(io.StringIO(text("csv", batch)))] == ["ok", "\\xff{"]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_columnar_formats_keep_values_and_types(form: str) -> None:
    out = io.BytesIO()
    assert write_rows(out, form, silver().schema, [silver(), silver()]) == 2
    out.seek(0)
    table = pq.read_table(out) if form == "parquet" else pa.ipc.open_file(out).read_all()
    assert table.column("price").type == pa.decimal128(38, 18)
    assert table.to_pylist() == pa.Table.from_batches([silver(), silver()]).to_pylist()
    out.seek(0)
    assert (pl.read_parquet(out) if form == "parquet" else pl.read_ipc(out)).height == 2


@pytest.mark.parametrize("form", FORMATS)
def test_no_rows_still_make_a_readable_file(form: str) -> None:
    schema = silver().schema
    out = io.BytesIO()
    assert write_rows(out, form, schema, []) == 0
    out.seek(0)
    match form:
        case "csv":
            assert out.read().decode().split(",")[0] == "timestamp"
        case "json":
            assert json.load(out) == []
        case "jsonl":
            assert out.read() == b""
        case "parquet":
            assert pq.read_table(out).schema.names == schema.names
        case "arrow":
            assert pa.ipc.open_file(out).read_all().num_rows == 0
