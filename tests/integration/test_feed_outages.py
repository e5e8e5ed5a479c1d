"""A topic that is down for half a minute under load: nothing is lost, and memory stays bounded."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from connectors.topics.base import TopicLog
from connectors.topics.registry import open_topics
from tests.e2e.live import LiveHome, live
from tests.servers.kafka import OwnBroker
from tests.topic_truth import check_markers, held

pytestmark = pytest.mark.prove

DOWN_SECONDS = 30
RATE = 10_000
MEMORY_BYTES = 300_000_000


@contextmanager
def memory_watched(pid: int) -> Iterator[list[int]]:
    """Collect resident bytes of a process, ten times a second."""
    seen: list[int] = []
    stop = threading.Event()
    process = psutil.Process(pid)

    def watch() -> None:
        while not stop.wait(0.1):
            seen.append(process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def check(where: LiveHome, url: str) -> None:
    with closing(open_topics(url)) as log:
        for exchange in where.market.state()["exchanges"]:
            found = held(log, exchange, [symbol for name, symbol in where.market.symbols() if name == exchange])
            for name, symbol in where.market.symbols():
                if name == exchange:
                    ids = found.ids(symbol)
                    assert ids == list(range(ids[0], ids[-1] + 1)), f"{exchange} {symbol}: {len(ids)} of {ids[0]} to {ids[-1]}"
            assert check_markers(found, where.market, exchange) > 0
            assert [e["kind"] for e in found.of_kind("event")] == ["connected", "disconnected"]
            assert found.of_kind("unfillable") == []


def ends(log: TopicLog) -> int:
    return sum(sum(log.end_offsets(topic)) for topic in log.topics())


def start(where: LiveHome, url: str) -> None:
    where.start("feed", "feed", "--name", "one")

    def receives() -> bool:
        with closing(open_topics(url)) as log:
            return ends(log) > RATE

    where.wait_until(receives, "records in the topics", 120)


def caught_up(where: LiveHome) -> bool:
    return not list((where.home.folder / "feed" / "one").glob("*.spill"))


def test_locked_sqlite_topics(tmp_path: Path) -> None:
    with live(tmp_path, "--symbols", "20", "--rate", str(RATE)) as where:
        url = f"sqlite:///{where.home.folder}/topics.db"
        start(where, url)
        with memory_watched(where.processes["feed"].pid) as memory:
            with closing(sqlite3.connect(where.home.folder / "topics.db", isolation_level=None, timeout=30)) as other:
                other.execute("BEGIN IMMEDIATE")
                time.sleep(DOWN_SECONDS)
                assert not caught_up(where)
                other.execute("ROLLBACK")
            where.wait_until(lambda: caught_up(where), "the spill is written", 120)
        where.stop("feed")
        assert max(memory) < MEMORY_BYTES
        check(where, url)


def test_stopped_kafka_broker(tmp_path: Path, own_kafka_broker: OwnBroker) -> None:
    url = own_kafka_broker.url
    own_kafka_broker.forget_raw_topics()
    with live(tmp_path, "--symbols", "20", "--rate", str(RATE), K2_TOPICS_URL=url) as where:
        start(where, url)
        broker = own_kafka_broker.process
        assert broker is not None
        with memory_watched(where.processes["feed"].pid) as memory:
            broker.send_signal(signal.SIGSTOP)
            try:
                time.sleep(DOWN_SECONDS)
            finally:
                broker.send_signal(signal.SIGCONT)
            where.wait_until(lambda: caught_up(where), "the spill is written", 120)
            time.sleep(5)
        where.stop("feed")
        assert max(memory) < MEMORY_BYTES
        check(where, url)
