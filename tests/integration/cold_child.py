"""A flow in small for kill tests: reads a made-up log, writes three tables, saves state at each epoch, may be killed at any moment.

Started once with all imports done; each line on stdin starts one run in a forked child and is answered by its pid.
Lines: `<folder> <end> <seed>`. A run resumes from `<folder>/state`, reads up to `end`, drains, writes `<folder>/done`.
"""

from __future__ import annotations

import gc
import os
import pickle
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import structlog

from market.errors import Fenced
from market.schema import OHLCV, SILVER_TRADES, Change, Table, bronze_table
from sinks.iceberg import open_catalog
from sinks.iceberg.table import ColdTable
from tests.gold_rows import MINUTE, changes_of, gold_row, status_row
from tests.integration.cold_outputs import batch, url_of
from tests.integration.warm_outputs import EXCHANGE

BRONZE = bronze_table(EXCHANGE)
CANDLES = OHLCV["1m"]
TABLES: tuple[Table, ...] = (SILVER_TRADES, BRONZE, CANDLES)
BATCH = 20
PARTITION = 3


def changes_at(first: int) -> list[tuple[Change, dict[str, Any]]]:
    """Return what the records [first, first + BATCH) do to candles; a function of `first` alone."""
    number = first // BATCH
    window = number // 2 * MINUTE
    rows = [(Change.ROW, gold_row(first, window=window, trades=[(window + number, number + 1, "10", "1")], revision=number % 2))]
    if number % 5 == 4:
        old = number // 4 * MINUTE
        rows.append((Change.DELTA, gold_row(first + 3, window=old, trades=[(old + 7, 10_000 + number, "11", "0.5")])))
    if number % 7 == 6:
        rows.append((Change.STATUS, status_row(first + 9, window=number // 3 * MINUTE, is_complete=False)))
    return rows


def run(folder: Path, end: int, seed: int) -> None:
    rng = random.Random(seed)
    saved = pickle.loads((folder / "state").read_bytes()) if (folder / "state").exists() else {"position": 0, "tables": {}}
    position = saved["position"]
    catalog = open_catalog(url_of(folder))
    writers = {t.name: ColdTable(catalog, t, commit_interval_s=0.02) for t in TABLES}
    for table in TABLES:
        writers[table.name].open(saved["tables"].get(table.name))
    while position < end:
        for _ in range(rng.randint(1, 6)):
            if position < end:
                write(writers, position)
                position += BATCH
        save(folder, position, {name: writer.snapshot() for name, writer in writers.items()})
        time.sleep(rng.random() * 0.03)
    for writer in writers.values():
        writer.drain(60)
    (folder / "done").touch()


def write(writers: dict[str, ColdTable], position: int) -> None:
    for table in (SILVER_TRADES, BRONZE):
        writers[table.name].write(batch(position, BATCH, table=table, partition=PARTITION))
    writers[CANDLES.name].write(batch(position, BATCH, table=CANDLES, partition=PARTITION, rows_of=changes_of(changes_at(position))))


def save(folder: Path, position: int, tables: dict[str, bytes]) -> None:
    fresh = folder / f"state.{os.getpid()}"
    fresh.write_bytes(pickle.dumps({"position": position, "tables": tables}))
    fresh.rename(folder / "state")


def main() -> None:
    structlog.configure(processors=[structlog.processors.JSONRenderer()], logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        folder, end, seed = line.split()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                run(Path(folder), int(end), int(seed))
                code = 0
            except Fenced as error:
                (Path(folder) / f"fenced.{os.getpid()}").write_text(str(error))
                code = 3
            except BaseException as error:
                (Path(folder) / f"failed.{os.getpid()}").write_text(repr(error))
            finally:
                os._exit(code)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
