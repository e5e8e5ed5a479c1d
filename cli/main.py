"""The `k2` command: one thin function a command; what it does is imported when it is asked for.

Exit codes: 0 it did what it says; 1 differences found; 2 usage or configuration; 3 refused, because it would not be safe;
4 failed; 130 interrupted. Errors are one message on stderr; `--debug`, anywhere on the line, adds the traceback.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from market.errors import PipelineError

DEBUG: Final = "--debug"
FAILED: Final = 4
INTERRUPTED: Final = 130
_CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class _Group(TyperGroup):
    """Lets a reader that went away (`k2 export … | head`) end the command like any other Unix program."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
            raise typer.Exit(128 + 13) from None


app = typer.Typer(
    cls=_Group,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings=_CONTEXT,
    help=(
        "Exchange trades in, candles you can trust out.\n\n"
        "Everything of the embedded mode is in K2_HOME (default ./.k2); K2_* variables and the file K2_CONFIG choose other stores "
        "(docs/settings.md)."
    ),
    epilog="Exit codes: 0 done, 1 differences found, 2 usage or configuration, 3 refused as unsafe, 4 failed.",
)

AsJson = Annotated[bool, typer.Option("--json", help="print JSON for programs")]
Exchange = Annotated[str | None, typer.Option("--exchange", "-e", help="one exchange, e.g. binance; default: all")]
Symbol = Annotated[str | None, typer.Option("--symbol", "-s", help="one symbol, in any spelling: BTC/USDT, BTC-USDT, btcusdt")]
Store = Annotated[str, typer.Option("--store", help="warm (ClickHouse) or cold (Iceberg)")]
From = Annotated[str | None, typer.Option("--from", help="from this time on (inclusive): ISO 8601, UTC, or epoch microseconds")]
To = Annotated[str | None, typer.Option("--to", help="up to this time (exclusive)")]


def _show_version(wanted: bool) -> None:  # noqa: FBT001 typer calls it with the option's value
    if wanted:
        from cli.version import version_line

        typer.echo(version_line())
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="print the version and exit")] = False,  # noqa: FBT002
    debug: Annotated[bool, typer.Option(DEBUG, help="show the traceback of an error, and debug messages")] = False,  # noqa: FBT002
) -> None:
    del version, debug  # `main` takes --debug out of the line, wherever it stands


@app.command(epilog="Example: k2 up && k2 status")
def up() -> None:
    """Start the embedded warm store and prepare both stores; `run` and `export` also do so when needed."""
    from cli import lifecycle

    lifecycle.up()


@app.command()
def down() -> None:
    """Stop what runs in this home: the feeds, then the flow, then the warm store. Data stays."""
    from cli import lifecycle

    lifecycle.down()


@app.command(epilog="Example: k2 load --exchange binance btcusdt_20240808.gz btcusdt_20240809.gz")
def load(
    files: Annotated[list[Path], typer.Argument(help="captured frames (plain, gzip or zstd), or the output of `k2 export raw`")],
    exchange: Annotated[str, typer.Option("--exchange", "-e", help="whose frames they are, e.g. binance")],
    *,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="show no progress")] = False,
) -> None:
    """Put captured frames into the raw topic of an exchange, with markers as a feed would write them.

    One frame a line, with or without a leading receive time in ns; or capture envelopes. Loading a file twice is harmless.
    """
    from cli import load as command

    command.load(exchange, files, quiet=quiet)


@app.command(epilog="Examples: k2 feed | k2 feed -e kraken -e coinbase --name second")
def feed(
    exchanges: Annotated[list[str] | None, typer.Option("--exchange", "-e", help="only this exchange; may be repeated")] = None,
    name: Annotated[str | None, typer.Option("--name", help="of this feed; default: made of host and process")] = None,
    *,
    simulated_clock: Annotated[bool, typer.Option("--simulated-clock", help="the time of the simulator", hidden=True)] = False,
) -> None:
    """Receive live trades of the listed instruments and write them to the raw topics; Ctrl-C ends.

    The instruments file is read again when it changes. Two feeds may run at once: what both receive counts once.
    """
    from cli.starting import ended_by_signals

    with ended_by_signals():
        from cli import feed as command

        command.feed(exchanges or [], name, simulated_clock=simulated_clock)


