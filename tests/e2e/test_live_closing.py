"""Quiet symbols close by proofs of life; without a feed nothing closes, and when it is back it closes with what is known."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.live import LiveHome, live, minutes_from


def closed(where: LiveHome, window: int) -> set[tuple[str, str, bool]]:
    """Return (exchange, symbol, is_complete) of the candles of a minute that are closed in ClickHouse."""
    sql = (
        "SELECT exchange, canonical_symbol AS symbol, is_complete FROM k2.ohlcv_1m_view "
        f"WHERE is_closed AND window_start = fromUnixTimestamp64Micro({window})"
    )
    return {(row["exchange"], row["symbol"], row["is_complete"]) for row in where.query(sql)}


def traded(where: LiveHome, window: int) -> set[tuple[str, str]]:
    """Return what traded in a minute, by the books."""
    return {name for name in where.market.symbols() if any(k["window_start"] == window for k in where.market.klines(*name, "1m"))}


def test_a_killed_feeds_candles_stay_open_and_close_complete_when_it_is_back(tmp_path: Path) -> None:
    options = ("--symbols", "3", "--quiet-symbols", "1", "--rate", "300", "--start", minutes_from(4), "--wait-for-clients")
    with live(tmp_path, *options) as where:
        where.home.k2("up")  # the market waits for the feed, not for the tables
        where.start("feed", "feed", "--name", "one")
        window = where.wait_for_feed()
        where.start("flow", "run")
        end = window + 60_000_000

        def reached(time_us: int) -> None:
            where.wait_until(lambda: where.market.state()["now_us"] >= time_us, "the time", 120)

        reached(end - 8_000_000)
        where.kill("feed")
        reached(end + 6_000_000)
        assert closed(where, window) == set(), "nobody has seen the whole minute"
        where.start("feed", "feed", "--name", "one")
        expected = {(*name, True) for name in traded(where, window)}
        where.wait_until(lambda: closed(where, window) >= expected, f"complete candles {sorted(expected)}", 60)
        assert closed(where, window) == expected
