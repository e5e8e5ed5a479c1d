"""The way from a feed's loop to its topics: first in, first out, bounded in memory, never dropping anything.

    put ──▶ memory ──▶ writer thread ──▶ topic log
               │           ▲
               └▶ spill ───┘        beyond the memory bound, until the topic has caught up

While it spills, everything that no topic has acknowledged is in the spill file, in order, also what the writer is just
sending. So what a killed process leaves there begins with the oldest record that may be missing, and a marker in it still
stands behind what it vouches for. A disk that did not take one chunk gets none of those behind it, for the same reason, until
the topic has caught up. Beyond the bound of the spill `room` does not return, and sockets are not read.

A left-over goes into whatever topics this process writes: one that is not there is created. A record in it that its topic will
never take is skipped, its file is kept under another name, and no marker behind it is believed. `sender` says what becomes of
records of our own that their topic refuses.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from connectors.live.hand import Hand, from_disk, from_memory
from connectors.live.outgoing import Chunk, beginning
from connectors.live.sender import Sender, Written
from connectors.live.spill import Spill
from connectors.topics.base import TopicLog
from market.errors import FatalError, InvariantViolation, PipelineError, TransientError

log = structlog.get_logger()

MEMORY_BYTES: Final = 24 << 20
SPILL_BYTES: Final = 4 << 30
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
_LOOK_S: Final = 0.02  # how often `room` looks
_LAST_LOOK_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits. `reachable`: the last append did not fail."""

    memory_bytes: int
    spill_bytes: int
    reachable: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """What neither the topics nor the disk took before the process had to end."""

    records: int
    nbytes: int
    reason: str


def _ignore(topic: str, chunks: Sequence[Chunk] = ()) -> None:
    del topic, chunks


