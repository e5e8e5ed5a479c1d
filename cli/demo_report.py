"""What the demo shows at its end: counts of both stores, the audit's verdict, a chart."""

from __future__ import annotations

from typing import Any, Final

import polars as pl
import typer

from cli.chart import Bar, draw_candles
from cli.reading import Reading
from cli.screen import print_table, stdout
from config.settings import Settings
from maintenance.stored import WARM, Wanted
from market.interval import INTERVAL_NAMES
from market.schema import DEAD_LETTERS, OHLCV, SILVER_TRADES, Table

CHARTED: Final = ("binance", "BTC/USDT", "1m")


def summarise(settings: Settings) -> int:
    """Print what the stores hold, and whether they agree with the raw topics; return the number of differences."""
    from cli.audit import audit_all

    with Reading(settings) as reading:
        trades = _rows(reading, SILVER_TRADES, ["exchange", "canonical_symbol"])
        candles = {
            name: _rows(reading, table, ["exchange", "canonical_symbol", "is_closed", "is_complete"]) for name, table in OHLCV.items()
        }
        letters = _rows(reading, DEAD_LETTERS, ["exchange", "reason"])
        gaps = pl.DataFrame(reading.gaps_now(WARM).select(["exchange", "canonical_symbol"]))
    report = audit_all(settings)
    lines: list[list[Any]] = []
    for exchange, symbol in sorted(trades.unique().rows()):
        mine = pl.col("exchange").eq(exchange) & pl.col("canonical_symbol").eq(symbol)
        counts = [candles[name].filter(mine).height for name in INTERVAL_NAMES]
        complete = candles["1m"].filter(mine & pl.col("is_complete")).height
        lines.append([exchange, symbol, trades.filter(mine).height, *counts, complete, gaps.filter(mine).height])
    headings = ["exchange", "symbol", ">trades", *(f">{name}" for name in INTERVAL_NAMES), ">1m complete", ">gaps"]
    print_table(headings, lines, title="Trades, and candles per interval (open ones included)")
    stores = sum(line.raw or 0 for line in report.lines if line.layer == "silver")
    verdict = "clean" if not report.differences else f"{report.differences} differences"
    typer.echo(f"\ndead letters: {letters.height}")
    typer.echo(
        f"audit: {verdict} ({stores:,} trades recomputed from the raw topics and compared with ClickHouse and Iceberg, field by field)"
    )
    return report.differences


def show_chart(settings: Settings) -> None:
    """Draw the demo's busiest symbol; nothing while there is no candle."""
    exchange, symbol, interval = CHARTED
    with Reading(settings) as reading:
        frames = [pl.DataFrame(batch) for batch in reading.opened(WARM).rows(OHLCV[interval], Wanted(exchange, (symbol,)))]
    if not frames:
        return
    rows = pl.concat(frames).sort("window_start").with_columns(pl.col("window_start").to_physical()).to_dicts()
    bars = [
        Bar(r["window_start"], r["open_price"], r["high_price"], r["low_price"], r["close_price"], complete=r["is_complete"]) for r in rows
    ]
    console = stdout()
    console.print()
    console.print(
        draw_candles(f"{exchange} {symbol} {interval}  (rising ┃, falling █; ? = not proven complete)", bars, width=min(console.width, 120))
    )


def _rows(reading: Reading, table: Table, columns: list[str]) -> pl.DataFrame:
    frames = [pl.DataFrame(batch) for batch in reading.opened(WARM).rows(table, Wanted(), columns)]
    return pl.concat(frames) if frames else pl.DataFrame(table.arrow_schema().empty_table().select(columns))
