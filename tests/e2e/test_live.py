"""From sockets to both stores: a simulated market with its own books is the oracle."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.live import LiveHome, assert_stores_equal_books, live, minutes_from

pytestmark = pytest.mark.timeout(400)


def let_trade_and_settle(where: LiveHome, seconds: float) -> None:
    """Wait until trading is over, the last trades are in ClickHouse and every gap is filled or known to stay."""
    where.market.wait_for_end(seconds)
    symbols = where.market.symbols()
    last = {(e, s): int(where.market.trades(e, s)["trade_id"][-1]) for e, s in symbols}

    where.wait_until(lambda: where.newest() == last, f"the last trades {last}", 60)
    where.wait_until(lambda: where.count("k2.trade_gaps_view WHERE state = 'open'") == 0, "an answer for every gap", 120)


def end(where: LiveHome) -> None:
    """Stop feeds and flow, and commit the rest."""
    for name in [n for n in where.processes if n.startswith("feed")]:
        where.stop(name)
    where.stop("flow")
    where.home.k2("run", "--until-end")


def test_a_live_market_arrives_whole_in_both_stores(tmp_path: Path) -> None:
    options = ("--symbols", "4", "--quiet-symbols", "1", "--rate", "1500", "--seconds", "78", "--start", minutes_from(12))
    with live(tmp_path, *options) as where:
        where.start("feed", "feed")
        whole_from = where.wait_for_feed()
        where.start("flow", "run")
        let_trade_and_settle(where, 120)
        end(where)
        counts = assert_stores_equal_books(where, first_whole_window=whole_from)
        where.home.audit()
    assert counts["complete"] >= 2 * 12
    assert counts["lost_ranges"] == 0


def test_faults_of_every_kind_lose_nothing_that_can_be_had(tmp_path: Path) -> None:
    options = ("--symbols", "5", "--quiet-symbols", "1", "--rate", "2000", "--seconds", "138", "--start", minutes_from(12))
    with live(tmp_path, *options, "--faults", "30", "--seed", "11") as where:
        where.start("feed", "feed")
        whole_from = where.wait_for_feed()
        where.start("flow", "run")
        let_trade_and_settle(where, 200)
        end(where)
        counts = assert_stores_equal_books(where, first_whole_window=whole_from)
        where.home.audit()
    assert counts["lost_ranges"] > 0
    assert counts["complete"] > 0
