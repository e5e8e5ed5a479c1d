"""Run the flow as `k2 run` does: lock, recovery folder, drain on signals, and the last commits waited for."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from bytewax.recovery import InconsistentPartitionsError, MissingPartitionsError, NoPartitionsError, RecoveryConfig, init_db_dir

from config.settings import Settings
from dataflows.composition import Platform
from dataflows.draining import drained_by_signals
from dataflows.engine import Control
from dataflows.lock import ExecutionLock
from dataflows.ohlcv import build_flow
from dataflows.process import settle
from market.errors import PipelineError, PositionLost, Refused

log = structlog.get_logger()
EXPIRE_SECONDS: Final = 60.0
SWITCH_SECONDS: Final = 0.001  # commits in the background must not hold up the newest candles (p99 46 → 32 ms)
RECOVERY_PARTITIONS: Final = 1  # one file per execution: fewest fsyncs, and a backup of it is consistent
DAMAGED: Final = (InconsistentPartitionsError, MissingPartitionsError, NoPartitionsError, sqlite3.DatabaseError)


def run(settings: Settings, *, until_end: bool = False, take_over: bool = False, watch: Callable[[Platform], None] | None = None) -> None:
    """Run the flow until it is told to stop, or (`until_end`) to the end offsets seen at the start.

    Returns when everything read is committed in both stores, frontiers included. SIGTERM and SIGINT drain.

    Args:
        settings: of this platform.
        until_end: stop at the end offsets seen at the start.
        take_over: end a process that holds the recovery folder first.
        watch: called with the platform once it is built; to show progress, say.

    Raises:
        Locked, Fenced, PositionLost, Refused: not safe to go on (exit code 3).
        PipelineError: anything else that stopped the flow.
    """
    control = Control()
    with ExecutionLock(settings.recovery_dir) as lock:
        lock.acquire(take_over=take_over)
        folder = prepare_recovery(settings.recovery_dir)
        platform = Platform(settings, control)
        try:
            with platform.registered(), drained_by_signals(control):
                flow = build_flow(platform, until_end=until_end)
                if watch is not None:
                    watch(platform)
                with _expiring(platform):
                    _execute(flow, control, settings, folder)
                control.saved.update(control.position)  # a flow that has ended well has saved where it ended
                platform.expire_raw(time.time_ns() // 1000)
        finally:
            platform.close()


def _execute(flow: object, control: Control, settings: Settings, folder: Path) -> None:
    os.environ["RUST_BACKTRACE"] = "0"
    sys.setswitchinterval(SWITCH_SECONDS)
    settle()
    began = time.monotonic()
    with _engine_noise(settings.home / "logs" / "engine.log"):
        _run_engine(flow, control, settings, folder)
    if control.failure is not None:
        raise control.failure
    log.info("flow_ended", records=control.records, seconds=round(time.monotonic() - began, 3))


def _run_engine(flow: object, control: Control, settings: Settings, folder: Path) -> None:
    from bytewax._bytewax import cli_main

    try:
        cli_main(  # type: ignore[no-untyped-call]
            flow,
            epoch_interval=timedelta(seconds=float(settings.epoch_interval)),
            recovery_config=RecoveryConfig(folder, timedelta(0)),
        )
    except DAMAGED as error:
        raise Refused(f"the recovery folder {folder} is damaged ({error}): run `k2 recover`") from error
    except BaseException as error:
        if isinstance(control.failure, PipelineError):
            raise control.failure from error
        if _mentions_damage(error):
            raise Refused(f"the recovery folder {folder} is damaged ({error}): run `k2 recover`") from error
        raise


@contextlib.contextmanager
def _expiring(platform: Platform) -> Iterator[None]:
    # Retention is housekeeping: a failure of it is a warning, and the next round tries again.
    ended = threading.Event()

    def expire() -> None:
        while not ended.wait(EXPIRE_SECONDS):
            try:
                dropped = platform.expire_raw(time.time_ns() // 1000)
            except PipelineError as error:
                log.warning("raw_retention_failed", reason=str(error))
            else:
                if dropped:
                    log.info("raw_records_expired", records=dropped)

    thread = threading.Thread(target=expire, name="raw-retention", daemon=True)
    if platform.settings.raw_retention > 0:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.is_alive():
            thread.join(EXPIRE_SECONDS)


@contextlib.contextmanager
def _engine_noise(file: Path) -> Iterator[None]:
    # The engine reports every failure as a panic with its own trace on file descriptor 2. What a person should read is our
    # one message, so the descriptor goes to a file while Python's stderr stays where it was.
    file.parent.mkdir(parents=True, exist_ok=True)
    terminal = sys.stderr
    kept = os.dup(2)
    noise = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    terminal.flush()
    os.dup2(noise, 2)
    os.close(noise)
    sys.stderr = os.fdopen(os.dup(kept), "w", buffering=1)
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = terminal
        os.dup2(kept, 2)
        os.close(kept)


def _mentions_damage(error: BaseException | None) -> bool:
    # The engine reports a damaged store as a bare exception whose text names the SQLite error.
    while error is not None:
        text = f"{type(error).__name__} {error}"
        if any(sign in text for sign in ("DatabaseCorrupt", "NotADatabase", "malformed", "file is not a database", "routing map")):
            return True
        error = error.__cause__ or error.__context__
    return False


def prepare_recovery(folder: Path) -> Path:
    """Create the recovery store unless it is there, whole or not at all; an empty folder counts as absent."""
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.glob("part-*.sqlite3")):
        made = folder / ".new"  # of a process that was killed meanwhile, perhaps
        shutil.rmtree(made, ignore_errors=True)
        if any(folder.iterdir()):
            raise Refused(
                f"{folder} holds files but no recovery store: it is damaged or not ours. Run `k2 recover`, or point K2_RECOVERY_DIR elsewhere"
            )
        made.mkdir()
        init_db_dir(made, RECOVERY_PARTITIONS)
        for part in made.iterdir():  # one: it is there whole, or not
            part.rename(folder / part.name)
        made.rmdir()
        log.info("recovery_folder_created", folder=str(folder))
    return folder


def recover(settings: Settings, now: datetime) -> Path | None:
    """Move a lost or damaged recovery folder aside; the next run starts at the log's start, hidden behind the frontiers.

    Returns:
        Where the old folder went, or None when there was none.

    Raises:
        Locked: a flow is running.
        PositionLost: the log no longer begins at its beginning, so a fresh state could not know which ids were seen.
    """
    with ExecutionLock(settings.recovery_dir) as lock:
        lock.acquire()
        platform = Platform(settings, Control())
        try:
            expired = platform.expired_shards()
        finally:
            platform.close()
        if expired:
            where = ", ".join(f"{shard} starts at {start}" for shard, start in sorted(expired.items()))
            raise PositionLost(
                f"the log's beginning has expired ({where}) and tables hold rows of it: a fresh start could not tell which trade ids "
                f"were seen. Restore {settings.recovery_dir} from a backup, or load the missing records into a new K2_HOME"
            )
        folder = settings.recovery_dir
        aside = None
        if folder.exists() and any(folder.iterdir()):
            aside = folder.with_name(f"{folder.name}.{now:%Y%m%dT%H%M%S}")
            folder.rename(aside)
        prepare_recovery(folder)
        return aside
