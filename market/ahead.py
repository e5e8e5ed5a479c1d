"""Compile every hot loop before it is needed: the first run of a version takes seconds for it, later ones read the cache."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from market import exact
from market.gold import merge_changes
from market.instrument import Instrument, Instruments
from market.interval import SECOND
from market.record import KIND_MARKER, RAW_SCHEMA, RawBatch
from market.rules import MIN_TIME_US, Rules
from market.shard import Shard
from market.trade import Decoded, TradeBatch


def compile_ahead() -> None:
    """Run a small log through all loops; touches nothing but memory and numba's cache."""
    for contiguous in (True, False):
        rules = Rules(lateness_us=0, gap_grace_us=0, horizon_us=0, contiguous_ids=contiguous)
        listed = Instruments("none", (Instrument("A/B", "AB"),))
        shard = Shard(exchange="none", partition=0, instruments=listed, rules=rules)
        start = MIN_TIME_US + 70 * SECOND
        # A trade, coverage with a hole, a trade of the window that has left the state by then, and cover for the hole.
        log = [
            (1, start),
            (start - 20 * SECOND, start + SECOND),
            (start + 2 * SECOND, start + 90 * SECOND),
            (3, start),
            (start, start + 91 * SECOND),
        ]
        for offset, (first, second) in enumerate(log):
            outputs = shard.apply(*_record(offset, first, second))
            merge_changes(outputs[2].rows, None)
        Shard.load(shard.dump(), exchange="none", partition=0, instruments=listed, rules=rules)


def _record(offset: int, first: int, second: int) -> tuple[RawBatch, Decoded]:
    # A trade (id, time), or a marker (from, to).
    is_trade = first < MIN_TIME_US
    body = {"feed": "", "exchange": "none", "from_us": first, "to_us": second, "symbols": ["A/B"]}
    row = {
        "offset": offset, "append_us": second, "key": "A-B", "source": "live", "received_us": second,
        "kind": None if is_trade else KIND_MARKER, "extra_headers": None, "payload": json.dumps(body).encode(),
    }  # fmt: skip
    n = int(is_trade)
    price = exact.from_int64(np.full(n, 2, np.int64), 0)
    product, _ = exact.multiply(price, price)
    trades = TradeBatch(
        row=np.zeros(n, np.int32),
        symbol=np.zeros(n, np.int32),
        trade_id=np.full(n, first, np.int64),
        time_us=np.full(n, second, np.int64),
        event_us=np.full(n, second, np.int64),
        is_buy=np.zeros(n, np.bool_),
        is_snapshot=np.zeros(n, np.bool_),
        price=price,
        quantity=price,
        quote_volume=product,
    )
    exact.too_large(product)
    records = pa.RecordBatch.from_pylist([row], schema=RAW_SCHEMA)
    return RawBatch("none", "raw.trades.none", 0, "", offset + 1, records), Decoded(trades, [], 0)
