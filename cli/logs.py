"""Where log lines of a command go: to stderr, so that stdout holds results only."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TextIO, cast

import structlog


def configure_logs(level: int = logging.WARNING) -> None:
    """Send log lines at or above `level` to stderr: for people on a terminal, as JSON elsewhere."""
    terminal = sys.stderr.isatty()
    last = structlog.dev.ConsoleRenderer(colors=True) if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Stderr())),
        cache_logger_on_first_use=False,
    )


class _Stderr:
    """What stderr is at the moment of writing: the flow's runner puts another one in its place for a while.

    A line that cannot be written is lost: a full disk behind stderr must not stop what the line is about.
    """

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
