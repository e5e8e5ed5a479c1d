"""The demo, twice in the same home: the second time it loads nothing and says the same."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.harness import home


def test_demo_prints_summary_and_chart_and_can_be_repeated(tmp_path: Path) -> None:
    with home(tmp_path / "home") as where:
        first = where.k2("demo", "--once")
        rows = {tuple(line.split()[:3]) for line in first.stdout.splitlines()}
        assert {("binance", "BTC/USDT", "19,904"), ("kraken", "BTC/USD", "12"), ("kraken", "ETH/USD", "5")} <= rows
        assert (
            sum(int(trades.replace(",", "")) for exchange, _, trades in (r for r in rows if len(r) == 3) if exchange == "coinbase") == 256
        )
        assert "audit: clean (20,177 trades recomputed" in first.stdout
        chart = first.stdout[first.stdout.index("binance BTC/USDT 1m") :]
        assert "┤" in chart
        assert "█" in chart
        assert "23:54" in chart
        assert "k2 status" in first.stderr
        again = where.k2("demo", "--once")
        assert again.stdout == first.stdout
        assert "frames" not in again.stderr
