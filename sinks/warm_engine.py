"""The warm store's engine process: `python -m sinks.warm_engine HOME`, started by the supervisor only.

The chdb wheel holds a whole ClickHouse. Its low-level `query` runs the program clickhouse-local, in which one statement opens
the HTTP interface; it serves as long as the next statement runs. That entry is not a promised API: the version is pinned and
an integration test starts it.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import signal
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any, Final

from sinks.endpoint import ask
from sinks.warm_files import Files, take_lock

# Sleeping costs nothing, and unlike reading from a pipe it needs no right to read files.
SERVE: Final = (
    "SYSTEM START LISTEN HTTP; SELECT sleepEachRow(0.25) FROM numbers(1000000000000) FORMAT Null "
    "SETTINGS max_execution_time=0, max_block_size=1, function_sleep_max_microseconds_per_block=0"
)
STOP: Final = "KILL QUERY WHERE query LIKE 'SELECT sleepEachRow(0.25)%' ASYNC"
STOP_SECONDS: Final = 20.0


def load_engine() -> Any:
    """Return the wheel's extension module, without the package around it, which would open a second engine first."""
    spec = importlib.util.find_spec("chdb")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package chdb is not installed")
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    library = next((path for folder in folders for path in folder.glob("_chdb*.so")), None)
    if library is None:
        raise SystemExit("the package chdb-core is not installed")
    if sys.platform == "linux":
        # As the package does: its allocator must win over the interpreter's own symbols.
        ctypes.CDLL(str(library), mode=sys.getdlopenflags() | os.RTLD_DEEPBIND)
    package = types.ModuleType("chdb")
    package.__path__ = [str(library.parent)]
    sys.modules["chdb"] = package
    return importlib.import_module("chdb._chdb")


def serve(home: Path) -> int:
    """Serve a home's warm store until SIGTERM or until standard input ends, which is when the supervisor dies."""
    files = Files(home)
    if take_lock(files.engine_lock) is None:
        print(f"another engine serves {files.data}", file=sys.stderr, flush=True)  # noqa: T201 the supervisor's log
        return 1
    endpoint = files.endpoint()
    assert endpoint is not None  # noqa: S101 the supervisor chose it
    os.environ.update(HOME=str(files.engine), TMPDIR=str(files.temporary))
    os.chdir(files.home)  # icebergLocal() reads below the working directory only
    stop, ended = threading.Event(), threading.Event()

    def run() -> None:
        try:
            engine.query(SERVE, "TabSeparated", path=str(files.data))
        finally:
            ended.set()
            stop.set()

    def follow_supervisor() -> None:
        while os.read(0, 64):
            continue
        stop.set()

    engine = load_engine()
    threading.Thread(target=run, daemon=True).start()
    threading.Thread(target=follow_supervisor, daemon=True).start()
    # The engine sets handlers of its own while it starts; ours are set again until it is up.
    while not stop.is_set() and ask(endpoint, "SELECT 1") is None:
        stop.wait(0.01)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    if ended.is_set():
        return 1  # nobody asked: it could not start, see what it printed
    ask(endpoint, STOP)
    deadline = time.monotonic() + STOP_SECONDS
    while not ended.wait(0.2) and time.monotonic() < deadline:
        ask(endpoint, STOP)  # again and again: it may still be starting
    return 0 if ended.is_set() else 1


def main() -> None:
    """Run as a process; leaves at once at the end, since the engine's threads do not join."""
    status = 1
    try:
        status = serve(Path(sys.argv[1]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
