"""A refill against the simulator's REST interfaces: it gets every trade that can be had, as the books have it, and gives up the rest."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from connectors.live.outgoing import Outgoing
from connectors.live.venue_urls import rest_url
from connectors.refill.refill import Refiller
from connectors.refill.refill_plan import Pace
from connectors.refill.rest import RestClient
from connectors.venues.feeding import Limit
from connectors.venues.registry import VENUES, build_instruments
from market.exact import to_decimals
from market.instrument import Instruments
from simulator.config import SimulatorConfig
from simulator.exchange import Conditions
from simulator.faults import Fault, FaultKind
from simulator.simulator import Simulator
from tests import frames as f

FAR_US = 1 << 52


async def refilled(
    exchange: str, rest_faults: tuple[FaultKind, ...]
) -> tuple[dict[str, pl.DataFrame], Instruments, list[Outgoing], Refiller]:
    """Books of a few thousand trades; a refill that knows one in twenty of them; what it put when nothing was left to do."""
    lost = tuple(Fault(kind=FaultKind.LOST, at=1.0 + n, exchange=exchange, options={"count": "7"}) for n in range(6))
    config = SimulatorConfig(
        exchanges=(exchange,), symbols=2, rate=700.0, seconds=10.0, speed=20.0, seed=5, faults=lost,
        conditions=Conditions(enforces_limits=False),
    )  # fmt: skip
    put: list[Outgoing] = []
    async with Simulator(config) as simulator:
        await simulator.ended()
        venue = VENUES[exchange]
        listed = build_instruments(exchange, simulator.books.symbols(exchange))
        books = {s: pl.DataFrame(simulator.books.trades(exchange, s)) for s in simulator.books.symbols(exchange)}
        assert venue.rest is not None
        rules = replace(venue.rest, requests=Limit(1_000, 1.0), weight=1)
        client = RestClient(rest_url(rules.rest_url, exchange, simulator.url), rules, now_us=lambda: FAR_US)
        pace = Pace(settle_seconds=0.0, again_seconds=(0.05, 0.05))
        refiller = Refiller(
            venue, listed, client, feed="t", put=put.extend, bounds=lambda: None, now_us=lambda: FAR_US, random=lambda: 0.1, pace=pace
        )
        for symbol, trades in books.items():
            had = trades.filter(~pl.col("lost"))
            chosen = sorted({0, len(had) - 1, *random.Random(7).sample(range(len(had)), len(had) // 20)})
            known = had[chosen]
            refiller.observed(symbol, known["trade_id"].to_numpy(), known["timestamp"].to_numpy())
        for kind in rest_faults:
            options = {"seconds": "20", **({"retry_after": "1"} if kind is not FaultKind.REST_5XX else {})}
            simulator.inject(Fault(kind=kind, exchange=exchange, options=options))
        running = asyncio.create_task(refiller.run())
        async with asyncio.timeout(60):
            while refiller.waiting_ids() and not running.done():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await refiller.stop()
    return books, listed, put, refiller


@pytest.mark.parametrize(
    ("exchange", "rest_faults"),
    [("binance", (FaultKind.REST_429,)), ("kraken", (FaultKind.REST_5XX,)), ("coinbase", (FaultKind.REST_418,))],
)
def test_a_refill_gets_what_the_venue_has(exchange: str, rest_faults: tuple[FaultKind, ...]) -> None:
    books, listed, put, refiller = asyncio.run(refilled(exchange, rest_faults))
    pages = [r for r in put if r.kind is None]
    batch = f.raw_batch(exchange, [r.payload for r in pages], [r.symbol.replace("/", "-") for r in pages], received_us=FAR_US)
    decoded = VENUES[exchange].decode(batch, listed)
    assert not decoded.rejected
    trades = decoded.trades
    got = pl.DataFrame(
        {
            "code": trades.symbol,
            "trade_id": trades.trade_id,
            "timestamp": trades.time_us,
            "price": to_decimals(trades.price),
            "quantity": to_decimals(trades.quantity),
            "side": np.where(trades.is_buy, "buy", "sell"),
        }
    ).unique()
    counts = refiller.counts
    for code, instrument in enumerate(listed.listed):
        expected = books[instrument.canonical]
        had = expected.filter(~pl.col("lost"))
        assert len(had) > 500
        mine = got.filter(pl.col("code") == code).sort("trade_id")
        twins = mine.join(had, on="trade_id", how="left", suffix="_book")
        for name in ("timestamp", "price", "quantity", "side"):
            assert (twins[name] == twins[f"{name}_book"]).all(), name
        missing = set(had["trade_id"].to_list()) - set(mine["trade_id"].to_list())
        assert len(missing) <= len(had) // 20 + 2  # what was known before
        given = [json.loads(r.payload) for r in put if r.kind == "unfillable" and r.symbol == instrument.canonical]
        ids = [n for part in given for n in range(part["first_id"], part["last_id"] + 1)]
        inside = expected.filter(pl.col("lost") & pl.col("trade_id").is_between(had["trade_id"].min(), had["trade_id"].max()))
        assert sorted(ids) == inside["trade_id"].to_list()
    assert counts.unfillable_ids > 0
    assert counts.gap_ids == counts.refilled_ids + counts.unfillable_ids
    assert counts.refill_pauses + counts.refill_failures > 0
    assert counts.refill_requests < 200
