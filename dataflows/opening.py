"""Writers that open in the background: a claim costs several round trips to a store, and the first trades need not wait for it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
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
        return OpeningWriter(self._pool, open_writer)

    def close(self) -> None:
        """Begin nothing more and wait for what is being opened."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


class OpeningWriter:
    """Keeps what is written until the writer is open, up to a bound, and hands it over as soon as it is.

    The barrier waits: it needs the writer's state.
    """

    def __init__(self, pool: Executor, open_writer: Callable[[], Writer]) -> None:
        self._turn = threading.Lock()  # the writer is used by one thread at a time: at first by the one that opens it
        self._waiting: list[TableOutput] = []
        self._waiting_rows = 0
        self._writer: Writer | None = None
        self._opening = pool.submit(self._open, open_writer)

    def write(self, output: TableOutput) -> None:
        """Hand over, or keep."""
        with self._turn:
            if self._writer is not None:
                self._writer.write(output)
                return
            self._waiting.append(output)
            self._waiting_rows += output.rows.num_rows
        if self._opening.done() or self._waiting_rows >= WAITING_ROWS:
            self._opening.result()

    def snapshot(self) -> bytes:
        """Close the epoch."""
        return self._opening.result().snapshot()

    def finish(self) -> None:
        """Bring everything to the store."""
        self._opening.result().finish()

    def abort(self) -> None:
        """Let go; never raises."""
        with self._turn:
            self._waiting.clear()
        self._opening.cancel()
        with contextlib.suppress(BaseException):  # that of the opening is on its way up already, or nobody's any more
            self._opening.result().abort()

    def _open(self, open_writer: Callable[[], Writer]) -> Writer:
        writer = open_writer()
        with self._turn:
            try:
                for output in self._waiting:
                    writer.write(output)
            except BaseException:
                writer.abort()
                raise
            self._waiting.clear()
            self._writer = writer
        return writer
