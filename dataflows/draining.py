"""SIGTERM and SIGINT as a request to drain: sources end, the epoch closes, sinks commit."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import structlog

from dataflows.engine import Control

log = structlog.get_logger()


@contextlib.contextmanager
def drained_by_signals(control: Control) -> Iterator[None]:
    """Let SIGTERM and SIGINT request a drain meanwhile."""
    before = drain_on_signals(control)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def drain_on_signals(control: Control) -> dict[signal.Signals, object]:
    """Let SIGTERM and SIGINT request a drain; returns the handlers that were there. Nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}

    def drain(number: int, _frame: object) -> None:
        log.info("draining", signal=signal.Signals(number).name)
        control.draining.set()

    return {number: signal.signal(number, drain) for number in (signal.SIGTERM, signal.SIGINT)}