@app.command(epilog="Example: k2 run --until-end")
def run(
    *,
    until_end: Annotated[bool, typer.Option("--until-end", help="stop at what the topics hold now, when all of it is committed")] = False,
    take_over: Annotated[bool, typer.Option("--take-over", help="end the flow that runs here first, frozen or not")] = False,
) -> None:
    """Run the flow: topics to candles in both stores. It goes on where it stopped; Ctrl-C commits what is read and ends."""
    from cli import flow

    flow.run(until_end=until_end, take_over=take_over)


@app.command()
def recover() -> None:
    """Move a lost or damaged recovery folder aside; the next run starts at the log's beginning.

    What is stored stays: it is recognised and not written again. Refused when the log's beginning has expired, since a
    fresh start could not tell which trades were seen; then restore the recovery folder from its backup.
    """
    from cli import flow

    flow.recover()


@app.command(
    epilog="Examples: k2 export candles -e binance -s BTC/USDT --interval 1m --format csv | k2 export raw -e binance -o raw.jsonl",
)
def export(
    what: Annotated[str, typer.Argument(help="candles, trades, gaps, dead-letters or raw", metavar="WHAT")],
    exchange: Exchange = None,
    symbol: Symbol = None,
    interval: Annotated[str, typer.Option("--interval", "-i", help="of candles: 1m 5m 15m 30m 1h 1d")] = "1m",
    start: From = None,
    end: To = None,
    store: Store = "warm",
    form: Annotated[str, typer.Option("--format", "-f", help="csv, json (one array), jsonl, parquet or arrow (IPC file)")] = "csv",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file to write, at once when complete; default: stdout")] = None,
    *,
    open_candles: Annotated[bool, typer.Option("--open", help="also candles that are not closed yet (warm only)")] = False,
    now: Annotated[bool, typer.Option("--now", help="of gaps: only those that are missing now, not their history")] = False,
) -> None:
    """Write candles, trades, the gap ledger, dead letters or the raw records as a file.

    Candles: the newest row each, ascending by exchange, symbol, window. Trades: silver, ascending by exchange, time.
    raw: one JSON object a line, which `k2 load` takes back as it is.
    """
    from cli import export as command

    command.export(
        command.Request(what, exchange, symbol, interval, start, end, store, form, output, open_candles=open_candles, now=now),
    )


@app.command()
def status(*, as_json: AsJson = False) -> None:
    """Show, per table, store and topic partition: frontier, end of the log, lag, rows, last commit."""
    from cli import status as command

    command.status(as_json=as_json)


@app.command()
def gaps(exchange: Exchange = None, symbol: Symbol = None, store: Store = "warm", *, as_json: AsJson = False) -> None:
    """Show which trades are missing, right now."""
    from cli import gaps as command

    command.gaps(exchange, symbol, store, as_json=as_json)


@app.command()
def audit(exchange: Exchange = None, *, as_json: AsJson = False) -> None:
    """Recompute every table from the raw topics and compare both stores with it; exit 1 on any difference.

    Covers what every table has taken in: the records below the lowest frontier of each topic partition.
    """
    from cli import audit as command

    command.audit(exchange, as_json=as_json)


