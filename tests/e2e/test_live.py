"""From sockets to both stores: a simulated market with its own books is the oracle."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.e2e.live import LiveHome, assert_stores_equal_books, live, minutes_from

LEAD_SECONDS = 4  # the market waits for the feed; the minute after them is covered whole


def let_trade_and_settle(where: LiveHome, whole_from: int, seconds: float) -> None:
    """Wait until trading is over, the last trades are in ClickHouse and every gap is filled or known to stay."""
    where.wait_until(lambda: bool(where.market.state()["has_ended"]), "the end of trading", seconds)
    last = where.market.newest(since=whole_from)
    where.wait_until(lambda: last.items() <= where.newest().items(), f"the last trades {last}", 90)
    where.wait_until(lambda: where.count("k2.trade_gaps_view WHERE state = 'open'") == 0, "an answer for every gap", 400)


def end(where: LiveHome) -> None:
    """Stop feeds and flow, and commit the rest."""
    for name in [n for n in where.processes if n.startswith("feed")]:
        where.stop(name)
    where.stop("flow")
    where.home.k2("run", "--until-end")


def market(symbols: int, rate: int, minutes: int, *more: str) -> tuple[str, ...]:
    """Options of a market that trades through so many whole minutes."""
    seconds = LEAD_SECONDS + 60 * minutes + 6
    return (
        *("--symbols", str(symbols), "--quiet-symbols", "1", "--rate", str(rate)),
        *("--seconds", str(seconds), "--start", minutes_from(LEAD_SECONDS), "--wait-for-clients", *more),
    )


def kill_in_turn(where: LiveHome, feeds: dict[str, str], kills: int, seed: int) -> None:
    """Kill one feed after the other, now and then both, and start them again; `feeds`: process → name of the feed."""
    rng = random.Random(seed)
    for number in range(kills):
        time.sleep(rng.uniform(2.0, 8.0))
        where.check()
        victims = list(feeds) if number % 3 == 2 else [rng.choice(list(feeds))]
        for victim in victims:
            where.kill(victim)
        time.sleep(rng.uniform(0.0, 2.0))
        for victim in victims:
            where.start(victim, "feed", "--name", feeds[victim])


def run_through(folder: Path, *, symbols: int, rate: int, minutes: int, seed: int, faults: int = 0, kills: int = 0) -> dict[str, int]:
    """Let a feed, or two of which some are killed, live through seeded faults and compare everything with the books."""
    feeds = {"feed-a": "a", "feed-b": "b"} if kills else {"feed": "one"}
    with live(folder, *market(symbols, rate, minutes, "--faults", str(faults), "--seed", str(seed))) as where:
        where.home.k2("up")  # the market waits for the feed, not for the tables
        for process, name in feeds.items():
            where.start(process, "feed", "--name", name)
        whole_from = where.wait_for_feed()
        where.start("flow", "run")
        kill_in_turn(where, feeds, kills, seed)
        let_trade_and_settle(where, whole_from, 60 * minutes + 120)
        end(where)
        counts = assert_stores_equal_books(where, first_whole_window=whole_from)
        where.home.audit()
    return counts


def test_faults_of_every_kind_and_killed_feeds_lose_nothing_that_can_be_had(tmp_path: Path) -> None:
    counts = run_through(tmp_path, symbols=4, rate=1500, minutes=1, seed=11, faults=21, kills=3)
    assert counts["lost_ranges"] > 0
    assert counts["complete"] > 0


@pytest.mark.prove
@pytest.mark.timeout(2400)
def test_ten_minutes_of_a_hundred_faults_at_full_rate(tmp_path: Path) -> None:
    counts = run_through(tmp_path, symbols=50, rate=20_000, minutes=10, seed=5, faults=100)
    assert counts["trades"] > 2 * 20_000 * 600
    assert counts["lost_ranges"] > 0
    assert counts["complete"] > 2 * 150 * 5


@pytest.mark.prove
@pytest.mark.timeout(1200)
def test_twenty_killed_feeds_of_which_two_count_once(tmp_path: Path) -> None:
    counts = run_through(tmp_path, symbols=4, rate=1200, minutes=4, seed=8, kills=20)
    assert counts["lost_ranges"] == 0
    assert counts["complete"] > 0
