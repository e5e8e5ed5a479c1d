"""`k2 export`: rows of a store, or raw records, as a file."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final

import polars as pl
import pyarrow as pa

from cli.arguments import one_of, parse_range
from cli.formats import FORMATS, write_rows
from cli.logs import configure_logs
from cli.reading import Reading, store_name
from cli.screen import Meter, meter, say
from config.settings import load_settings
from connectors.files.raw_file import export_raw
from maintenance.stored import COLD, MINUTE, WARM, Stored, Wanted, census, chunks
from market.errors import ConfigError
from market.interval import INTERVAL_NAMES
from market.schema import DEAD_LETTERS, OHLCV, SILVER_TRADES, TRADE_GAPS, Table

RAW: Final = "raw"
CANDLES: Final = "candles"
GAPS: Final = "gaps"
_TABLES: Final = {"trades": SILVER_TRADES, GAPS: TRADE_GAPS, "dead-letters": DEAD_LETTERS}
WHAT: Final = (CANDLES, *_TABLES, RAW)
_ORDER: Final = {
    CANDLES: ("exchange", "canonical_symbol", "window_start"),
    "trades": ("exchange", "timestamp", "canonical_symbol", "sequence_number", "trade_id"),
    GAPS: ("exchange", "canonical_symbol", "first_id", "source_offset", "source_index"),
    "dead-letters": ("exchange", "receive_time", "source_partition", "source_offset", "source_index"),
}
_CHUNK_ROWS: Final = 200_000  # held and sorted at once


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asked for, as typed."""

    what: str
    exchange: str | None
    symbol: str | None
    interval: str
    start: str | None
    end: str | None
    store: str
    form: str
    output: Path | None
    open_candles: bool
    now: bool


def export(request: Request) -> None:
    """Write the file.

    Raises:
        ConfigError: something asked for is unknown, or does not go together.
    """
    configure_logs()
    what = one_of("export", request.what, WHAT)
    form = one_of("format", request.form, FORMATS)
    store = store_name(request.store)
    start_us, end_us = parse_range(request.start, request.end)
    table = OHLCV[one_of("interval", request.interval, INTERVAL_NAMES)] if what == CANDLES else _TABLES.get(what, SILVER_TRADES)
    _check(request, what, store)
    with Reading(load_settings()) as reading:
        wanted = replace(reading.wanted(request.exchange, request.symbol), start_us=start_us, end_us=end_us)
        wanted = replace(wanted, closed=what == CANDLES and not request.open_candles)
        if what == RAW:
            _export_raw(reading, str(wanted.exchange), request.output)
            return
        if sys.stdout.isatty() and request.output is None and form in ("parquet", "arrow"):
            raise ConfigError(f"{form} is not for a terminal: name a file with -o, or redirect")
        opened = reading.opened(store)
        with meter(f"exporting {what}") as shown:
            batches = _now(reading, store, wanted) if request.now else _ordered(opened, table, wanted, _ORDER[what], shown)
            with _output(request.output) as out:
                rows = write_rows(out, form, table.arrow_schema(warm=True), batches)
    if request.output is not None:
        say(f"{request.output}: {rows:,} rows")


def _check(request: Request, what: str, store: str) -> None:
    if request.open_candles and (what != CANDLES or store == COLD):
        raise ConfigError(f"--open is for candles of the {WARM} store: the cold store holds closed ones only")
    if request.now and (what != GAPS or request.start is not None or request.end is not None):
        raise ConfigError("--now is for gaps, without --from and --to")
    if what == RAW:
        if request.exchange is None:
            raise ConfigError("raw records are exported by exchange: add --exchange")
        if request.form.strip().lower() not in {"csv", "jsonl"}:  # csv: nothing was asked for
            raise ConfigError("raw records are JSON lines, which `k2 load` reads: leave out --format")
        if request.symbol is not None or request.start is not None or request.end is not None:
            raise ConfigError(
                "raw records are exported whole, so that they can be loaded as they were: leave out --symbol, --from and --to"
            )


def _export_raw(reading: Reading, exchange: str, output: Path | None) -> None:
    lines = 0
    with meter("exporting raw records") as shown, _output(output) as out:
        for block in export_raw(reading.log, exchange, shown.show):
            out.write(block)
            lines += block.count(b"\n")
    if output is not None:
        say(f"{output}: {lines:,} records")


def _now(reading: Reading, store: str, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    yield from reading.gaps_now(store, wanted).to_arrow().cast(TRADE_GAPS.arrow_schema(warm=True)).to_batches()


def _ordered(store: Stored, table: Table, wanted: Wanted, order: Sequence[str], shown: Meter) -> Iterator[pa.RecordBatch]:
    """Yield rows in order, a chunk at a time; symbols before time where the order says so."""
    schema = table.arrow_schema(warm=True)
    by_symbol = order[1] == "canonical_symbol"
    counted = census(store, table, wanted, ["exchange", "canonical_symbol", MINUTE] if by_symbol else ["exchange", MINUTE])
    total, done = int(counted["len"].sum()), 0
    for part in _parts(counted, wanted, by_symbol=by_symbol):
        rows = pa.Table.from_batches(store.rows(table, part, schema.names), schema)
        # Only the keys go through polars: it has no map type.
        place = pl.DataFrame(rows.select(list(order))).with_row_index("place").sort(order)["place"]
        yield from rows.take(place.to_arrow()).to_batches()
        done += rows.num_rows
        shown.show(done, total)


def _parts(counted: pl.DataFrame, wanted: Wanted, *, by_symbol: bool) -> Iterator[Wanted]:
    for (exchange,), mine in counted.group_by(["exchange"], maintain_order=True):
        own = replace(wanted, exchange=str(exchange))
        if not by_symbol or (wanted.symbols is not None and len(wanted.symbols) == 1):
            yield from chunks(mine, own, _CHUNK_ROWS)
            continue
        together: list[str] = []
        rows = 0
        for (symbol,), rows_of in mine.group_by(["canonical_symbol"], maintain_order=True):
            count = int(rows_of["len"].sum())
            if together and rows + count > _CHUNK_ROWS:
                yield replace(own, symbols=tuple(together))
                together, rows = [], 0
            if count > _CHUNK_ROWS:
                yield from chunks(rows_of, replace(own, symbols=(str(symbol),)), _CHUNK_ROWS)
            else:
                together.append(str(symbol))
                rows += count
        if together:
            yield replace(own, symbols=tuple(together))


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[IO[bytes]]:
    """Open stdout, or a file that appears under its name only when it is complete."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if path.is_dir():
        raise ConfigError(f"cannot write {path}: Is a directory")
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)  # as `open` would have made it
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
