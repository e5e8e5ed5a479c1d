"""`k2 up` and `k2 down`: what runs in a home."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

from cli.logs import configure_logs
from cli.screen import say
from config.run_file import change_pids, read_run, update_run
from config.settings import Settings, load_settings
from market.errors import Locked, Refused
from sinks import warm_store

DRAIN_SECONDS: Final = 60.0
_OURS: Final = ("k2", "cli.main", "cli.tied", "bytewax", "dataflows.ohlcv")


def up() -> None:
    """Start the embedded warm store, create topics and prepare the tables of both stores."""
    settings = load_settings()
    configure_logs()
    from dataflows.composition import Platform

    platform = Platform(settings)
    try:
        platform.shards()
        platform.warm.prepare()
        platform.cold.prepare()
    finally:
        platform.close()
    update_run(settings.home, topics=settings.topics_url, cold=settings.cold_url)
    where = read_run(settings.home).get("warm", {}).get("url") if settings.warm_is_embedded else settings.warm_url
    say(f"topics      {settings.topics_url}")
    say(f"warm store  {where}")
    say(f"cold store  {settings.cold_url}")
    if settings.warm_is_embedded:
        say(f"users and passwords are in {settings.home}/run.json; k2_reader may only read")


def down() -> None:
    """Stop the feeds of this home, drain its flow, then stop its warm store.

    Raises:
        Refused: a process did not end; a flow would start the warm store again.
    """
    settings = load_settings()
    feeds = feed_pids(settings)
    for pid in feeds:
        say(f"stopping the feed, process {pid}")
        _end(pid, "feed", "stop it")
    if feeds:
        change_pids(settings.home, "feed", lambda pids: [pid for pid in pids if pid not in feeds])
    flows = flow_pids(settings)
    for pid in flows:
        say(f"draining the flow, process {pid}")
        _end(pid, "flow", "stop it, or replace it with `k2 run --take-over`")
    if flows:
        update_run(settings.home, pids={"flow": []})
    if not settings.warm_is_embedded:
        say(f"the warm store {settings.warm_url} is not ours to stop")
    elif warm_store.stop(settings.home):
        say("the warm store is stopped; its data stays")
    elif not (flows or feeds):
        say(f"nothing runs in {settings.home}")


def feed_pids(settings: Settings) -> list[int]:
    """Return the processes that feed this home: those that the run file names and that still are feeds."""
    pids = read_run(settings.home).get("pids", {}).get("feed", [])
    return [pid for pid in pids if _is_ours(pid) and pid != os.getpid()]


def flow_pids(settings: Settings) -> list[int]:
    """Return the processes that run the flow of this home: who holds the lock, and what the run file names and still is a flow."""
    pids = [pid for pid in read_run(settings.home).get("pids", {}).get("flow", []) if _is_ours(pid)]
    holder = _lock_holder(settings)
    if holder is not None and holder not in pids:
        pids.append(holder)
    return [pid for pid in pids if pid != os.getpid()]


def is_flow_running(settings: Settings) -> bool:
    """Return whether a process holds the lock of this home's flow."""
    from dataflows.lock import ExecutionLock

    with ExecutionLock(settings.recovery_dir) as lock:
        try:
            lock.acquire()
        except Locked:
            return True
    return False


def _lock_holder(settings: Settings) -> int | None:
    from dataflows.lock import ExecutionLock

    lock = ExecutionLock(settings.recovery_dir)
    if not lock.path.exists():
        return None
    try:
        lock.acquire()
    except Locked:
        text = lock.path.read_text().strip()
        return int(text) if text.isdigit() else None
    lock.release()
    return None


def _is_ours(pid: object) -> bool:
    # A process id is used again after a while: only a process that looks like one of ours is taken for one.
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(word.decode(errors="replace").rsplit("/", 1)[-1].startswith(_OURS) for word in words)


def _end(pid: int, what: str, way_out: str) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise Refused(f"process {pid} is a {what} of this home and belongs to another user: stop it there first") from error
    deadline = time.monotonic() + DRAIN_SECONDS
    while _alive(pid):
        if time.monotonic() >= deadline:
            raise Refused(f"the {what}, process {pid}, has not ended within {DRAIN_SECONDS:.0f} s: {way_out}")
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in {"Z", "X"}
    except (OSError, IndexError):
        return False
