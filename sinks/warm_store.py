"""The warm store of the embedded mode: a real ClickHouse endpoint that belongs to a home and outlives the commands using it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.run_file import exclusively, read_run, update_run
from market.errors import ConfigError, FatalError
from sinks.endpoint import Endpoint, ask
from sinks.warm_files import ENGINE_VERSION, Files, holder

__all__ = ["Endpoint", "WarmStatus", "check_version", "ensure", "status", "stop"]
MEMORY_BYTES: Final = 2_000_000_000
START_SECONDS: Final = 90.0
STOP_SECONDS: Final = 45.0
LOG_BYTES: Final = 5_000_000


@dataclass(frozen=True, slots=True)
class WarmStatus:
    """What is known of a home's warm store. `version` is None when it does not answer."""

    endpoint: Endpoint | None
    version: str | None
    engine_pid: int | None
    supervisor_pid: int | None

    @property
    def running(self) -> bool:
        """Whether it answers queries."""
        return self.version is not None


def ensure(home: Path, *, memory_bytes: int = MEMORY_BYTES, timeout_s: float = START_SECONDS) -> Endpoint:
    """Return the endpoint of a home's warm store, started if it does not run.

    Safe to call from several processes at once; blocks until a query works (0.3-1 s for a start).

    Args:
        home: folder of the platform.
        memory_bytes: most the engine may use; taken at its start.
        timeout_s: how long to wait for it.

    Raises:
        ConfigError: the folder cannot be used, or another engine version is installed.
        FatalError: it does not start; the message ends with its log.
    """
    files = Files(home)
    endpoint = files.endpoint()
    if endpoint is not None and (version := ask(endpoint, "SELECT version()")) is not None:
        check_version(version)
        _republish(files, endpoint)
        return endpoint
    check_version(_installed_version())
    files.create()
    with exclusively(files.start_lock):
        deadline = time.monotonic() + timeout_s
        while True:
            if holder(files.supervisor_lock) is None:
                _start_supervisor(files, memory_bytes)
            answer = _wait(files, deadline)
            if answer is not None:
                check_version(answer[1])
                return answer[0]
            if time.monotonic() < deadline and holder(files.supervisor_lock) is None:
                raise FatalError(f"the warm store in {files.data} does not start. Its logs end with:\n{files.log_tail()}")
            if time.monotonic() >= deadline:
                pids = f"supervisor {holder(files.supervisor_lock)}, engine {holder(files.engine_lock)}"
                raise FatalError(
                    f"the warm store in {files.data} does not answer within {timeout_s:.0f} s ({pids}): try `k2 down` and `k2 up`. "
                    f"Its logs end with:\n{files.log_tail()}"
                )


def stop(home: Path, *, timeout_s: float = STOP_SECONDS) -> bool:
    """Stop a home's warm store; what it has acknowledged stays.

    Returns:
        Whether anything was running.

    Raises:
        FatalError: a process survived SIGKILL.
    """
    files = Files(home)
    found = False
    # A supervisor that does not end in time, a stopped one for example, is killed; its engine after it.
    for path, gentle in ((files.supervisor_lock, True), (files.engine_lock, False)):
        pid = holder(path)
        if pid is None:
            continue
        found = True
        for number, seconds in ((signal.SIGTERM, timeout_s if gentle else 5.0), (signal.SIGKILL, 10.0)):
            pid = holder(path) or 0
            if pid > 0:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if _released(path, seconds):
                break
        else:
            raise FatalError(f"process {pid} of the warm store in {files.data} does not end")
    if found:
        update_run(files.home, pids={"warm": None})
    return found


def status(home: Path) -> WarmStatus:
    """Return what runs, without starting anything."""
    files = Files(home)
    endpoint = files.endpoint()
    version = ask(endpoint, "SELECT version()") if endpoint is not None else None
    return WarmStatus(endpoint, version, holder(files.engine_lock), holder(files.supervisor_lock))


def check_version(version: str) -> None:
    """Refuse an engine that this version of the platform was not tested with.

    Raises:
        ConfigError: with both versions and the way out.
    """
    if not version.startswith(ENGINE_VERSION):
        raise ConfigError(
            f"the warm store's engine has version {version}, this platform is made for {ENGINE_VERSION}*: run `make setup`, then `k2 down`"
        )


def _installed_version() -> str:
    try:
        return importlib.metadata.version("chdb-core")
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError("the package chdb-core, the engine of the embedded warm store, is not installed: run `make setup`") from error


def _start_supervisor(files: Files, memory_bytes: int) -> None:
    if files.supervisor_log.exists() and files.supervisor_log.stat().st_size > LOG_BYTES:
        files.supervisor_log.replace(files.supervisor_log.with_suffix(".log.1"))
    with files.supervisor_log.open("ab") as log:
        # It detaches at once: neither a terminal's Ctrl-C nor the end of this process reaches it.
        subprocess.run(  # noqa: S603 our own interpreter and paths
            [sys.executable, "-P", "-m", "sinks.warm_supervisor", str(files.home), str(memory_bytes)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=files.home,
            start_new_session=True,
            check=False,
            timeout=30,
        )


def _wait(files: Files, deadline: float) -> tuple[Endpoint, str] | None:
    """Return endpoint and version once a query works; None when the supervisor ended or time is up."""
    while time.monotonic() < deadline:
        endpoint = files.endpoint()
        version = ask(endpoint, "SELECT version()") if endpoint is not None else None
        if endpoint is not None and version is not None and _is_published(files, endpoint):
            return endpoint, version
        if holder(files.supervisor_lock) is None:
            return None
        time.sleep(0.02)
    return None


def _republish(files: Files, endpoint: Endpoint) -> None:
    # Somebody removed the run file while the store was running.
    if not _is_published(files, endpoint):
        warm = {"url": endpoint.url, "user": endpoint.user, "password": endpoint.password}
        reader = {"reader_user": endpoint.reader_user, "reader_password": endpoint.reader_password}
        update_run(files.home, warm={**warm, **reader}, pids={"warm": holder(files.engine_lock)})


def _is_published(files: Files, endpoint: Endpoint) -> bool:
    run = read_run(files.home)
    return bool(run.get("warm", {}).get("url") == endpoint.url and run.get("pids", {}).get("warm") == holder(files.engine_lock))


def _released(path: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while holder(path) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
