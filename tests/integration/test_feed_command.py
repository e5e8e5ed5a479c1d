"""`k2 feed` as people run it, against a simulated market whose books say what there was."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from connectors.topics.sqlite import SqliteTopics
from tests.e2e.harness import K2, Home
from tests.e2e.live import LiveHome, Market
from tests.topic_truth import Held, check_markers, held

SYMBOLS = 4


def within(seconds: float, true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def listed_in(where: LiveHome) -> Path:
    return Path(where.home.env["K2_INSTRUMENTS"])


def topics_file(where: LiveHome) -> Path:
    return where.home.folder / "topics.db"


def topic(where: LiveHome, exchange: str) -> Held:
    symbols = [symbol for name, symbol in where.market.symbols() if name == exchange]
    with closing(SqliteTopics(f"sqlite:///{topics_file(where)}")) as log:
        return held(log, exchange, symbols)


def newest_ids(where: LiveHome) -> dict[tuple[str, str], int]:
    found = {name: topic(where, name) for name in where.market.state()["exchanges"]}
    return {(e, s): max(found[e].ids(s), default=0) for e, s in where.market.symbols()}


def receives(where: LiveHome) -> bool:
    if not topics_file(where).exists():
        return False
    with closing(SqliteTopics(f"sqlite:///{topics_file(where)}")) as log:
        return len(log.topics()) == len(where.market.state()["exchanges"]) and all(sum(log.end_offsets(t)) > 50 for t in log.topics())


def missing(where: LiveHome) -> dict[tuple[str, str], int]:
    """How many ids between the first and the last are not there, of symbols that miss any."""
    found = {name: topic(where, name) for name in where.market.state()["exchanges"]}
    ids = {(e, s): found[e].ids(s) for e, s in where.market.symbols()}
    return {place: n for place, i in ids.items() if (n := i[-1] - i[0] + 1 - len(i))}


def check_whole(where: LiveHome, exchange: str) -> Held:
    """Every id from a symbol's first to its last is there, and every marker is true."""
    found = topic(where, exchange)
    for name, symbol in where.market.symbols():
        if name == exchange:
            ids = found.ids(symbol)
            assert ids == list(range(ids[0], ids[-1] + 1)), f"{exchange} {symbol}: {len(ids)} of {ids[0]} to {ids[-1]}"
    assert check_markers(found, where.market, exchange) > 0
    return found


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    made = Market(tmp_path_factory.mktemp("market"), "--symbols", str(SYMBOLS), "--rate", "1200")
    yield made
    made.close()


@pytest.fixture
def where(tmp_path: Path, market: Market) -> Iterator[LiveHome]:
    listed = tmp_path / "instruments.yaml"
    shutil.copy(market.instruments, listed)
    home = Home(tmp_path / "home", K2_INSTRUMENTS=str(listed), K2_VENUES_URL=market.url)
    made = LiveHome(home, market)
    yield made
    made.close()


def feed_pids(where: LiveHome) -> list[int]:
    found: list[int] = where.home.run_file()["pids"]["feed"]
    return found


def test_everything_arrives_with_true_markers_and_the_feed_tells_of_itself(where: LiveHome) -> None:
    where.start("feed", "feed", "--name", "one")
    where.wait_until(lambda: receives(where), "trades in all topics", 60)
    feeds = where.home.run_file()["feeds"]
    assert feeds["one"]["pid"] == where.processes["feed"].pid
    assert feed_pids(where) == [where.processes["feed"].pid]
    second = where.home.k2("feed", "--name", "one", check=False)
    assert (second.returncode, "a feed called 'one' runs" in second.stderr) == (3, True)
    time.sleep(3)
    with urllib.request.urlopen(feeds["one"]["metrics"], timeout=10) as answer:
        metrics = answer.read().decode()
    assert 'k2_feed_connections{exchange="kraken"} 1.0' in metrics
    assert 'k2_feed_topic_latency_seconds_count{exchange="coinbase"}' in metrics
    where.stop("feed")
    assert where.home.run_file()["feeds"] == {}
    assert feed_pids(where) == []
    for exchange in ("binance", "kraken", "coinbase"):
        found = check_whole(where, exchange)
        assert [e["kind"] for e in found.of_kind("event")] == ["connected", "disconnected"]
        assert all(f"{exchange}-one-" in m["feed"] for m in found.of_kind("marker"))


def test_killed_feed_is_made_good_by_the_next_and_k2_down_ends_it(where: LiveHome) -> None:
    where.start("feed", "feed")
    where.wait_until(lambda: receives(where), "trades in all topics", 60)
    time.sleep(1)
    where.kill("feed")
    before = newest_ids(where)
    time.sleep(1.5)
    where.start("feed", "feed")
    where.wait_until(lambda: all(now > before[place] for place, now in newest_ids(where).items()), "new trades of every symbol", 60)
    where.wait_until(lambda: not missing(where), "the refill", 30)
    down = where.home.k2("down")
    assert "stopping the feed" in down.stderr
    assert where.processes.pop("feed").wait(10) == 0
    for exchange in ("binance", "kraken", "coinbase"):
        check_whole(where, exchange)


