from __future__ import annotations

import asyncio
import json
import time
import urllib.request

import pytest

from cli.simulated_clock import SimulatedClock
from market.errors import ConfigError
from simulator.config import SimulatorConfig
from simulator.simulator import Simulator

START_US = 1_700_000_000_000_000


def config(*, waits: bool = False, halt: float | None = None) -> SimulatorConfig:
    return SimulatorConfig(
        exchanges=("kraken",), symbols=1, rate=10, start_us=START_US, speed=20.0, halt_seconds=halt, waits_for_clients=waits
    )


def now_of(url: str) -> int:
    with urllib.request.urlopen(f"{url}/books/state") as answer:
        now_us: int = json.load(answer)["now_us"]
    return now_us


async def followed(url: str) -> SimulatedClock:
    return await asyncio.to_thread(SimulatedClock, url)


async def assert_agrees(clock: SimulatedClock, url: str) -> None:
    before = clock.now_us()
    asked = time.monotonic()
    theirs = await asyncio.to_thread(now_of, url)
    slack = 2_000_000 + round(20 * 1e6 * (time.monotonic() - asked))  # 0.1 s of ours, and what passed between asking and looking
    assert before - slack <= theirs <= clock.now_us() + slack


def test_it_shows_the_simulators_time() -> None:
    async def follow() -> None:
        async with Simulator(config()) as simulator:
            clock = await followed(simulator.url)
            assert clock.speed == 20.0
            for _ in range(3):
                await assert_agrees(clock, simulator.url)
                await asyncio.sleep(0.05)

    asyncio.run(follow())


def test_it_waits_and_halts_with_the_simulator() -> None:
    async def follow() -> None:
        async with Simulator(config(waits=True, halt=4.0)) as simulator:
            clock = await followed(simulator.url)
            assert clock.now_us() == START_US - 1
            time_of = simulator._clock
            assert time_of is not None
            time_of.begin(after_seconds=0.3)
            assert clock.now_us() == START_US - 1
            while clock.now_us() < START_US + 4_000_000:  # noqa: ASYNC110 it is a clock
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.1)
            assert clock.now_us() == START_US + 4_000_000

    asyncio.run(follow())


def test_a_url_without_a_simulator_is_named() -> None:
    with pytest.raises(ConfigError, match="no simulator is there"):
        SimulatedClock("http://127.0.0.1:9")
