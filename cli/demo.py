"""`k2 demo`: real recordings through the whole platform, a summary, a chart."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import polars as pl
import typer

from cli.chart import Bar, draw_candles
from cli.flow import progress_of_flow
from cli.load import load
from cli.logs import configure_logs
from cli.reading import Reading
from cli.screen import print_table, say, stdout
from config.settings import Settings, load_settings
from maintenance.stored import WARM, Wanted
from market.errors import ConfigError
from market.interval import INTERVAL_NAMES
from market.schema import DEAD_LETTERS, OHLCV, SILVER_TRADES, Table

RECORDINGS: Final = {
    "binance": ("btcusdt_20240808.gz", "btcusdt_20240809.gz"),
    "kraken": ("live-btc-eth_20260707.ndjson.gz",),
    "coinbase": ("COINBASE_part1.jsonl.gz",),
}
DEFAULTS: Final = {"K2_HOME": ".k2/demo", "K2_COMMIT_INTERVAL": "2", "K2_EPOCH_INTERVAL": "2"}
CHARTED: Final = ("binance", "BTC/USDT", "1m")
_DONE: Final = "demo.json"  # in the home: which recordings are in its topics


def demo(*, once: bool) -> None:
    """Run the demo; repeating it loads nothing twice.

    Raises:
        ConfigError: the recordings are not there (they come with the source tree).
        typer.Exit: with 1 when the audit finds differences.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    settings = load_settings()
    configure_logs()
    from dataflows import runner

    _load_recordings(settings)
    say("running the flow: decode, sequence, fold, write to ClickHouse and Iceberg (the first run on a machine compiles, ~1 min)")
    with progress_of_flow() as watch:
        runner.run(settings, until_end=True, watch=watch)
    differences = _summarise(settings)
    _show_chart(settings)
    home = f"K2_HOME={_short(settings.home)}"
    say(f"\nlook further:  {home} k2 status    {home} k2 export candles -e binance -i 1m    stop the store:  {home} k2 down")
    if differences:
        raise typer.Exit(1)
    if not once:
        say("following the topics; Ctrl-C ends")
        runner.run(settings)


def _load_recordings(settings: Settings) -> None:
    done_file = settings.home / _DONE
    done: dict[str, str] = json.loads(done_file.read_text()) if done_file.is_file() else {}
    for exchange, path in recordings():
        if done.get(path.name) != settings.topics_url:
            load(exchange, [path], quiet=False)
            done[path.name] = settings.topics_url
            settings.home.mkdir(parents=True, exist_ok=True)
            done_file.write_text(json.dumps(done, indent=1))


def recordings() -> Iterator[tuple[str, Path]]:
    """Yield (exchange, file) of the recordings in the source tree.

    Raises:
        ConfigError: they are not there.
    """
    folder = Path(__file__).parents[1] / "tests" / "data"
    for exchange, names in RECORDINGS.items():
        for name in names:
            path = folder / exchange / name
            if not path.is_file():
                raise ConfigError(
                    f"{path} is not there: the demo needs the source tree, where its recordings are; or use `k2 load` with your own"
                )
            yield exchange, path


def _summarise(settings: Settings) -> int:
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


def _rows(reading: Reading, table: Table, columns: list[str]) -> pl.DataFrame:
    frames = [pl.DataFrame(batch) for batch in reading.opened(WARM).rows(table, Wanted(), columns)]
    return pl.concat(frames) if frames else pl.DataFrame(table.arrow_schema().empty_table().select(columns))


def _show_chart(settings: Settings) -> None:
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


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
