"""The process that keeps a home's warm store running: `python -m sinks.warm_supervisor HOME MEMORY_BYTES`.

It starts the engine, starts it again when it dies, always on the same port, and ends with it on SIGTERM. When it dies itself,
the engine notices the end of its standard input and stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from config.run_file import update_run
from sinks.endpoint import Endpoint, ask
from sinks.warm_files import Files, holder, port_is_free, sign_lock, take_lock

READY_SECONDS: Final = 60.0  # a large store checks its parts when it opens
FAILURES: Final = 4  # starts in a row that failed; then a person has to look
BACK_OFF: Final = (0.0, 0.2, 1.0, 3.0, 5.0)
LOOK_SECONDS: Final = 2.0  # how often the home is looked for
LIVED_SECONDS: Final = 20.0  # an engine that lived this long does not count as a failing one
ENGINE_STOP_SECONDS: Final = 30.0
LEFTOVER_SECONDS: Final = 5.0


class Supervisor:
    """One engine kept alive."""

    def __init__(self, files: Files, memory_bytes: int) -> None:
        self._files = files
        self._memory_bytes = memory_bytes
        self._engine: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def run(self) -> int:
        """Keep the engine running until told to stop; returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        failures, quick_deaths = 0, 0
        while not self._stopping:
            started = time.monotonic()
            ready = self._start()
            if ready and self._engine is not None:
                failures = 0
                status = self._watch(self._engine)
                if status is None:
                    self._end_engine()
                    return 0
                quick_deaths = 0 if time.monotonic() - started > LIVED_SECONDS else quick_deaths + 1
                if not self._stopping:
                    _say("warm_engine_died", pid=self._engine.pid, status=status)
            elif not self._stopping:
                failures += 1
                _say("warm_engine_start_failed", attempt=failures)
                if failures >= FAILURES:
                    break
            self._pause(BACK_OFF[min(max(failures, quick_deaths - 1), len(BACK_OFF) - 1)])
        self._end_engine()
        update_run(self._files.home, pids={"warm": None})
        _say("warm_store_stopped", asked=self._stopping)
        return 0 if self._stopping else 1

    def _watch(self, engine: subprocess.Popen[bytes]) -> int | None:
        # None: the home was removed. What would serve it nobody can find or stop any more.
        while True:
            try:
                return engine.wait(LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                if not self._files.supervisor_lock.exists():
                    return None

    def _start(self) -> bool:
        end_leftover(self._files)
        endpoint = self._files.choose()
        port = self._files.port()
        if port is not None and not port_is_free(port):
            endpoint = self._files.choose(taken=port)
            _say("warm_port_taken", port=port, chosen=self._files.port())
        self._files.write_engine_config(endpoint, self._memory_bytes)
        self._engine = subprocess.Popen(  # noqa: S603 our own interpreter and paths
            [sys.executable, "-P", "-m", "sinks.warm_engine", str(self._files.home)],
            stdin=subprocess.PIPE,  # our death ends it
            cwd=self._files.home,
        )
        deadline = time.monotonic() + READY_SECONDS
        while self._engine.poll() is None and time.monotonic() < deadline and not self._stopping:
            version = ask(endpoint, "SELECT version()")
            if version is not None:
                self._publish(endpoint, self._engine.pid, version)
                return True
            time.sleep(0.01)
        if self._engine.poll() is None and not self._stopping:
            self._engine.kill()
            self._engine.wait()
        return False

    def _publish(self, endpoint: Endpoint, pid: int, version: str) -> None:
        warm = {
            "url": endpoint.url,
            "user": endpoint.user,
            "password": endpoint.password,
            "reader_user": endpoint.reader_user,
            "reader_password": endpoint.reader_password,
        }
        update_run(self._files.home, warm=warm, pids={"warm": pid})
        _say("warm_engine_ready", pid=pid, url=endpoint.url, version=version)

    def _stop(self, number: int, _frame: object) -> None:
        self._stopping = True
        if self._engine is not None:
            with contextlib.suppress(ProcessLookupError):
                self._engine.send_signal(number)

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < deadline:
            time.sleep(min(0.05, seconds))

    def _end_engine(self) -> None:
        if self._engine is None or self._engine.poll() is not None:
            return
        self._engine.terminate()
        try:
            self._engine.wait(ENGINE_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _say("warm_engine_killed", pid=self._engine.pid)
            self._engine.kill()
            self._engine.wait()


def end_leftover(files: Files) -> None:
    """End an engine whose supervisor is gone: it stops by itself, unless it hangs."""
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while (pid := holder(files.engine_lock)) is not None:
        if time.monotonic() > deadline and pid > 0:
            _say("warm_leftover_killed", pid=pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + LEFTOVER_SECONDS
        time.sleep(0.02)


def _say(event: str, **facts: object) -> None:
    line = {"timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
    print(json.dumps(line), file=sys.stderr, flush=True)  # noqa: T201 standard error is the log file


def main() -> None:
    """Take the lock, leave the starter's process family and supervise."""
    files = Files(Path(sys.argv[1]))
    lock = take_lock(files.supervisor_lock)
    if lock is None:
        return
    if os.fork() > 0:
        os._exit(0)  # the child holds the lock on: they share the open file
    sign_lock(lock)
    sys.exit(Supervisor(files, int(sys.argv[2])).run())


if __name__ == "__main__":
    main()
