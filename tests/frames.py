"""Frames as the venues send them, raw batches of them, and the recordings of tests/data."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from market.record import RAW_SCHEMA, RawBatch, topic_name

DATA = Path(__file__).parent / "data"
NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
NOW_US = NOW_MS * 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class T:
    """One trade to be written into frames; `is_buy` is the taker's side, prices are text."""

    symbol: str
    id: int
    price: str
    quantity: str
    time_us: int = NOW_US
    is_buy: bool = True


def rfc3339(time_us: int, *, short: bool = False) -> str:
    """Epoch µs as venues write it; `short` drops trailing zeros of the fraction."""
    text = (_EPOCH + timedelta(microseconds=time_us)).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return (text.rstrip("0").rstrip(".") if short else text) + "Z"


def binance_frame(
    symbol: str,
    trade_id: int,
    price: str,
    quantity: str,
    time_ms: int = NOW_MS,
    is_maker: bool = False,  # noqa: FBT002
    *,
    combined: bool = False,
    orders: bool = False,
) -> bytes:
    """A `@trade` event; `combined` wraps it with its stream, `orders` adds the order ids of old recordings."""
    ids = f'"b":{trade_id + 7},"a":{trade_id + 9},' if orders else ""
    flag = "true" if is_maker else "false"
    event = f'{{"e":"trade","E":{time_ms + 1},"s":"{symbol}","t":{trade_id},"p":"{price}","q":"{quantity}",{ids}"T":{time_ms},"m":{flag},"M":true}}'
    return _combined(f"{symbol.lower()}@trade", event) if combined else event.encode()


def binance_agg_frame(
    symbol: str,
    trade_id: int,
    price: str,
    quantity: str,
    time_ms: int = NOW_MS,
    is_maker: bool = False,  # noqa: FBT002
    *,
    combined: bool = False,
) -> bytes:
    """An `@aggTrade` event."""
    flag = "true" if is_maker else "false"
    event = (
        f'{{"e":"aggTrade","E":{time_ms + 1},"s":"{symbol}","a":{trade_id},"p":"{price}","q":"{quantity}",'
        f'"f":{trade_id * 2},"l":{trade_id * 2 + 1},"T":{time_ms},"m":{flag},"M":true}}'
    )
    return _combined(f"{symbol.lower()}@aggTrade", event) if combined else event.encode()


def usdm_frame(
    symbol: str,
    trade_id: int,
    price: str,
    quantity: str,
    time_ms: int = NOW_MS,
    is_maker: bool = False,  # noqa: FBT002
    *,
    kind: str = "MARKET",
    combined: bool = True,
) -> bytes:
    """A USD-M `@trade` event."""
    flag = "true" if is_maker else "false"
    event = f'{{"e":"trade","E":{time_ms + 1},"T":{time_ms},"s":"{symbol}","t":{trade_id},"p":"{price}","q":"{quantity}","X":"{kind}","m":{flag}}}'
    return _combined(f"{symbol.lower()}@trade", event) if combined else event.encode()


def _combined(stream: str, event: str) -> bytes:
    return f'{{"stream":"{stream}","data":{event}}}'.encode()


def kraken_frame(trades: Sequence[T], *, kind: str = "update", ord_type: str = "limit") -> bytes:
    """A `trade` frame; symbols as `BTC/USD`."""
    body = ",".join(
        f'{{"symbol":"{t.symbol}","side":"{"buy" if t.is_buy else "sell"}","price":{t.price},"qty":{t.quantity},"ord_type":"{ord_type}",'
        f'"trade_id":{t.id},"timestamp":"{rfc3339(t.time_us)}"}}'
        for t in trades
    )
    return f'{{"channel":"trade","type":"{kind}","data":[{body}]}}'.encode()


def coinbase_frame(
    trades: Sequence[T], *, kind: str = "update", sequence: int = 9, client: bool = False, time_us: int | None = None
) -> bytes:
    """A `market_trades` frame of one event, in the order given (the venue's is newest first); symbols as `BTC-USD`."""
    body = ",".join(
        f'{{"product_id":"{t.symbol}","trade_id":"{t.id}","price":"{t.price}","size":"{t.quantity}",'
        f'"time":"{rfc3339(t.time_us, short=True)}","side":"{"SELL" if t.is_buy else "BUY"}"}}'
        for t in trades
    )
    stamp = rfc3339(max(t.time_us for t in trades) + 60_000 if time_us is None else time_us)[:-1] + "804Z"
    name = '"client_id":"",' if client else ""
    event = f'{{"type":"{kind}","trades":[{body}]}}'
    return f'{{"channel":"market_trades",{name}"timestamp":"{stamp}","sequence_num":{sequence},"events":[{event}]}}'.encode()


def raw_batch(
    exchange: str,
    frames: Sequence[bytes],
    keys: str | Sequence[str],
    *,
    received_us: int | Sequence[int | None] | None = NOW_US,
    kinds: Sequence[str | None] | None = None,
    append_us: int = NOW_US,
) -> RawBatch:
    """A raw batch of frames; one key and receive time for all, or one each."""
    n = len(frames)
    key = [keys] * n if isinstance(keys, str) else list(keys)
    received = list(received_us) if isinstance(received_us, Sequence) else [received_us] * n
    columns = [list(range(n)), [append_us] * n, key, ["live"] * n, received, kinds or [None] * n, [None] * n, list(frames)]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, RAW_SCHEMA, strict=True)]
    return RawBatch(exchange, topic_name(exchange), 0, "g", n, pa.RecordBatch.from_arrays(arrays, schema=RAW_SCHEMA))


def recorded_binance(limit: int | None = None) -> Iterator[tuple[int, bytes]]:
    """(receive time µs, frame) of the Binance recording."""
    count = 0
    for name in ("btcusdt_20240808.gz", "btcusdt_20240809.gz"):
        with gzip.open(DATA / "binance" / name) as file:
            for line in file:
                if limit is not None and count >= limit:
                    return
                count += 1
                nanoseconds, frame = line.rstrip(b"\n").split(b" ", 1)
                yield int(nanoseconds) // 1000, frame


def recorded_kraken() -> Iterator[tuple[int, bytes]]:
    """(some plausible receive time µs, frame) of the Kraken recording, which has none."""
    with gzip.open(DATA / "kraken" / "live-btc-eth_20260707.ndjson.gz") as file:
        for line in file:
            yield 1_783_465_230_000_000, line.rstrip(b"\n")


def recorded_coinbase() -> Iterator[tuple[int, bytes]]:
    """(receive time µs, frame) of the Coinbase recording."""
    with gzip.open(DATA / "coinbase" / "COINBASE_part1.jsonl.gz") as file:
        for line in file:
            entry = json.loads(line)
            if entry["t"] == "recv":
                yield round(entry["ts"] * 1e6), entry["data"].encode()
