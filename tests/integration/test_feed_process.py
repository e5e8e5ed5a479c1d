"""The feeds of one process over topics in memory, against a simulator in the same loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from connectors.live import feed_process
from connectors.live.feed_process import FeedProcess
from connectors.live.outbox import Backlog
from connectors.live.outgoing import Chunk, Outgoing, chunks_of
from connectors.live.spill import Spill
from connectors.live.spill_folders import SpillFolders, open_spills
from connectors.topics.memory import MemoryTopics
from connectors.venues.registry import build_instruments, venue
from market.errors import ConfigError, FatalError, PipelineError, SourceDisconnected
from market.instrument import Instruments, partition_of
from market.record import topic_name
from simulator.config import SimulatorConfig
from simulator.simulator import Simulator
from tests.topic_truth import held

TOPIC = topic_name("kraken")
SYMBOLS = {"binance": ("BTC/USDT", "ETH/USDT"), "kraken": ("BTC/USD",), "coinbase": ("BTC/USD",)}


def listed(*exchanges: str, symbols: Mapping[str, tuple[str, ...]] = SYMBOLS) -> dict[str, Instruments]:
    return {exchange: build_instruments(exchange, list(symbols[exchange])) for exchange in exchanges}


class Topics(MemoryTopics):
    """Topics in memory whose next calls may fail."""

    failures: list[PipelineError]

    def __init__(self) -> None:
        super().__init__()
        self.failures = []

    def create(self, topic: str, partitions: int) -> None:
        if self.failures:
            raise self.failures.pop()
        super().create(topic, partitions)

    def append(self, topic: str, records: Mapping[int, pa.RecordBatch]) -> None:
        if self.failures:
            raise self.failures.pop()
        super().append(topic, records)


class Rig:
    def __init__(self, folder: Path, url: str) -> None:
        self.clock_is_ahead_us = 0
        self.topics = Topics()
        self.spills: SpillFolders = open_spills(folder, "one")
        self.process = FeedProcess(
            "one", self.topics, 2, self.spills, spill_bytes=1 << 20, venues_url=url, now_us=self.now_us, open_log=lambda: self.topics
        )
        self.stop = asyncio.Event()

    def now_us(self) -> int:
        return now_us() + self.clock_is_ahead_us

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not true():  # noqa: ASYNC110 nothing would set an event
                await asyncio.sleep(0.02)

    def ids(self, exchange: str, symbol: str) -> list[int]:
        if topic_name(exchange) not in self.topics.topics():
            return []
        return held(self.topics, exchange, list(SYMBOLS[exchange])).ids(symbol)


def now_us() -> int:
    import time

    return time.time_ns() // 1_000


@asynccontextmanager
async def rig(folder: Path) -> AsyncIterator[Rig]:
    async with Simulator(SimulatorConfig(rate=400, symbols=SYMBOLS)) as market:
        made = Rig(folder, market.url)
        try:
            yield made
        finally:
            made.spills.close()


def leave(folder: Path, *records: Outgoing) -> None:
    """What a killed feed leaves behind."""
    folder.mkdir()
    (folder / "lock").touch()
    spill = Spill(folder)
    for one in chunks_of(TOPIC, 2, records):
        spill.append(one)
    spill.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_exchanges_come_and_go_while_others_are_not_disturbed(tmp_path: Path) -> None:
    async def work() -> None:
        async with rig(tmp_path) as made:
            fewer = {**SYMBOLS, "binance": ("BTC/USDT",)}
            feeding = asyncio.create_task(made.process.run(listed("binance", "kraken", symbols=fewer), made.stop))
            await made.until(lambda: len(made.ids("binance", "BTC/USDT")) > 20 and len(made.ids("kraken", "BTC/USD")) > 20)
            await made.process.change(listed("binance", "coinbase"))
            await made.until(lambda: len(made.ids("coinbase", "BTC/USD")) > 20 and len(made.ids("binance", "ETH/USDT")) > 20)
            made.stop.set()
            assert await feeding
            for exchange, symbol in (("binance", "BTC/USDT"), ("binance", "ETH/USDT"), ("kraken", "BTC/USD"), ("coinbase", "BTC/USD")):
                ids = made.ids(exchange, symbol)
                assert ids == list(range(ids[0], ids[-1] + 1))
            events = {e: held(made.topics, e, list(SYMBOLS[e])).of_kind("event") for e in SYMBOLS}
            assert [[e["kind"] for e in events[name]] for name in ("binance", "kraken", "coinbase")] == [["connected", "disconnected"]] * 3

    run(work())


def test_log_that_cannot_be_reached_at_the_start_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_process, "_RETRY_S", 0.01)

    async def work() -> None:
        async with rig(tmp_path) as made:
            made.topics.failures = [SourceDisconnected("away")] * 3
            feeding = asyncio.create_task(made.process.run(listed("kraken"), made.stop))
            await made.until(lambda: len(made.ids("kraken", "BTC/USD")) > 5)
            made.stop.set()
            assert await feeding

    run(work())


def test_what_the_log_refuses_ends_the_process_with_its_error(tmp_path: Path) -> None:
    async def work() -> None:
        async with rig(tmp_path) as made:
            feeding = asyncio.create_task(made.process.run(listed("kraken"), made.stop))
            await made.until(lambda: len(made.ids("kraken", "BTC/USD")) > 5)
            made.topics.failures = [ConfigError("not allowed")]
            with pytest.raises(ConfigError, match="not allowed"):
                await asyncio.wait_for(feeding, 30)
            assert made.spills.own.nbytes > 0

    run(work())


def test_topic_that_cannot_be_used_ends_the_process_with_its_error(tmp_path: Path) -> None:
    async def work() -> None:
        async with rig(tmp_path) as made:
            made.topics.failures = [ConfigError("no")]
            with pytest.raises(ConfigError, match="no"):
                await made.process.run(listed("kraken"), made.stop)

    run(work())


def test_exchange_without_a_live_feed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(venue("kraken")), "feed", None)

    async def work() -> None:
        async with rig(tmp_path) as made:
            with pytest.raises(ConfigError, match="kraken has no live feed"):
                await made.process.run(listed("binance", "kraken"), made.stop)

    run(work())


def test_stop_before_anything_is_connected(tmp_path: Path) -> None:
    async def work() -> None:
        async with rig(tmp_path) as made:
            made.stop.set()
            assert await made.process.run(listed("kraken"), made.stop)

    run(work())


def test_list_that_changes_while_an_older_one_begins_is_the_one_that_is_fed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_process, "_RETRY_S", 0.3)

    async def work() -> None:
        async with rig(tmp_path) as made:
            drained = asyncio.Event()
            monkeypatch.setattr(made.process.outbox, "drained", drained.wait)
            monkeypatch.setattr(made.process.outbox, "backlog", lambda: Backlog(0, 1, reachable=True))
            feeding = asyncio.create_task(made.process.run(listed("binance"), made.stop))
            await asyncio.sleep(0)
            await made.process.change(listed("kraken"))
            made.topics.failures = [SourceDisconnected("away")]
            drained.set()
            await made.until(lambda: not made.topics.failures)
            await made.process.change(listed("kraken", "coinbase"))
            await made.until(lambda: len(made.ids("kraken", "BTC/USD")) > 5 and len(made.ids("coinbase", "BTC/USD")) > 5)
            made.stop.set()
            assert await feeding
            assert made.ids("binance", "BTC/USDT") == []

    run(work())


def test_left_over_for_a_topic_that_is_not_there_creates_it(tmp_path: Path) -> None:
    leave(tmp_path / "two", Outgoing("BTC/USD", b'{"left":1}', 1_700_000_000_000_000))

    async def work() -> None:
        async with rig(tmp_path) as made:
            feeding = asyncio.create_task(made.process.run(listed("kraken"), made.stop))
            await made.until(lambda: len(made.ids("kraken", "BTC/USD")) > 5)
            made.stop.set()
            assert await feeding
            assert made.topics.partitions(TOPIC) == 2
            batch = made.topics.read(TOPIC, partition_of("BTC/USD", 2), 0, 1)
            assert batch is not None
            assert batch["payload"].to_pylist() == [b'{"left":1}']

    run(work())
    assert not any(tmp_path.rglob("*.spill"))


def test_records_that_neither_topic_nor_disk_take_end_the_process_with_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_process, "STOP_S", 0.2)

    def full(chunk: Chunk) -> int:
        raise OSError(28, "No space left on device")

    async def work() -> None:
        async with rig(tmp_path) as made:
            monkeypatch.setattr(made.spills.own, "append", full)
            feeding = asyncio.create_task(made.process.run(listed("kraken"), made.stop))
            await made.until(lambda: len(made.ids("kraken", "BTC/USD")) > 5)
            made.topics.failures = [SourceDisconnected("locked")] * 1_000
            await made.until(lambda: not made.process.outbox.backlog().reachable)
            made.stop.set()
            with pytest.raises(
                FatalError, match=r"[0-9]+ records \([0-9,]+ bytes\) are lost: .*one does not take them \(No space left .*locked"
            ):
                await asyncio.wait_for(feeding, 30)

    run(work())


def test_nothing_is_vouched_for_by_a_clock_that_was_set(tmp_path: Path) -> None:
    async def work() -> None:
        async with rig(tmp_path) as made:

            def told(kind: str) -> list[dict[str, Any]]:
                return held(made.topics, "kraken", list(SYMBOLS["kraken"])).of_kind(kind)

            feeding = asyncio.create_task(made.process.run(listed("kraken"), made.stop))
            await made.until(lambda: TOPIC in made.topics.topics() and bool(told("marker")))
            made.clock_is_ahead_us = 7_200_000_000
            await made.until(lambda: any(e["kind"] == "ended" for e in told("event")))
            seen = len(made.ids("kraken", "BTC/USD"))
            await made.until(lambda: len(made.ids("kraken", "BTC/USD")) > seen + 200)
            made.stop.set()
            assert await feeding
            assert all(marker["to_us"] < now_us() for marker in told("marker"))

    run(work())


def test_a_running_feed_writes_what_another_one_left_when_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_process, "ADOPT_S", 0.1)

    async def work() -> None:
        async with rig(tmp_path) as made:
            feeding = asyncio.create_task(made.process.run(listed("kraken"), made.stop))
            await made.until(lambda: bool(made.ids("kraken", "BTC/USD")))
            leave(tmp_path / "killed", Outgoing("BTC/USD", b'{"of":"the killed"}', now_us()))
            await made.until(lambda: b'{"of":"the killed"}' in payloads(made.topics))
            made.stop.set()
            assert await feeding

    def payloads(topics: Topics) -> list[bytes]:
        batches = [topics.read(TOPIC, p, 0, end) for p, end in enumerate(topics.end_offsets(TOPIC)) if end]
        return [payload for batch in batches if batch is not None for payload in batch["payload"].to_pylist()]

    run(work())
    assert [p.name for p in tmp_path.iterdir()] == []
