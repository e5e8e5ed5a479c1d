"""What nothing can beat: each part's work done alone by the fastest library at hand, on the same trades, in the same run."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import clickhouse_connect
import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.topics.base import TopicLog
from market.interval import INTERVALS
from market.record import topic_name
from sinks.endpoint import Endpoint


class _Binance(msgspec.Struct):
    e: str
    E: int
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool


class _KrakenTrade(msgspec.Struct):
    symbol: str
    side: str
    price: float
    qty: float
    trade_id: int
    timestamp: str


class _Kraken(msgspec.Struct):
    data: list[_KrakenTrade]


class _CoinbaseTrade(msgspec.Struct):
    product_id: str
    trade_id: str
    price: str
    size: str
    time: str
    side: str


class _CoinbaseEvent(msgspec.Struct):
    trades: list[_CoinbaseTrade]


class _Coinbase(msgspec.Struct):
    events: list[_CoinbaseEvent]


DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "binance": msgspec.json.Decoder(_Binance),
    "kraken": msgspec.json.Decoder(_Kraken),
    "coinbase": msgspec.json.Decoder(_Coinbase),
}


def seconds(work: object, *arguments: object) -> float:
    """Run something once; return the seconds it took."""
    start = time.perf_counter()
    work(*arguments)  # type: ignore[operator]
    return time.perf_counter() - start


def read_all(log: TopicLog, exchanges: tuple[str, ...], step: int = 20_000) -> dict[str, list[pa.RecordBatch]]:
    """Read every record of every partition in order."""
    found: dict[str, list[pa.RecordBatch]] = {}
    for exchange in exchanges:
        topic = topic_name(exchange)
        for partition in range(log.partitions(topic)):
            offset = 0
            while (batch := log.read(topic, partition, offset, step)) is not None:
                offset = batch.column("offset")[-1].as_py() + 1
                found.setdefault(f"{exchange}/{partition:02d}", []).append(batch)
    return found


def decode_json(raw: dict[str, list[pa.RecordBatch]]) -> None:
    """Typed JSON decoding of every frame, floats where the venue writes numbers; nothing is checked."""
    for shard, batches in raw.items():
        decode = DECODERS[shard.split("/")[0]].decode
        for batch in batches:
            for payload, kind in zip(batch.column("payload").to_pylist(), batch.column("kind").to_pylist(), strict=True):
                if kind is None:
                    decode(payload)


def group_by(silver: list[pa.RecordBatch]) -> None:
    """Six polars group-bys over floats, batch by batch."""
    for rows in silver:
        frame = pl.from_arrow(rows.select(["canonical_symbol", "timestamp", "price", "quantity", "quote_volume"]))
        frame = frame.with_columns(pl.col("price", "quantity", "quote_volume").cast(pl.Float64))  # type: ignore[union-attr]
        for interval in INTERVALS:
            frame.group_by("canonical_symbol", pl.col("timestamp").dt.truncate(interval.name)).agg(
                pl.col("price").first().alias("open"),
                pl.col("price").max().alias("high"),
                pl.col("price").min().alias("low"),
                pl.col("price").last().alias("close"),
                pl.col("quantity").sum(),
                pl.col("quote_volume").sum(),
                pl.len(),
            )


def write_parquet(tables: dict[str, list[pa.RecordBatch]], folder: Path) -> None:
    """Write the rows of each table into one Parquet file, zstd."""
    for name, batches in tables.items():
        with pq.ParquetWriter(folder / f"{name}.parquet", batches[0].schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)


def insert_arrow(endpoint: Endpoint, tables: dict[str, list[pa.RecordBatch]]) -> float:
    """Insert the rows of each table into a fresh plain copy of it; return the seconds that the inserts took."""
    client = clickhouse_connect.get_client(
        dsn=endpoint.url, username=endpoint.user, password=endpoint.password, settings={"async_insert": 0}
    )
    spent = 0.0
    for name, batches in tables.items():
        copy = f"k2.bench_{uuid.uuid4().hex}"
        client.command(f"CREATE TABLE {copy} AS k2.{name}")
        table = pa.Table.from_batches(batches)
        spent += seconds(lambda: [client.insert_arrow(copy, table.slice(i, 100_000)) for i in range(0, len(table), 100_000)])  # noqa: B023
        client.command(f"DROP TABLE {copy} SYNC")
    return spent
