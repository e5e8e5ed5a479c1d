"""`k2 feed`: live trades of the listed instruments into the raw topics."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import structlog
from rich.console import Console
from rich.live import Live
from rich.text import Text

from cli.logs import configure_logs
from cli.screen import say
from cli.simulated_clock import SimulatedClock
from cli.streams import keep_streams
from config.run_file import change_pids, read_run, update_run
from config.settings import METRICS_OFF, Settings, load_settings
from connectors.instruments import find_exchange, load_instruments
from connectors.live.feed_process import FeedProcess
from connectors.live.spill_folders import open_spills
from connectors.topics.registry import open_log
from dataflows.process import settle
from market.errors import ConfigError, FatalError, PipelineError
from market.instrument import Instruments

log = structlog.get_logger()
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
_LOOK_S: Final = 1.0
_MEGABYTE: Final = 1 << 20
_M_ARENA_MAX: Final = -8  # of mallopt
_DISK_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
SWITCH_SECONDS: Final = 0.001  # the writer's thread asks for the interpreter after each statement of SQLite


def now_us() -> int:
    """Return the wall clock, epoch µs."""
    return time.time_ns() // 1_000


def feed(exchanges: Sequence[str], name: str | None, *, simulated_clock: bool = False) -> None:
    """Feed until SIGTERM or Ctrl-C.

    Args:
        exchanges: only these; empty: all that are listed.
        name: of this feed; None: made of host and process.
        simulated_clock: take the time of the simulator that stands in for the venues.

    Raises:
        ConfigError: a symbol or exchange is not known, or the name is none.
        Locked: a feed of this name runs in this home.
        FatalError: records were lost, or the disk of the home is full or broken.
    """
    settings = load_settings()
    configure_logs(logging.INFO)
    keep_pandas_out()
    keep_memory_small()
    stamp = _stamp(settings.instruments)  # before it is read: what changes from here on is seen
    listed = _chosen(load_instruments(settings), exchanges)
    name = _name(name)
    clock = SimulatedClock(settings.venues_url) if simulated_clock else None
    time_us = now_us if clock is None else clock.now_us
    keep_streams(settings.home, listed)
    spills = open_spills(settings.home / "feed", name)
    topics = open_log(settings)
    process = FeedProcess(
        f"{name}-{int(time.time()):x}",
        topics,
        settings.partitions,
        spills,
        spill_bytes=settings.feed_spill_limit * _MEGABYTE,
        venues_url=settings.venues_url,
        now_us=time_us,
        open_log=lambda: open_log(settings),
        clock_speed=1.0 if clock is None else clock.speed,
        begun=settle,
    )
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        with _announced(settings, name, process, time_us):
            emptied = asyncio.run(_run(process, listed, partial(_follow_list, process, settings, exchanges, stamp)))
        if emptied:
            topics.close()
        else:  # not closed: an append that hangs would be waited for
            waiting = process.outbox.backlog().spill_bytes
            say(f"{waiting:,} bytes wait in {settings.home / 'feed'}: the next `k2 feed` of this home writes them")
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise FatalError(f"{error.filename or settings.home}: {error.strerror}") from error
    finally:
        spills.close()


def keep_pandas_out() -> None:
    """Let pyarrow find no pandas in this process: it imports it to ask whether a list is a DataFrame, 50 MB and half a second."""

    class _Nowhere:
        @staticmethod
        def find_spec(name: str, _path: Any = None, _target: Any = None) -> None:
            if name == "pandas":
                raise ModuleNotFoundError(name)

    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, _Nowhere)


def keep_memory_small() -> None:
    """Take memory from the C library, in two arenas, before threads have arenas of their own: 14 MB less while a topic is down."""
    pa.set_memory_pool(pa.system_memory_pool())
    with contextlib.suppress(AttributeError):  # another C library than GNU's
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _chosen(listed: Mapping[str, Instruments], exchanges: Sequence[str]) -> dict[str, Instruments]:
    if not exchanges:
        return dict(listed)
    chosen = [find_exchange(listed, name) for name in exchanges]
    return {instruments.exchange: instruments for instruments in chosen}


def _name(given: str | None) -> str:
    name = given if given is not None else f"{re.sub('[^A-Za-z0-9-]', '-', socket.gethostname())[:40].strip('-') or 'host'}-{os.getpid()}"
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--name {name!r}: letters, digits, '.', '_' and '-' make a name, 60 at most")
    return name


@contextlib.contextmanager
def _announced(settings: Settings, name: str, process: FeedProcess, time_us: Callable[[], int]) -> Iterator[None]:
    # In the run file while it lives, with the address of its metrics.
    from prometheus_client import CollectorRegistry, start_http_server

    from connectors.live.feed_metrics import FeedCollector

    server, url = None, None
    if settings.feed_metrics != METRICS_OFF:
        registry = CollectorRegistry()
        registry.register(FeedCollector(process.counts, process.latency, process.outbox.backlog, time_us))
        host, _, port = settings.feed_metrics.rpartition(":")
        try:
            server, _thread = start_http_server(int(port), host, registry)
        except OSError as error:
            raise ConfigError(f"K2_FEED_METRICS={settings.feed_metrics}: {error.strerror}") from error
        url = f"http://{host}:{server.server_port}/metrics"
    own = os.getpid()
    try:
        change_pids(settings.home, "feed", lambda pids: [*(p for p in pids if _lives(p) and p != own), own])
        killed = {other: None for other, entry in read_run(settings.home).get("feeds", {}).items() if not _lives(entry["pid"])}
        update_run(settings.home, topics=settings.topics_url, feeds={**killed, name: {"pid": own, "metrics": url}})
        log.info("feed_started", name=name, metrics=url)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            _renounce(settings, name)
        raise
    else:
        _renounce(settings, name)
    finally:
        if server is not None:
            server.shutdown()
            server.server_close()


def _renounce(settings: Settings, name: str) -> None:
    change_pids(settings.home, "feed", lambda pids: [p for p in pids if p != os.getpid()])
    update_run(settings.home, feeds={name: None})


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def _run(
    process: FeedProcess, listed: Mapping[str, Instruments], follow: Callable[[asyncio.Event], Coroutine[Any, Any, None]]
) -> bool:
    stop, look = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, look.set)
    beside = [asyncio.create_task(follow(look))]
    if sys.stderr.isatty():
        beside.append(asyncio.create_task(_show(process)))
    try:
        return await process.run(listed, stop)
    finally:
        for task in beside:
            task.cancel()
        for error in await asyncio.gather(*beside, return_exceptions=True):
            if isinstance(error, Exception):
                log.error("feed_helper_failed", error=repr(error))


async def _follow_list(
    process: FeedProcess, settings: Settings, exchanges: Sequence[str], known: tuple[int, int, int] | None, look: asyncio.Event
) -> None:
    """Reread the instruments file when it is no longer the `known` one, or on SIGHUP; a list that is wrong changes nothing."""
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(look.wait(), _LOOK_S)
        stamp = _stamp(settings.instruments)
        if not look.is_set() and stamp == known:
            continue
        look.clear()
        known = stamp
        try:
            listed = _chosen(load_instruments(settings), exchanges)
            keep_streams(settings.home, listed)
            await process.change(listed)
        except (
            PipelineError,
            OSError,
        ) as error:  # a full disk too: what is fed already goes on, and the file is read again when it changes
            log.error("instruments_refused", error=str(error), kept="the list as it was")  # noqa: TRY400 the message is enough
        else:
            log.info("instruments_reread", symbols={exchange: len(i) for exchange, i in listed.items()})


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


async def _show(process: FeedProcess) -> None:
    # One line on a terminal, redrawn each second; log lines stand above it.
    before: dict[str, int] = {}
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True, redirect_stdout=False) as live:
        while True:
            await asyncio.sleep(_LOOK_S)
            live.update(Text(status_line(process, before), no_wrap=True, overflow="ellipsis"), refresh=True)


def status_line(process: FeedProcess, before: dict[str, int], clock: Callable[[], float] = time.time) -> str:
    """Return how the feed is now; `before` keeps the message counts of the last call."""
    parts = []
    for exchange, counts in process.counts.items():
        rate = counts.messages - before.get(exchange, counts.messages)
        before[exchange] = counts.messages
        parts.append(f"{exchange} {len(counts.connections)} conn {rate:,}/s")
    backlog, latency = process.outbox.backlog(), process.latency.quantile(0.99)
    waiting = backlog.memory_bytes + backlog.spill_bytes
    state = f"{waiting / _MEGABYTE:,.1f} MB wait" if backlog.reachable else f"TOPIC DOWN, {waiting / _MEGABYTE:,.1f} MB wait"
    speed = "" if latency is None else f" · p99 ≤ {latency * 1000:.0f} ms"
    return f"{time.strftime('%H:%M:%S', time.gmtime(clock()))}  {' · '.join(parts) or 'connecting'}{speed} · {state}"