class Outbox:
    """One outbox for all topics of a log. `put` and `room` belong to the loop, the rest to the writer's thread.

    Args:
        topics: where the records go.
        spill: the queue on disk.
        older: queues that other processes left behind; written first.
        memory_bytes: more than this goes to the spill.
        spill_bytes: while the spill holds more than this, `room` waits.
        written: is told of each append.
        ensure: creates a topic that a left-over goes to, unless it exists; on the writer's thread.
    """

    def __init__(
        self,
        topics: TopicLog,
        spill: Spill,
        older: Iterable[Spill] = (),
        *,
        memory_bytes: int = MEMORY_BYTES,
        spill_bytes: int = SPILL_BYTES,
        written: Written = _ignore,
        ensure: Callable[[str], None] = _ignore,
    ) -> None:
        self.failure: BaseException | None = None
        self.lost: Lost | None = None  # known once it has stopped
        self._spill = spill
        self._sender = Sender(topics, written=written, ensure=ensure, set_aside=self._set_aside)
        self._refused: set[str] = set()
        self._memory_limit, self._spill_limit = memory_bytes, spill_bytes
        self._lock = threading.Condition()
        # What waits, oldest first: the queues of others, the hand, memory, the spill, and what a full disk did not take.
        self._older = deque(older)
        self._may_wait = False  # an older queue has had its turn
        self._hand = Hand()
        self._memory: deque[Chunk] = deque()
        self._memory_bytes = 0
        self._behind: deque[Chunk] = deque()
        self._spilling = False
        self._disk_error: OSError | None = None  # nothing goes to the spill behind what this kept out of it
        self._disk_said = False
        self._reachable = True
        self._unreachable_why = ""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, chunk: Chunk) -> None:
        """Take a chunk: it will be appended behind all before it. Never blocks for the topic."""
        with self._lock:
            if self._spilling:
                self._put_aside(chunk)
            else:
                self._memory.append(chunk)
                self._memory_bytes += chunk.nbytes
                if self._memory_bytes + self._hand.nbytes > self._memory_limit:
                    self._begin_spilling()
            self._tell()
            self._lock.notify_all()

    def adopt(self, older: Iterable[Spill]) -> None:
        """Write these queues too; what is put meanwhile does not wait for all of them."""
        with self._lock:
            self._older.extend(older)
            self._lock.notify_all()

    def refusals(self) -> frozenset[str]:
        """Return the topics that have refused a record since the last call: whoever asserts something there must `begin` anew."""
        with self._lock:
            found, self._refused = frozenset(self._refused), set()
        return found

    def begin(self, topic: str) -> None:
        """Believe the markers of a topic that are put from now on: their assertions began after what was refused."""
        self.put(beginning(topic))

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be received now."""
        return self._spill.nbytes > self._spill_limit or self._disk_error is not None

    async def room(self) -> None:
        """Return when more may be put.

        Raises:
            PipelineError: nothing can be written any more.
        """
        self.check()
        while self.is_full:
            await asyncio.sleep(_LOOK_S)
            self.check()

    async def drained(self) -> None:
        """Return when everything that was put, and what others left behind, is in its topic."""
        self.check()
        while not self.is_empty:
            await asyncio.sleep(_LOOK_S)
            self.check()

    def check(self) -> None:
        """Raise what stopped the writer, if anything did."""
        if isinstance(self.failure, PipelineError):
            raise self.failure
        if isinstance(self.failure, OSError):
            where = self.failure.filename or self._spill.folder
            raise FatalError(f"{where}: {self.failure.strerror}: what waits for its topic cannot be kept there") from self.failure
        if self.failure is not None:
            raise InvariantViolation(f"the writer of the topics failed: {self.failure!r}") from self.failure

    @property
    def is_empty(self) -> bool:
        """Whether everything is in its topic."""
        with self._lock:
            return not (self._older or self._hand.chunks or self._memory or self._spill.nbytes or self._behind)

    def backlog(self) -> Backlog:
        """Return what waits now."""
        with self._lock:
            on_disk = self._spill.nbytes + sum(s.nbytes for s in self._older)
            return Backlog(self._memory_bytes + self._hand.nbytes, on_disk, self._reachable)

    def start(self) -> None:
        """Begin to write, on a thread."""
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def stop(self, patience_s: float) -> bool:
        """Write what waits, for so long; what then remains is left on disk for the next process, or is `lost`.

        Returns:
            Whether everything is in its topic.
        """
        with self._lock:
            self._lock.wait_for(lambda: self.is_empty or self.failure is not None, patience_s if self._thread is not None else 0)
            self._stopping.set()
            self._lock.notify_all()
        if self._thread is not None:
            self._thread.join(_LAST_LOOK_S)  # an append that hangs is not waited for: its records are left on disk too
        with self._lock:
            if self._spilling:
                self._save_rest()
            elif self._memory or self._hand.chunks:
                self._begin_spilling()
            self.lost = self._unsaved()
            self._tell()
            return self.is_empty

    # With the lock held.

    def _begin_spilling(self) -> None:
        # Everything unacknowledged, the hand first unless it came from disk: see the module's first lines.
        self._spilling = True
        self._copy_hand()
        while self._memory:
            self._put_aside(self._memory.popleft())
        self._memory_bytes = 0
        if self._spill.nbytes:
            log.warning("outbox_spilled", bytes=self._spill.nbytes, folder=str(self._spill.folder))

    def _copy_hand(self) -> None:
        hand = self._hand
        if hand.queue is None:
            while hand.copied < len(hand.chunks) and self._saved(hand.chunks[hand.copied]):
                hand.copied, hand.copied_to = hand.copied + 1, self._spill.end

    def _put_aside(self, chunk: Chunk) -> None:
        if not self._saved(chunk):
            self._behind.append(chunk)

    def _saved(self, chunk: Chunk) -> bool:
        if self._disk_error is None:
            try:
                self._spill.append(chunk)
            except OSError as error:
                self._disk_error = error
        return self._disk_error is None

    def _save_rest(self) -> None:
        # Once more, in order: the disk may have room again.
        self._disk_error = None
        self._copy_hand()
        while self._behind and self._saved(self._behind[0]):
            self._behind.popleft()

    def _unsaved(self) -> Lost | None:
        hand = () if self._hand.queue is not None else self._hand.chunks[self._hand.copied :]
        chunks = [*hand, *self._behind]
        if not chunks:
            return None
        disk = "" if self._disk_error is None else self._disk_error.strerror or str(self._disk_error)
        topic = self._unreachable_why or (str(self.failure) if self.failure is not None else "it was slower than what came")
        reason = f"{self._spill.folder} does not take them ({disk}), nor did their topic in time ({topic})"
        return Lost(sum(c.records.num_rows for c in chunks), sum(c.records.nbytes for c in chunks), reason)

    def _tell(self) -> None:
        # Only now that the data is where it should be.
        if self._disk_error is not None and not self._disk_said:
            self._disk_said = True
            log.error("spill_failed", folder=str(self._spill.folder), error=str(self._disk_error))
        if self.lost is not None:
            log.error("records_lost", records=self.lost.records, bytes=self.lost.nbytes, reason=self.lost.reason)

    def _take(self) -> bool:
        # Fill the hand with the oldest chunks; whether there are any.
        while True:
            self._may_wait = bool(self._older) and not (self._may_wait and self._memory)
            if self._may_wait:
                self._hand = from_disk(self._older[0])
            elif self._memory:
                self._hand = from_memory(self._memory)
                self._memory_bytes -= self._hand.nbytes
            elif self._spill.nbytes:
                self._hand = from_disk(self._spill)
            if self._hand.chunks or self._hand.queue is None:
                return bool(self._hand.chunks)
            self._acknowledge()  # nothing there can be read

    def _acknowledge(self) -> None:
        hand, self._hand = self._hand, Hand()
        if hand.queue is not None:
            hand.queue.ack(hand.end)
        elif hand.copied_to:
            self._spill.ack(hand.copied_to)
        if self._older and not self._older[0].nbytes:
            self._older.popleft()
        if self._spilling and not self._memory and not self._spill.nbytes:
            self._spilling = False
            self._disk_error, self._disk_said = None, False
            self._memory, self._behind = self._behind, deque()
            self._memory_bytes = sum(chunk.nbytes for chunk in self._memory)
            log.info("outbox_caught_up")
        self._lock.notify_all()

    # On the writer's thread.

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                with self._lock:
                    while not self._take():
                        if self._stopping.is_set():
                            return
                        self._lock.wait()
                if self._sent():
                    with self._lock:
                        self._acknowledge()
        except BaseException as error:  # the loop's `check` raises it again
            with self._lock:
                self.failure = error
                self._lock.notify_all()

    def write_once(self) -> bool:
        """Append the oldest chunks on the caller's thread, once; for tests, instead of `start`.

        Raises:
            TransientError: the topic cannot be reached; the same chunks come next.
        """
        with self._lock:
            if not self._hand.chunks and not self._take():
                return False
        self._append()
        with self._lock:
            self._acknowledge()
        return True

    def _sent(self) -> bool:
        # Whether the hand is in its topics; False only if the process ends before.
        pause = _FIRST_PAUSE_S
        while True:
            try:
                self._append()
            except TransientError as error:
                if self._reachable:
                    log.warning("topic_unreachable", error=str(error))
                self._reachable, self._unreachable_why = False, str(error)
                if self._stopping.wait(pause):
                    return False
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            else:
                if not self._reachable:
                    log.info("topic_reachable")
                self._reachable, self._unreachable_why = True, ""
                return True

    def _append(self) -> None:
        queue = self._hand.queue
        if queue is None or queue is self._spill:
            self._sender.append(self._hand)
        else:
            self._sender.append_left_over(self._hand, queue)

    def _set_aside(self, chunk: Chunk, reason: str) -> None:
        with self._lock:
            self._spill.set_aside(chunk, reason)
            self._refused.add(chunk.topic)
