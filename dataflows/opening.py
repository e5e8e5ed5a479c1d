"""Writers that open in the background: a claim costs several round trips to a store, and the first trades need not wait for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from dataflows.engine import Writer
from market.output import TableOutput

WAITING_ROWS: Final = 100_000  # of one sink partition, while it is opened


class Opener:
    """Opens the sink partitions of one store, several at once."""

    def __init__(self, at_once: int, name: str) -> None:
        self._at_once, self._name = at_once, name
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, open_writer: Callable[[], Writer]) -> OpeningWriter:
        """Return a writer that takes outputs at once; what `open_writer` raises is raised by its first use afterwards."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._at_once, thread_name_prefix=self._name)
        return OpeningWriter(self._pool.submit(open_writer))

    def close(self) -> None:
        """Begin nothing more and wait for what is being opened."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


class OpeningWriter:
    """Keeps what is written until the writer is open, up to a bound. The barrier waits: it needs the writer's state."""

    def __init__(self, opening: Future[Writer]) -> None:
        self._opening = opening
        self._waiting: list[TableOutput] = []
        self._waiting_rows = 0

    def write(self, output: TableOutput) -> None:
        """Hand over, or keep."""
        self._waiting.append(output)
        self._waiting_rows += output.rows.num_rows
        if self._opening.done() or self._waiting_rows >= WAITING_ROWS:
            self._opened()

    def snapshot(self) -> bytes:
        """Close the epoch."""
        return self._opened().snapshot()

    def finish(self) -> None:
        """Bring everything to the store."""
        self._opened().finish()

    def abort(self) -> None:
        """Let go; never raises."""
        self._waiting.clear()
        self._opening.cancel()
        with contextlib.suppress(BaseException):  # that of the opening is on its way up already, or nobody's any more
            self._opening.result().abort()

    def _opened(self) -> Writer:
        writer = self._opening.result()
        waiting, self._waiting, self._waiting_rows = self._waiting, [], 0
        for output in waiting:
            writer.write(output)
        return writer
