"""Build gold rows and changes for tests, and a naive merge to compare with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa

from market.schema import OHLCV, Change, gold_output_schema

GOLD = OHLCV["1m"].arrow_schema()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EXACT = Context(prec=80)
MINUTE = 60_000_000
SUMS = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")


def time_of(epoch_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=epoch_us)


def vwap(quote: Decimal, volume: Decimal) -> Decimal:
    whole, rest = divmod(int(quote.scaleb(18, EXACT)) * 10**18, int(volume.scaleb(18, EXACT)))
    twice, divisor = 2 * rest, int(volume.scaleb(18, EXACT))
    return Decimal(whole + (twice > divisor or (twice == divisor and whole % 2 == 1))).scaleb(-18, EXACT)


def gold_row(
    offset: int, *, symbol: str = "BTC/USDT", window: int = 0, trades: list[tuple[int, int, str, str]], **other: Any
) -> dict[str, Any]:
    """Return the candle of (time_us, id, price, quantity) trades, all bought."""
    ordered = sorted(trades)
    prices = [Decimal(p) for _, _, p, _ in ordered]
    volume = sum((Decimal(q) for *_, q in trades), Decimal(0))
    quote = sum((EXACT.multiply(Decimal(p), Decimal(q)) for _, _, p, q in trades), Decimal(0))
    row = {
        "exchange": "binance", "canonical_symbol": symbol, "window_start": time_of(window), "window_end": time_of(window + MINUTE),
        "open_price": prices[0], "high_price": max(prices), "low_price": min(prices), "close_price": prices[-1],
        "volume": volume, "quote_volume": quote, "trade_count": len(trades), "vwap": vwap(quote, volume),
        "taker_buy_volume": volume, "taker_buy_quote_volume": quote,
        "first_trade_id": str(ordered[0][1]), "last_trade_id": str(ordered[-1][1]),
        "first_trade_time": time_of(ordered[0][0]), "last_trade_time": time_of(ordered[-1][0]),
        "is_closed": True, "is_complete": True, "revision": 0,
        "source_partition": 3, "source_offset": offset, "updated_at": time_of(offset),
    }  # fmt: skip
    return {**row, **other}


def status_row(offset: int, *, symbol: str = "BTC/USDT", window: int = 0, is_complete: bool) -> dict[str, Any]:
    blank = gold_row(offset, symbol=symbol, window=window, trades=[(0, 0, "1", "1")], is_complete=is_complete)
    zeros = {name: Decimal(0) for name in blank if isinstance(blank[name], Decimal)}
    return {**blank, **zeros, "trade_count": 0, "first_trade_id": "", "last_trade_id": ""}


def changes_of(rows: list[tuple[Change, dict[str, Any]]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{**row, "change": change.value} for change, row in rows], schema=gold_output_schema())


def stored_of(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=GOLD)


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["exchange"], row["canonical_symbol"], row["window_start"]


def naive_merge(store: dict[tuple[Any, ...], dict[str, Any]], changes: list[dict[str, Any]]) -> None:
    """Apply changes one by one, as the design words it."""
    for change in changes:
        row = {name: value for name, value in change.items() if name != "change"}
        key, kind, old = key_of(row), Change(change["change"]), store.get(key_of(row))
        if kind is Change.ROW:
            if old is None or row["source_offset"] >= old["source_offset"]:
                store[key] = row
        elif kind is Change.DELTA and old is None:
            store[key] = row
        elif old is not None and old["source_offset"] < row["source_offset"]:
            store[key] = _merged(old, row) if kind is Change.DELTA else {**old, **_newest(old, row)}


def _newest(old: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    return {
        "is_complete": row["is_complete"],
        "revision": old["revision"] + 1,
        "source_offset": row["source_offset"],
        "updated_at": row["updated_at"],
    }


def _merged(old: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    first = min(old, row, key=lambda r: (r["first_trade_time"], int(r["first_trade_id"])))
    last = max(old, row, key=lambda r: (r["last_trade_time"], int(r["last_trade_id"])))
    merged = {
        **old,
        **{name: first[name] for name in ("open_price", "first_trade_id", "first_trade_time")},
        **{name: last[name] for name in ("close_price", "last_trade_id", "last_trade_time")},
        **{name: EXACT.add(old[name], row[name]) for name in SUMS},
        "high_price": max(old["high_price"], row["high_price"]),
        "low_price": min(old["low_price"], row["low_price"]),
        "trade_count": old["trade_count"] + row["trade_count"],
        **_newest(old, row),
    }
    return {**merged, "vwap": vwap(merged["quote_volume"], merged["volume"])}
