"""Bronze, silver and dead letters: which columns hold what."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from market.record import RAW_SCHEMA, RawBatch
from market.rows import PAYLOAD_REPEATED_BYTES
from market.schema import all_tables, gold_output_schema
from market.shard import Shard
from market.trade import Decoded, Rejected
from tests.shard_logs import INSTRUMENTS, SECOND, START, Record, Rules, Store, batch_of, decoded_of, frame, marker, micros, new_shard, trade


def applied(records: list[Record], decoded: Decoded | None = None, shard: Shard | None = None) -> Store:
    batch, own = batch_of(records, 100)
    store = Store()
    store.take((shard or new_shard()).apply(batch, decoded or own))
    return store


def test_rows_have_the_schemas_of_the_field_table() -> None:
    schemas = {t.name: gold_output_schema() if t.name.startswith("ohlcv") else t.arrow_schema() for t in all_tables(("binance",))}
    shard = new_shard()
    for records in ([], [frame(trade(1, START))], [marker(START, START + SECOND)]):
        for output in shard.apply(*batch_of(records, 5)):
            assert output.rows.schema.equals(schemas[output.table])


def test_bronze_has_every_trade_as_the_venue_gave_it() -> None:
    record = frame(trade(7, START + 5, "1.5", "0.000000000000000001", is_buy=False), received_us=START + 9, payload=b"frame")
    (row,) = applied([marker(START, START + 1), record]).rows["bronze_trades_binance"]
    assert (row["symbol"], row["trade_id"], row["sequence_number"], row["side"], row["source"]) == ("BTCUSDT", "7", 7, "sell", "live")
    assert (row["price"], row["quantity"], row["quote_volume"]) == (Decimal("1.5"), Decimal("1e-18"), Decimal("2e-18"))
    times = [micros(row[name]) - START for name in ("exchange_timestamp", "event_time", "ingestion_timestamp")]
    assert times == [5, 6, 9]
    assert (row["kafka_offset"], row["kafka_partition"], row["source_index"], row["payload"]) == (101, 3, 0, b"frame")


def test_silver_has_accepted_trades_in_our_terms() -> None:
    (row,) = applied([frame(trade(7, START + 5, "3", "2"), symbol=2, received_us=START + 9)]).rows["silver_trades"]
    assert (row["exchange"], row["symbol"], row["canonical_symbol"], row["side"]) == ("binance", "SOLUSDC", "SOL/USDC", "buy")
    assert (row["trade_id"], row["sequence_number"], row["price"], row["quantity"], row["quote_volume"]) == ("7", 7, 3, 2, 6)
    assert (micros(row["timestamp"]), micros(row["receive_time"])) == (START + 5, START + 9)
    assert (row["trade_conditions"], row["vendor_data"], row["validation_errors"], row["source"]) == ([], [], [], "live")
    assert (row["source_partition"], row["source_offset"], row["source_index"]) == (3, 100, 0)


def test_rows_of_a_record_are_numbered_by_table() -> None:
    records = [frame(trade(1, START), trade(2, START)), frame(trade(2, START), trade(3, START), trade(1, START), trade(4, START))]
    store = applied(records)
    assert [row["source_index"] for row in store.rows["bronze_trades_binance"]] == [0, 1, 0, 1, 2, 3]
    silver = store.rows["silver_trades"]
    assert [(row["trade_id"], row["source_offset"], row["source_index"]) for row in silver] == [
        ("1", 100, 0), ("2", 100, 1), ("3", 101, 0), ("4", 101, 1),
    ]  # fmt: skip


def test_maker_side_is_shown_in_bronze_only() -> None:
    shard = Shard(exchange="binance", partition=3, instruments=INSTRUMENTS, rules=Rules(), native_side_is_maker=True)
    store = applied([frame(trade(1, START, is_buy=True))], shard=shard)
    assert store.rows["bronze_trades_binance"][0]["side"] == "sell"
    assert store.rows["silver_trades"][0]["side"] == "buy"


@pytest.mark.parametrize(
    ("header", "snapshot", "source"),
    [("live", False, "live"), (None, False, "live"), ("live", True, "snapshot"), (None, True, "snapshot"), ("refill", False, "refill"), ("import", True, "import")],
)  # fmt: skip
def test_source_is_the_header_or_what_the_venue_marks_as_a_snapshot(header: str | None, snapshot: bool, source: str) -> None:
    store = applied([frame(trade(1, START), source=header, snapshot=snapshot), frame(trade(2, START), source="import")])
    assert [row["source"] for row in store.rows["silver_trades"]] == [source, "import"]


def test_receive_time_is_the_append_time_where_the_producer_gave_none() -> None:
    batch, decoded = batch_of([frame(trade(1, START), received_us=START + 3)], 0)
    columns = [pa.nulls(1, f.type) if f.name == "received_us" else c for f, c in zip(RAW_SCHEMA, batch.records.columns, strict=True)]
    records = pa.RecordBatch.from_arrays(columns, schema=RAW_SCHEMA)
    outputs = new_shard().apply(RawBatch("binance", batch.topic, 3, "g1", 1, records), decoded)
    assert micros(outputs[1].rows.to_pylist()[0]["receive_time"]) == START + 3


@pytest.mark.parametrize("received", [-1, 2**53, 2**63 - 1])
def test_receive_time_that_no_store_can_hold_counts_as_not_given(received: int) -> None:
    batch, decoded = batch_of([frame(trade(1, START), received_us=START + 3)], 0)
    columns = [pa.array([received]) if f.name == "received_us" else c for f, c in zip(RAW_SCHEMA, batch.records.columns, strict=True)]
    records = pa.RecordBatch.from_arrays(columns, schema=RAW_SCHEMA)
    outputs = new_shard().apply(RawBatch("binance", batch.topic, 3, "g1", 1, records), decoded)
    assert micros(outputs[1].rows.to_pylist()[0]["receive_time"]) == START + 3


def test_vendor_fields_are_kept_where_a_trade_has_them() -> None:
    records = [frame(trade(1, START), trade(2, START), trade(3, START)), frame(trade(1, START)), frame(trade(4, START))]
    decoded = decoded_of(records)
    vendor = {"ord_type": pa.array(["market", None, "limit", "x", None]), "X": pa.array([None, None, "M", "y", "N"])}
    trades = decoded.trades
    fields = {name: getattr(trades, name) for name in trades.__slots__} | {"vendor": vendor}
    store = applied(records, Decoded(type(trades)(**fields), [], 0))
    assert [row["vendor_data"] for row in store.rows["silver_trades"]] == [
        [("ord_type", "market")], [], [("ord_type", "limit"), ("X", "M")], [("X", "N")],
    ]  # fmt: skip


def test_rejected_frames_are_dead_letters_in_record_order() -> None:
    records = [frame(payload=b"one"), marker(START + 2, START + 1), frame(payload=b"three")]
    decoded = Decoded(
        decoded_of(records).trades, [Rejected(0, "bad_json", "a"), Rejected(2, "bad_price", "b"), Rejected(2, "bad_time", "c")], 0
    )
    found = applied(records, decoded).rows["dead_letters"]
    assert [(r["reason"], r["detail"], r["source_offset"], r["source_index"]) for r in found[:1] + found[2:]] == [
        ("bad_json", "a", 100, 0), ("bad_price", "b", 102, 0), ("bad_time", "c", 102, 1),
    ]  # fmt: skip
    assert (found[1]["reason"], found[0]["payload"], found[3]["payload"]) == ("bad_marker", b"one", b"three")


def test_read_only_arrays_are_taken_as_well() -> None:
    batch, decoded = batch_of([frame(trade(1, START))], 0)
    for name in ("row", "symbol", "trade_id", "time_us", "is_buy", "price", "quantity", "quote_volume"):
        getattr(decoded.trades, name).flags.writeable = False
    outputs = new_shard().apply(batch, decoded)
    assert [len(output.rows) for output in outputs] == [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]


def test_sliced_records_are_read_from_their_own_place() -> None:
    records = [frame(trade(k, START + k), payload=b"%d" % k, received_us=START + 10 * k) for k in range(1, 6)]
    batch, _ = batch_of(records, 0)
    part = RawBatch("binance", batch.topic, 3, "g1", 5, batch.records.slice(2))
    rows = new_shard().apply(part, decoded_of(records[2:]))[0].rows.to_pylist()
    assert [(r["kafka_offset"], r["payload"], micros(r["ingestion_timestamp"]) - START) for r in rows] == [
        (2, b"3", 30),
        (3, b"4", 40),
        (4, b"5", 50),
    ]
    assert np.array_equal([r["sequence_number"] for r in rows], [3, 4, 5])


def test_a_large_payload_stands_with_the_first_trade_of_its_record_only() -> None:
    page = bytes(PAYLOAD_REPEATED_BYTES + 1)
    small = bytes(PAYLOAD_REPEATED_BYTES)
    records = [
        frame(*(trade(k, START + k) for k in range(1, 501)), payload=page),
        frame(trade(501, START), trade(502, START), payload=small),
    ]
    rows = applied(records).rows["bronze_trades_binance"]
    assert [row["payload"] for row in rows if row["source_index"] == 0] == [page, small]
    assert {row["payload"] for row in rows[1:500]} == {b""}
    assert rows[501]["payload"] == small
