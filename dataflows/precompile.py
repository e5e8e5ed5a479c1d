"""Fill the cache of compiled code, so that the first run does not wait for it: `python -m dataflows.precompile`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from connectors.venues.registry import build_instruments, venue
from dataflows.engine import Control
from dataflows.stages import VenueSetup, decode_with, shard_logic
from market.ahead import compile_ahead
from market.record import KIND_MARKER, RAW_SCHEMA, RawBatch, topic_name
from market.rules import Rules

_TIME_US: Final = 1_767_225_600_000_000
_FRAMES: Final = {
    "binance": (
        '{"e":"trade","E":1767225600001,"s":"BTCUSDT","t":7,"p":"1.00000000","q":"2.00000000","T":1767225600000,"m":true,"M":true}',
        (
            '{"stream":"btcusdt@trade","data":{"e":"trade","E":1767225600001,"s":"BTCUSDT","t":8,"p":"1.00000000","q":"2.00000000","T":1767225600000,'
            '"m":true,"M":true}}'
        ),
    ),
    "kraken": (
        (
            '{"channel":"trade","type":"update","data":[{"symbol":"BTC/USDT","side":"sell","price":1.10,"qty":0.5,"ord_type":"limit","trade_id":7,'
            '"timestamp":"2026-01-01T00:00:00.000000Z"}]}'
        ),
    ),
    "coinbase": (
        (
            '{"channel":"market_trades","timestamp":"2026-01-01T00:00:00.001000123Z","sequence_num":1,"events":[{"type":"update","trades":[{"product_id":'
            '"BTC-USDT","trade_id":"7","price":"1.1","size":"0.5","time":"2026-01-01T00:00:00.000000Z","side":"SELL"}]}]}'
        ),
    ),
    "okx": (  # the one scanner of all venues that are read by a table
        (
            '{"arg":{"channel":"trades-all","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"7","px":"1.1","sz":"0.5","side":"buy",'
            '"ts":"1767225600000"}]}'
        ),
    ),
}


def precompile() -> None:
    """Compile the walk for every kind of batch, then send a few frames of every venue through decoder and shard."""
    compile_ahead()
    for exchange, frames in _FRAMES.items():
        setups = {exchange: VenueSetup(venue(exchange), build_instruments(exchange, ["BTC/USDT"]), Rules())}
        marker = f'{{"feed":"-","exchange":"{exchange}","from_us":{_TIME_US - 1},"to_us":{_TIME_US + 200_000_000},"symbols":["BTC/USDT"]}}'
        payloads = [*frames, marker]
        rows = [
            {
                "offset": offset,
                "append_us": _TIME_US,
                "key": "BTC-USDT" if offset < len(frames) else "",
                "source": "live",
                "received_us": _TIME_US + 300_000_000,
                "kind": None if offset < len(frames) else KIND_MARKER,
                "extra_headers": None,
                "payload": payload.encode(),
            }
            for offset, payload in enumerate(payloads)
        ]
        records = pa.RecordBatch.from_pylist(rows, schema=RAW_SCHEMA)
        batch = RawBatch(exchange, topic_name(exchange), 0, "-", len(rows), records)
        _route(exchange, frames)
        outputs, _ = shard_logic(setups, Control(), None).on_batch([decode_with(setups, batch)])
        accepted = sum(o.rows.num_rows for o in outputs if o.table == "silver_trades")
        if accepted != len(frames):
            sys.exit(f"{exchange}: {accepted} of {len(frames)} sample trades came through")


def _route(exchange: str, frames: Sequence[str]) -> None:
    # What only a feed does: say for whom frames are.
    starts = np.cumsum([0, *(len(f) for f in frames)]).astype(np.int32)
    starts.flags.writeable = False
    data = np.frombuffer("".join(frames).encode(), np.uint8)
    venue(exchange).route_codes(data, starts, build_instruments(exchange, ["BTC/USDT"]))


if __name__ == "__main__":
    precompile()
