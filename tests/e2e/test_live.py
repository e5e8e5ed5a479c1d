"""From sockets to both stores: a simulated market with its own books is the oracle."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.live import MINUTE_US, LiveHome, assert_stores_equal_books, live, minutes_from

pytestmark = pytest.mark.timeout(400)


def whole_windows_from(where: LiveHome) -> int:
    """Start of the first minute that the feed was there for: the one that begins after the market opened."""
    return (where.market.state()["start_us"] // MINUTE_US + 1) * MINUTE_US


def let_trade_and_settle(where: LiveHome, seconds: float) -> None:
    """Wait until trading is over and every trade that can be had is in ClickHouse."""
    where.market.wait_for_end(seconds)
    symbols = where.market.symbols()
    last = {(e, s): int(where.market.trades(e, s)["trade_id"][-1]) for e, s in symbols}

    def arrived() -> bool:
        return where.newest() == last

    where.wait_until(arrived, f"the last trades {last}", 60)


def end(where: LiveHome) -> None:
    """Stop feeds and flow, and commit the rest."""
    for name in [n for n in where.processes if n.startswith("feed")]:
        where.stop(name)
    where.stop("flow")
    where.home.k2("run", "--until-end")


def test_a_live_market_arrives_whole_in_both_stores(tmp_path: Path) -> None:
    options = ("--symbols", "4", "--quiet-symbols", "1", "--rate", "1500", "--seconds", "72", "--start", minutes_from(6))
    with live(tmp_path, *options) as where:
        where.start("feed", "feed")
        where.start("flow", "run")
        let_trade_and_settle(where, 120)
        end(where)
        counts = assert_stores_equal_books(where, first_whole_window=whole_windows_from(where))
        where.home.audit()
    assert counts["complete"] >= 2 * 12
    assert counts["lost_ranges"] == 0