def test_two_feeds_at_once_and_a_list_that_changes(where: LiveHome) -> None:
    listed = listed_in(where).read_text()
    fewer = "\n".join(line for line in listed.splitlines() if line != f"  - {where.market.symbols()[0][1]}")
    listed_in(where).write_text(fewer)
    where.start("feed one", "feed", "--name", "one")
    where.start("feed two", "feed", "--name", "two", "--exchange", "Binance")
    where.wait_until(lambda: receives(where), "trades in all topics", 60)
    added = where.market.symbols()[0]
    assert topic(where, added[0]).ids(added[1]) == []
    listed_in(where).write_text(f"{fewer}\nbinanze: [BTC/USDT]\n")
    where.wait_until(lambda: "did you mean binance" in where.log("feed one"), "the list is refused", 20)
    listed_in(where).write_text(listed)
    os.kill(where.processes["feed two"].pid, signal.SIGHUP)
    where.wait_until(lambda: len(topic(where, added[0]).ids(added[1])) > 20, "trades of the added symbol", 30)
    time.sleep(2)
    where.stop("feed one")
    where.stop("feed two")
    found = check_whole(where, "binance")
    assert len({m["feed"] for m in found.of_kind("marker") if added[1] in m["symbols"]}) == 2


def test_what_a_locked_topic_does_not_take_waits_on_disk_for_the_next_feed(where: LiveHome) -> None:
    where.home.env["K2_TOPICS_URL"] = f"sqlite:///{topics_file(where)}?timeout=0.5"
    where.start("feed", "feed", "--name", "one")
    where.wait_until(lambda: receives(where), "trades in all topics", 60)
    with closing(sqlite3.connect(topics_file(where), isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        where.wait_until(lambda: "topic_unreachable" in where.log("feed"), "the feed notices", 20)
        time.sleep(1)
        where.stop("feed")
        other.execute("ROLLBACK")
    assert "the next `k2 feed` of this home writes them" in where.log("feed")
    assert list((where.home.folder / "feed" / "one").glob("*.spill"))
    where.start("feed", "feed", "--name", "two")
    within(30, lambda: not (where.home.folder / "feed" / "one" / "000001.spill").exists(), "the left-over is written")
    before = newest_ids(where)
    where.wait_until(lambda: all(now > before[place] for place, now in newest_ids(where).items()), "new trades", 60)
    where.wait_until(lambda: not missing(where), "the refill", 30)
    where.stop("feed")
    assert not (where.home.folder / "feed" / "one").exists()
    for exchange in ("binance", "kraken", "coinbase"):
        check_whole(where, exchange)


@pytest.mark.parametrize(
    ("arguments", "listed", "said"),
    [
        ((), "binance: [BTC/UDST]", "BTC/USDT"),
        (("--exchange", "binanc"), "binance: [BTC/USDT]", "binance"),
        (("--exchange", "kraken"), "binance: [BTC/USDT]", "kraken is not listed in the instruments file; listed are binance"),
        (("--name", "no/name"), "binance: [BTC/USDT]", "--name"),
    ],
)
def test_what_is_not_known_is_named_before_anything_starts(tmp_path: Path, arguments: tuple[str, ...], listed: str, said: str) -> None:
    path = tmp_path / "instruments.yaml"
    path.write_text(listed)
    env = {**os.environ, "K2_HOME": str(tmp_path / "home"), "K2_INSTRUMENTS": str(path)}
    done = subprocess.run([*K2, "feed", *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


TELLING_FEED = """
import sys, cli.main
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "cli.feed":
            print("here", flush=True)
sys.meta_path.insert(0, Finder)
cli.main.main(["feed"])
"""  # says when it begins with its imports


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_during_the_start_ends_it_well(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "instruments.yaml"
    path.write_text("binance: [BTC/USDT]")
    env = {**os.environ, "K2_HOME": str(tmp_path / "home"), "K2_INSTRUMENTS": str(path), "K2_VENUES_URL": "http://127.0.0.1:9"}
    for seconds in (0.0, 0.5, 1.2):
        with subprocess.Popen([sys.executable, "-c", TELLING_FEED], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as feed:
            assert feed.stdout is not None
            assert feed.stderr is not None
            assert feed.stdout.readline() == b"here\n"
            time.sleep(seconds)
            feed.send_signal(number)
            assert feed.wait(20) == 0, feed.stderr.read()
