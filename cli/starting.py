"""How commands that run until they are told to stop begin: their imports alone take a second."""

from __future__ import annotations

import contextlib
import gc
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the process with exit code 0, and SIGHUP do nothing."""

    def end(_number: int, _frame: object) -> None:
        raise SystemExit(0)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def collected_later() -> Iterator[None]:
    """Keep the garbage collector still during imports: what they make stays, and looking at it again and again is a fifth of their time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
