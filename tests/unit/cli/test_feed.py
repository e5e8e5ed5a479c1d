from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

import cli.feed
from cli.feed import _follow_list, _name, status_line
from cli.streams import keep_streams
from config.settings import Settings
from connectors.instruments import load_instruments
from connectors.live.feed_metrics import FeedCounts, Latency
from connectors.live.feed_process import FeedProcess
from connectors.live.outbox import Backlog
from market.errors import ConfigError
from tests.feeding import TOPIC, chunk

T0 = 1_700_000_000_000_000


def process(backlog: Backlog, **counts: FeedCounts) -> Any:
    latency = Latency(lambda: T0 + 4_000)
    latency(TOPIC, [chunk("a")])
    return cast("FeedProcess", SimpleNamespace(counts=counts, latency=latency, outbox=SimpleNamespace(backlog=lambda: backlog)))


def test_status_says_rates_latency_and_what_waits() -> None:
    before: dict[str, int] = {}
    counts = FeedCounts(messages=100, connections={"a": 1, "b": 2})
    running = process(Backlog(500_000, 1_000_000, reachable=True), binance=counts)
    status_line(running, before, clock=lambda: 0)
    counts.messages = 1_600
    assert status_line(running, before, clock=lambda: 0) == "00:00:00  binance 2 conn 1,500/s · p99 ≤ 5 ms · 1.4 MB wait"


def test_status_says_when_the_topic_is_down_and_when_nothing_is_known() -> None:
    assert "TOPIC DOWN" in status_line(process(Backlog(0, 0, reachable=False), kraken=FeedCounts()), {})
    idle = process(Backlog(0, 0, reachable=True))
    idle.latency = Latency(lambda: T0)
    assert status_line(idle, {}, clock=lambda: 0) == "00:00:00  connecting · 0.0 MB wait"


def test_names_are_those_of_folders(tmp_path: Path) -> None:
    assert _name("desk-2") == "desk-2"
    assert _name(_name(None)) == _name(None)
    for bad in ("", "a/b", "-x", "a" * 62, "é"):
        with pytest.raises(ConfigError, match="--name"):
            _name(bad)


def test_file_that_changed_after_it_was_read_at_the_start_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "instruments.yaml"
    file.write_text("kraken: [BTC/USD]")
    changes: list[list[str]] = []

    async def change(listed: dict[str, Any]) -> None:
        changes.append(list(listed))

    class Process(SimpleNamespace):
        async def run(self, listed: dict[str, Any], stop: asyncio.Event) -> bool:
            changes.append(list(listed))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.2)
            return True

    def read(settings: Settings) -> dict[str, Any]:
        found = load_instruments(settings)
        if not changes:
            file.write_text("kraken: [BTC/USD]\nbinance: [BTC/USDT]")
        return found

    made = Process(change=change, counts={}, latency=None, outbox=SimpleNamespace(backlog=None))
    monkeypatch.setenv("K2_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("K2_INSTRUMENTS", str(file))
    monkeypatch.setenv("K2_FEED_METRICS", "off")
    monkeypatch.setattr(cli.feed, "load_instruments", read)
    monkeypatch.setattr(cli.feed, "FeedProcess", lambda *_, **__: made)
    monkeypatch.setattr(cli.feed, "keep_pandas_out", lambda: None)
    monkeypatch.setattr(cli.feed, "configure_logs", lambda _: None)
    monkeypatch.setattr(cli.feed, "SWITCH_SECONDS", sys.getswitchinterval())
    monkeypatch.setattr(cli.feed, "_LOOK_S", 0.02)
    cli.feed.feed([], "one")
    assert changes == [["kraken"], ["kraken", "binance"]]


def test_list_that_changes_a_symbols_stream_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "instruments.yaml"
    settings = Settings(home=tmp_path / "home", instruments=file)
    file.write_text("binance: [BTC/USDT]")
    keep_streams(settings.home, load_instruments(settings))
    file.write_text("binance: [{symbol: BTC/USDT, stream: aggTrade}]")
    changes: list[Any] = []

    async def work() -> None:
        async def change(listed: dict[str, Any]) -> None:
            changes.append(listed)

        look = asyncio.Event()
        following = asyncio.create_task(_follow_list(cast("FeedProcess", SimpleNamespace(change=change)), settings, [], None, look))
        while look.is_set() or not logs:
            await asyncio.sleep(0.01)
            if not logs:
                look.set()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    with capture_logs() as logs:
        asyncio.run(work())
    assert changes == []
    assert "cannot be mixed" in logs[0]["error"]
