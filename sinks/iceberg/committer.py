"""Commits of one table: in order, in the background, at most every so often; the engine never waits for the catalog.

What waits stays described in the engine's saved state until the catalog has it, so a catalog that is slow or away for minutes
costs lag and nothing else. If it stays away, `pressure` reaches 1 and the writer is held back, then stopped.
"""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from market.errors import FatalError, InvariantViolation, PipelineError, SinkUnavailable
from sinks.iceberg.frontier import Frontier, Position, TopicPartition
from sinks.iceberg.state import Pending
from sinks.iceberg.workers import Workers

log = structlog.get_logger()

IDLE_INTERVAL_S: Final = 300.0  # a frontier that moved without rows is worth a commit this often
MAX_EPOCHS: Final = 60
MAX_CHANGES_BYTES: Final = 64 << 20  # of gold changes: they are written into every saved state until committed
MAX_FILES: Final = 4_000
GIVE_UP_S: Final = 300.0  # a writer that is held back this long stops the process; it resumes from its saved state
_BACKOFF_S: Final = (0.5, 30.0)


@dataclass(frozen=True, slots=True)
class Outstanding:
    """What is committed and what is not, at one instant."""

    committed: dict[TopicPartition, Position]
    pending: tuple[Pending, ...]


class Committer:
    """The commit thread of one table.

    Args:
        name: of the table, for messages.
        land: commits one batch exactly once under a key; raises our errors.
        workers: of this process.
        interval_s: between two commits of rows.
        now: monotonic seconds.
    """

    def __init__(
        self, name: str, land: Callable[[Pending, str], None], workers: Workers, interval_s: float, now: Callable[[], float]
    ) -> None:
        self._name = name
        self._land = land
        self._workers = workers
        self._interval_s = interval_s
        self._now = now
        self._changed = threading.Condition()
        self._committed: dict[TopicPartition, Position] = {}
        self._landing: Pending | None = None
        self._waiting: Pending | None = None
        self._failure: PipelineError | None = None  # for good
        self._trouble: PipelineError | None = None  # of the last attempt
        self._attempts = 0
        self._retry_at = 0.0
        self._last = now()
        self._hurried = False
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self, committed: Frontier, pending: Pending | None) -> None:
        """Begin at a table's frontier, with what a predecessor left uncommitted."""
        self._committed = dict(committed)
        self._waiting = pending
        self._thread = threading.Thread(target=self._run, name=f"iceberg-commit-{self._name}", daemon=True)
        self._thread.start()

    def add(self, epoch: Pending) -> None:
        """Queue an epoch; nothing happens for one that brings nothing new."""
        with self._changed:
            newest = self._waiting or self._landing
            reached = self._committed if newest is None else newest.frontier
            if not epoch.rows and epoch.frontier == reached:
                return
            self._waiting = epoch if self._waiting is None else self._waiting.then(epoch)
            self._changed.notify_all()

    def outstanding(self) -> Outstanding:
        """Return what is committed and what waits."""
        with self._changed:
            return Outstanding(dict(self._committed), tuple(p for p in (self._landing, self._waiting) if p is not None))

    def pressure(self) -> float:
        """Return how full the queue is; at 1 the writer is held back."""
        with self._changed:
            return self._pressure()

    def raise_failure(self) -> None:
        """Raise what ended the commits, if anything did."""
        if self._failure is not None:
            raise self._failure

    def wait_for_room(self) -> None:
        """Return once there is room for another epoch.

        Raises:
            SinkUnavailable: there was none for `GIVE_UP_S`.
            PipelineError: what ended the commits.
        """
        with self._changed:
            if self._pressure() < 1:
                return
            log.warning("cold_writer_held_back", table=self._name, reason=str(self._trouble))
            self._changed.wait_for(lambda: self._pressure() < 1 or self._failure is not None, GIVE_UP_S)
            self.raise_failure()
            if self._pressure() >= 1:
                raise SinkUnavailable(f"{self._name}: nothing could be committed for {GIVE_UP_S:.0f} s: {self._trouble}")

    def hurry(self) -> None:
        """Commit what waits at once rather than at its time."""
        with self._changed:
            self._hurried = not self._is_idle()
            self._retry_at = 0.0
            self._changed.notify_all()

    def drain(self, timeout_s: float) -> None:
        """Return once everything added is committed.

        Raises:
            SinkUnavailable: it was not within the time.
            PipelineError: what ended the commits.
        """
        self.hurry()
        with self._changed:
            self._changed.wait_for(lambda: self._is_idle() or self._failure is not None, timeout_s)
            self.raise_failure()
            if not self._is_idle():
                why = f": {self._trouble}" if self._trouble is not None else ""
                raise SinkUnavailable(f"{self._name} could not be committed within {timeout_s:g} s{why}")

    def stop(self, wait_s: float) -> None:
        """End the thread; what waits stays uncommitted. Never raises."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(wait_s)

    def _pressure(self) -> float:
        pending = [p for p in (self._landing, self._waiting) if p is not None]
        return max(
            sum(p.epochs for p in pending) / MAX_EPOCHS,
            sum(p.size for p in pending) / MAX_CHANGES_BYTES,
            sum(len(p.files) for p in pending) / MAX_FILES,
        )

    def _is_idle(self) -> bool:
        return self._landing is None and self._waiting is None

    def _due(self) -> float | None:
        if self._landing is not None:
            return self._retry_at
        if self._waiting is None:
            return None
        if self._hurried:
            return 0.0
        return self._last + (self._interval_s if self._waiting.rows else IDLE_INTERVAL_S)

    def _run(self) -> None:
        key = uuid.uuid4().hex
        while True:
            with self._changed:
                while not self._stopped:
                    due = self._due()
                    if due is not None and due <= self._now():
                        break
                    self._changed.wait(None if due is None else min(due - self._now(), 60.0))
                if self._stopped:
                    return
                if self._landing is None:
                    self._landing, self._waiting = self._waiting, None
                    key = uuid.uuid4().hex  # one per batch, however many attempts it takes
                batch = self._landing
            if batch is None or not self._try(batch, key):
                return

    def _try(self, batch: Pending, key: str) -> bool:
        started = self._now()
        try:
            with self._workers.gate:
                if self._stopped:
                    return False
                self._land(batch, key)
        except FatalError as error:
            return self._ended(error)
        except PipelineError as error:
            self._postpone(error)
            return True
        except Exception as error:
            log.exception("cold_commit_crashed", table=self._name)
            failure = InvariantViolation(f"commit {self._name}: {type(error).__name__}: {error}")
            failure.__cause__ = error
            return self._ended(failure)
        with self._changed:
            self._committed = dict(batch.frontier)
            self._landing, self._trouble, self._attempts, self._last = None, None, 0, started
            self._hurried = self._hurried and self._waiting is not None
            self._changed.notify_all()
        log.debug("cold_committed", table=self._name, rows=batch.rows, files=len(batch.files), seconds=round(self._now() - started, 3))
        return True

    def _postpone(self, error: PipelineError) -> None:
        with self._changed:
            self._trouble = error
            first, most = _BACKOFF_S
            pause = min(first * 2**self._attempts, 2.0 if self._hurried else most) * random.uniform(0.8, 1.2)  # noqa: S311 jitter
            self._attempts = min(self._attempts + 1, 10)
            self._retry_at = self._now() + pause
        log.warning("cold_commit_postponed", table=self._name, seconds=round(pause, 1), reason=str(error))

    def _ended(self, error: PipelineError) -> bool:
        with self._changed:
            self._failure = error
            self._changed.notify_all()
        return False
