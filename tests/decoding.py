"""What decoded batches say, as plain Python values; and the complete reader alone, as an oracle for the scanners."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from connectors.venues.base import Venue
from connectors.venues.columns import empty, merged
from connectors.venues.reading import Reading
from connectors.venues.validate import validated
from market.exact import to_decimals
from market.instrument import Instruments
from market.record import RawBatch, received_us
from market.trade import NO_TAIL, Decoded, TradeBatch

Row = dict[str, Any]


def rows(trades: TradeBatch) -> list[Row]:
    """One dict a trade, with decimals; vendor words by field name, tails of ids where there are any."""
    columns: dict[str, list[Any]] = {
        name: getattr(trades, name).tolist() for name in ("row", "symbol", "trade_id", "time_us", "event_us", "is_buy", "is_snapshot")
    }
    columns |= {name: to_decimals(getattr(trades, name)) for name in ("price", "quantity", "quote_volume")}
    columns |= {name: array.to_pylist() for name, array in trades.vendor.items()}
    if trades.id_tail is not None and (trades.id_tail != NO_TAIL).any():
        columns["id_tail"] = trades.id_tail.tolist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def rejects(decoded: Decoded) -> list[tuple[int, str]]:
    """(row, reason) of every reject."""
    return [(r.row, r.reason) for r in decoded.rejected]


def decode_slowly(venue: Venue, batch: RawBatch, instruments: Instruments) -> Decoded:
    """Decode a batch with the complete reader only."""
    reading = Reading(venue.contents, venue.read, instruments, venue.vendor_words)
    records = batch.records.to_pylist()
    for row, record in enumerate(records):
        if record["kind"] is None:
            reading.add(row, record["payload"], instruments.by_key.get(record["key"], -1))
    columns = merged(empty(0), 0, reading.columns())
    vendor = {venue.vendor_field: reading.words()} if venue.vendor_field is not None else {}
    trades, rejected = validated(columns, received_us(batch.records), vendor)
    return Decoded(trades, sorted(reading.rejected + rejected, key=lambda r: r.row), reading.control_frames)


def assert_accounted(decoded: Decoded, frames: int) -> None:
    """Every frame is trades, a control frame or rejected; what passes is what `TradeBatch` promises."""
    trades = decoded.trades
    touched = set(trades.row.tolist()) | {r.row for r in decoded.rejected}
    assert len(touched) + decoded.control_frames == frames
    assert trades.row.tolist() == sorted(trades.row.tolist())
    assert [r.row for r in decoded.rejected] == sorted(r.row for r in decoded.rejected)
    for name in ("price", "quantity", "quote_volume"):
        assert all(0 < value < Decimal(10) ** 15 for value in to_decimals(getattr(trades, name)))
    assert all(r.reason.isidentifier() and r.detail.isprintable() and len(r.detail) < 300 for r in decoded.rejected)
