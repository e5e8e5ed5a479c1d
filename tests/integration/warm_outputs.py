"""Made-up outputs of raw batches, a function of their offsets only: what a flow would hand to the warm sink."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import numpy as np
import pyarrow as pa

from market.output import TableOutput
from market.schema import (
    ARROW_TYPES,
    CHANGE,
    DEAD_LETTERS,
    FEED_EVENTS,
    OHLCV,
    SILVER_TRADES,
    TRADE_GAPS,
    Change,
    Kind,
    Layer,
    Table,
    all_tables,
    bronze_table,
    gold_output_schema,
)

EXCHANGE = "binance"
TOPIC = "raw.trades.binance"
GENERATION = "g1"
TABLES = all_tables((EXCHANGE,))
START_US = 1_700_000_000_000_000
PER_RECORD = 3
ORDER = (bronze_table(EXCHANGE), SILVER_TRADES, *OHLCV.values(), TRADE_GAPS, DEAD_LETTERS, FEED_EVENTS)


def column(name: str, kind: Kind, offsets: np.ndarray, index: np.ndarray, partition: int) -> pa.Array:
    n = len(offsets)
    if name in {"source_offset", "kafka_offset"}:
        return pa.array(offsets)
    if name in {"source_partition", "kafka_partition"}:
        return pa.array(np.full(n, partition))
    if name == "source_index":
        return pa.array(index)
    if name == "exchange":
        return pa.array([EXCHANGE] * n)
    if name in {"canonical_symbol", "symbol"}:
        return pa.array([f"S{partition}/USDT"] * n)
    ids = offsets * PER_RECORD + index
    match kind:
        case Kind.INT:
            return pa.array(ids)
        case Kind.DECIMAL:
            words = np.zeros((n, 2), np.uint64)
            words[:, 0] = ids.astype(np.uint64) + np.uint64(10**18)
            return pa.Array.from_buffers(ARROW_TYPES[kind], n, [None, pa.py_buffer(words)])
        case Kind.TIME:
            return pa.array(START_US + ids).cast(ARROW_TYPES[kind])
        case Kind.BOOL:
            return pa.array(ids % 2 == 0)
        case Kind.LIST:
            return pa.array([["a", "b"][: i % 3] for i in ids], ARROW_TYPES[kind])
        case Kind.MAP:
            return pa.array([[("k", str(i))][: i % 2] for i in ids], ARROW_TYPES[kind])
        case Kind.BYTES:
            return pa.array([b"\xff{%d}" % i for i in ids], ARROW_TYPES[kind])
    return pa.array(ids).cast(pa.string())


def rows(table: Table, first: int, count: int, partition: int, per_record: int = PER_RECORD) -> pa.RecordBatch:
    offsets = np.repeat(np.arange(first, first + count, dtype=np.int64), per_record)
    index = np.tile(np.arange(per_record, dtype=np.int64), count)
    columns = [column(c.name, c.kind, offsets, index, partition) for c in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.arrow_schema())


def output(table: Table, rows: pa.RecordBatch, first: int, count: int, partition: int = 0) -> TableOutput:
    return TableOutput(table.name, EXCHANGE, TOPIC, partition, GENERATION, first, first + count, rows)


def candle(window: int, offset: int, partition: int = 0, *, change: Change = Change.ROW, **fields: object) -> dict[str, object]:
    """Return a candle row of minute `window` with fixed values but for what is given."""
    start = START_US // 60_000_000 * 60_000_000 + window * 60_000_000
    one = Decimal(1)
    row: dict[str, object] = {
        "exchange": EXCHANGE, "canonical_symbol": f"S{partition}/USDT", "window_start": start, "window_end": start + 60_000_000,
        "open_price": one, "high_price": one, "low_price": one, "close_price": one, "volume": one, "quote_volume": one,
        "trade_count": 1, "vwap": one, "taker_buy_volume": one, "taker_buy_quote_volume": one, "first_trade_id": "5", "last_trade_id": "5",
        "first_trade_time": start + 5, "last_trade_time": start + 5, "is_closed": True, "is_complete": True, "revision": 0,
        "source_partition": partition, "source_offset": offset, "updated_at": START_US + offset, CHANGE: change.value,
    }  # fmt: skip
    return {**row, **fields}


def candles(*rows: dict[str, object]) -> pa.RecordBatch:
    schema = gold_output_schema()
    return pa.RecordBatch.from_arrays([pa.array([row[f.name] for row in rows], f.type) for f in schema], schema=schema)


def raw_batch(first: int, count: int, partition: int = 0) -> Iterator[TableOutput]:
    """Yield the eleven outputs of one raw batch: three trades a record, one growing candle, a dead letter now and then."""
    for table in ORDER:
        if table.layer is Layer.GOLD:
            last = first + count - 1
            made = candles(candle(last // 1000, last, partition, trade_count=last, is_closed=False)) if count else candles()
        elif table is DEAD_LETTERS:
            hit = [offset for offset in range(first, first + count) if offset % 97 == 0]
            made = (
                pa.Table.from_batches([rows(table, o, 1, partition, 1) for o in hit] or [rows(table, 0, 0, 0)])
                .combine_chunks()
                .to_batches()
            )
            made = made[0] if made else rows(table, 0, 0, 0)
        elif table.layer is Layer.TRUTH:
            made = rows(table, 0, 0, partition)
        else:
            made = rows(table, first, count, partition)
        yield output(table, made, first, count, partition)