@app.command(epilog="Example: k2 simulate --symbols 5 --rate 1000 --fault drop@30:exchange=kraken, and K2_VENUES_URL for the feed")
def simulate(
    host: Annotated[str, typer.Option(help="where to listen")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="which port; 0: any that is free, told on stderr")] = 9100,
    exchange: Annotated[list[str] | None, typer.Option("--exchange", "-e", help="a venue; repeat for more; default: all three")] = None,
    symbols: Annotated[
        list[str] | None, typer.Option(help="how many a venue, or EXCHANGE=BTC/USD,ETH/USD; default: the instruments file")
    ] = None,
    quiet_symbols: Annotated[int, typer.Option(help="so many of them trade rarely")] = 0,
    rate: Annotated[float, typer.Option(help="trades a second, all venues together")] = 300.0,
    seed: Annotated[int, typer.Option(help="the same seed makes the same trades, and the same --faults")] = 1,
    trades: Annotated[int | None, typer.Option(help="stop trading after so many")] = None,
    seconds: Annotated[float | None, typer.Option(help="stop trading after so long")] = None,
    start: Annotated[
        str | None, typer.Option(help="time of the first moment, ISO 8601 or epoch µs, or EXCHANGE: of its recording; default: now")
    ] = None,
    skip: Annotated[float, typer.Option(help="begin so many seconds after the start; what was traded until then, REST knows")] = 0.0,
    halt: Annotated[float | None, typer.Option(help="seconds after the start at which the clock stands still")] = None,
    speed: Annotated[float, typer.Option(help="run seconds a second")] = 1.0,
    clock_offset: Annotated[list[str] | None, typer.Option(help="EXCHANGE=SECONDS by which its clock is ahead")] = None,
    recording: Annotated[list[str] | None, typer.Option(help="EXCHANGE=FILE: trade what was recorded; repeat for more files")] = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="of recordings: not again from their start")] = False,
    as_recorded: Annotated[bool, typer.Option("--as-recorded", help="of recordings: with their own times")] = False,
    wait_for_clients: Annotated[bool, typer.Option("--wait-for-clients", help="begin when every symbol is subscribed")] = False,
    fault: Annotated[list[str] | None, typer.Option(help="KIND@SECONDS[:name=value…]; docs/simulator.md lists them")] = None,
    faults: Annotated[int, typer.Option(help="so many faults drawn from the seed")] = 0,
    fault_kinds: Annotated[str, typer.Option(help="kinds to draw from, separated by commas; default: all")] = "",
    fault_file: Annotated[Path | None, typer.Option(help="YAML or JSON list of faults")] = None,
    max_age: Annotated[float, typer.Option(help="seconds after which a connection is cut")] = 86_400.0,
    limits: Annotated[bool, typer.Option("--limits/--no-limits", help="enforce the venues' limits of pace")] = True,
    write_instruments: Annotated[Path | None, typer.Option(help="write what is listed, as an instruments file")] = None,
    exit_after: Annotated[float | None, typer.Option(help="exit so many seconds after trading ended; default: stay")] = None,
) -> None:
    """Run a local exchange that speaks the venues' protocols, with faults and books of its own.

    A feed finds it by K2_VENUES_URL; its books are below /books. See docs/simulator.md.
    """
    from cli import simulate as command

    command.simulate(
        command.Request(
            host=host, port=port, exchanges=exchange or [], symbols=symbols or [], quiet_symbols=quiet_symbols, rate=rate, seed=seed,
            trades=trades, seconds=seconds, start=start, skip=skip, halt=halt, wait_for_clients=wait_for_clients, speed=speed,
            clock_offsets=clock_offset or [], recordings=recording or [], once=once, as_recorded=as_recorded, faults=fault or [], fault_count=faults,
            fault_kinds=[kind for kind in fault_kinds.split(",") if kind], fault_file=fault_file, max_age=max_age, limits=limits,
            write_instruments=write_instruments, exit_after=exit_after,
        )
    )  # fmt: skip


@app.command()
def live() -> None:
    """Feed from the real exchanges and run the flow, as supervised processes with one console; Ctrl-C stops all."""
    from cli import live as command

    command.live()


@app.command()
def demo(*, once: Annotated[bool, typer.Option("--once", help="stop at the end of the recordings")] = False) -> None:
    """Trade real recordings in a simulator, feed from it, run the flow; print a summary and a candle chart; go on until Ctrl-C.

    Uses a home of its own: K2_HOME, or .k2/demo when that is not set.
    """
    from cli import demo as command

    command.demo(once=once)


@app.command()
def version() -> None:
    """Print the version of K2 and of the engines it uses."""
    from cli.version import version_lines

    for line in version_lines():
        typer.echo(line)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the contract's code."""
    line = list(sys.argv[1:] if arguments is None else arguments)
    debug = DEBUG in line
    line = [word for word in line if word != DEBUG]
    _show_own_warnings_only(debug=debug)
    try:
        app(line, prog_name="k2")
    except PipelineError as error:
        _fail(str(error), error.exit_code, debug=debug)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED, debug=debug)
    except OSError as error:  # a disk that is full, read-only or gone: not ours to prevent, and no riddle
        where = f"{error.filename}: " if error.filename is not None else ""
        _fail(f"{where}{error.strerror or error or type(error).__name__}", FAILED, debug=debug)
    except Exception as error:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        _fail(f"unexpected error: {text} (add {DEBUG} to see where)", FAILED, debug=debug)


def _fail(message: str, code: int, *, debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()
    with contextlib.suppress(OSError):  # stderr on a full disk: the code still says it
        typer.echo(f"k2: {message}", err=True)
    sys.exit(code)


def _show_own_warnings_only(*, debug: bool) -> None:
    # Libraries warn about each other; a person at the command line wants to hear only of what they can change.
    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if debug or category is UserWarning:
            typer.echo(f"k2: warning: {message}", err=True)

    warnings.showwarning = show


if __name__ == "__main__":
    main()
