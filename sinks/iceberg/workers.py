"""Background threads of the Iceberg sink: few, shared by all tables of a process.

Writers encode and close data files; their work for one table stays in order (`Lane`). Commits run in a thread per table, through
a gate that lets only two at a time use the interpreter.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, Protocol, TypeVar

_T = TypeVar("_T")
WRITER_THREADS: Final = 2
COMMITS_AT_ONCE: Final = 2
MAX_WAITING_BYTES: Final = 16 << 20  # of all tables: more would only be left for the barrier


class Flushes(Protocol):
    """A table that can begin to close its files before its own barrier comes."""

    def begin_flush(self) -> None:
        """Start closing the files of this epoch, in the background."""

    def hurry(self) -> None:
        """Commit what waits now rather than at its time."""


class Workers:
    """Writer threads and the commit gate of one process."""

    def __init__(self, threads: int = WRITER_THREADS) -> None:
        self.gate = threading.Semaphore(COMMITS_AT_ONCE)
        self._tables: list[Flushes] = []
        self._waiting = 0  # bytes handed over and not written yet
        self._room = threading.Condition()
        self._ready: deque[Lane] = deque()
        self._wake = threading.Condition()
        self._threads = threads
        self._started: list[threading.Thread] = []
        self._closed = False

    def join(self, table: Flushes) -> None:
        """Let a table take part in barriers; starts the threads for the first one."""
        with self._wake:
            self._tables.append(table)
            self._closed = False
            while len(self._started) < self._threads:
                thread = threading.Thread(target=self._run, name=f"iceberg-writer-{len(self._started)}", daemon=True)
                self._started.append(thread)
                thread.start()

    def leave(self, table: Flushes) -> None:
        """Take a table out; the last one ends the threads once their queues are empty."""
        with self._wake:
            self._tables = [t for t in self._tables if t is not table]
            if self._tables:
                return
            self._closed = True
            self._started.clear()
            self._wake.notify_all()

    def begin_barrier(self) -> None:
        """Let all tables begin to close their files at once: the engine asks them one after the other."""
        for table in self._snapshot():
            table.begin_flush()

    def hurry(self) -> None:
        """Let all tables commit now: the engine drains them one after the other."""
        for table in self._snapshot():
            table.hurry()

    def _snapshot(self) -> list[Flushes]:
        with self._wake:
            return list(self._tables)

    def is_idle(self) -> bool:
        """Return whether nothing waits to be written: then a smaller piece of work costs nobody anything."""
        return self._waiting == 0

    def takes(self, size: int) -> None:
        """Count bytes that are handed over."""
        with self._room:
            self._waiting += size

    def wrote(self, size: int) -> None:
        """Count bytes that are written."""
        with self._room:
            self._waiting -= size
            self._room.notify_all()

    def wait_for_room(self) -> None:
        """Return once less than `MAX_WAITING_BYTES` wait."""
        with self._room:
            while self._waiting >= MAX_WAITING_BYTES:
                self._room.wait(1.0)

    def schedule(self, lane: Lane) -> None:
        """Queue a lane that has work."""
        with self._wake:
            self._ready.append(lane)
            self._wake.notify()

    def _run(self) -> None:
        mine = threading.current_thread()
        while True:
            with self._wake:
                while not self._ready:
                    if self._closed or mine not in self._started:
                        return
                    self._wake.wait()
                lane = self._ready.popleft()
            lane.run_one()


class Lane:
    """Work that runs in order, one piece at a time, on whichever writer thread is free."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        self._queue: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._busy = False

    def submit(self, work: Callable[[], _T]) -> Future[_T]:
        """Queue a piece of work; its future carries what it returns or raises."""
        future: Future[_T] = Future()
        with self._lock:
            self._queue.append((work, future))
            start = not self._busy
            self._busy = True
        if start:
            self._workers.schedule(self)
        return future

    def run_one(self) -> None:
        """Run the oldest piece, then queue again if there is more."""
        with self._lock:
            work, future = self._queue.popleft()
        try:
            result = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        with self._lock:
            self._busy = bool(self._queue)
            again = self._busy
        if again:
            self._workers.schedule(self)
