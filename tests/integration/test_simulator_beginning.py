"""Where a simulation begins: with its clients, and where it is told to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from simulator.config import SimulatorConfig
from simulator.simulator import Simulator
from tests.integration.test_simulator import RELAXED, START_US, listen, past_ids, run, simulated, subscribe

DATA = Path(__file__).parents[1] / "data"
KRAKEN = (DATA / "kraken" / "live-btc-eth_20260707.ndjson.gz",)


def test_trading_begins_when_every_symbol_is_subscribed() -> None:
    async def scenario() -> None:
        async with simulated(symbols=1, exchanges=("kraken", "coinbase"), waits_for_clients=True, rate=200, start_us=START_US) as sim:
            first = await subscribe(sim, "kraken")
            await asyncio.sleep(0.3)
            state = sim.books.state()
            assert (state["released"], state["running_seconds"], state["now_us"]) == (0, None, START_US - 1)
            second = await subscribe(sim, "coinbase")
            kraken: set[int] = set()
            coinbase: set[int] = set()
            await asyncio.wait_for(listen(first, "kraken", kraken, until=lambda: len(kraken) > 20), 20)
            await asyncio.wait_for(listen(second, "coinbase", coinbase, until=lambda: len(coinbase) > 20), 20)
            for exchange, ids in (("kraken", kraken), ("coinbase", coinbase)):
                assert min(ids) == sim.exchanges[exchange].tape.symbols[0].first_id, "the first trade went to nobody"
            await first.close()
            await second.close()

    run(scenario)


def test_what_is_skipped_only_the_rest_interface_knows() -> None:
    async def scenario() -> None:
        config = SimulatorConfig(
            exchanges=("kraken",), recordings={"kraken": KRAKEN}, start_of="kraken", skip_seconds=10.0, halt_seconds=17.5, once=True,
            waits_for_clients=True, speed=10.0, conditions=RELAXED,
        )  # fmt: skip
        async with Simulator(config) as sim, httpx.AsyncClient(base_url=sim.url) as http:
            client = await subscribe(sim, "kraken")
            await client.send('{"method":"subscribe","params":{"channel":"trade","symbol":["ETH/USD"],"snapshot":false}}')
            assert sim.books.state()["start_us"] == 1_783_465_204_585_581
            live: set[int] = set()
            await asyncio.wait_for(listen(client, "kraken", live, until=lambda: bool(sim.books.state()["has_ended"])), 20)
            books = sim.books.trades("kraken", "BTC/USD")
            skipped = [
                n for n, at in zip(*(books[c].to_pylist() for c in ("trade_id", "timestamp")), strict=True) if at < 1_783_465_214_585_581
            ]
            assert len(books) == 12
            assert skipped
            assert not live & set(skipped)
            assert await past_ids(http, "kraken", min(skipped), max(skipped)) >= set(skipped)
            await asyncio.sleep(0.2)
            assert sim.books.state()["now_us"] == 1_783_465_204_585_581 + 17_500_000
            await client.close()

    run(scenario)
