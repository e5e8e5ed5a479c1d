"""A `k2` command that ends when the process that started it ends, however that ended: `python -m cli.tied COMMAND …`.

Its standard input is a pipe into which its starter writes nothing: the pipe's end is the starter's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

_OUTPUT = 1


def main() -> None:
    """Run the command line; a starter that is gone counts as SIGTERM."""
    threading.Thread(target=_follow_starter, name="starter", daemon=True).start()
    from cli.main import main as k2

    k2()


def _follow_starter() -> None:
    while os.read(0, 1):
        pass
    _write_to_nobody()
    os.kill(os.getpid(), signal.SIGTERM)


def _write_to_nobody() -> None:
    # What is printed while the command drains would fail: nobody reads the pipe any more, whatever else it is open as.
    gone = os.fstat(_OUTPUT)
    nothing = os.open(os.devnull, os.O_WRONLY)
    for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        with contextlib.suppress(OSError):  # the listing's own
            if os.path.samestat(os.fstat(number), gone):
                os.dup2(nothing, number)


if __name__ == "__main__":
    main()
