"""Reading: one client for all partitions, what it brings sorted into a queue a partition.

    client ──consume──▶ fetched ──identity confirmed──▶ ready ──▶ read()

The client itself follows a topic by name: when a topic is deleted and created again, it goes on at the same offset in the
new one, without a word (seen with librdkafka 2.16). So records are handed out only after a request that was sent after
they had come has shown that the topic is still the one that reading began with. It costs half a millisecond a fetch.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from connectors.topics.checks import check_partition, check_position
from connectors.topics.kafka_client import Cluster, Identity, Trouble, cannot_connect, connect
from connectors.topics.kafka_errors import reaction, translated
from connectors.topics.kafka_records import to_batch
from connectors.topics.kafka_settings import KafkaSettings
from market.errors import PipelineError, PositionLost, Refused, SourceDisconnected

_CONSUME: Final = 10_000  # messages taken from the client at once
_QUEUED_KBYTES: Final = 32_768  # what the client holds for all partitions, payloads only: each message costs it some 400 bytes more
_QUEUED_MESSAGES: Final = 25_000  # and below which it fetches more of one
_FULL_ROWS: Final = 50_000  # a partition that holds so much is paused
_FULL_BYTES: Final = 16 << 20
_MAX_READ_BYTES: Final = 64 << 20
_CHECK_S: Final = 2.0  # identities are also confirmed so often while nothing comes
_CONFIRM_S: Final = 1.0  # how long one request for them may take
_MISSING_S: Final = 1.0
_AFTER_FAILURE_S: Final = 1.0  # and when it failed, how long until the next

_GONE: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.INCONSISTENT_TOPIC_ID,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    }
)

Place = tuple[str, int]


@dataclass(slots=True)
class _Held:
    """What is known of one partition that is being read."""

    identity: Identity
    position: int  # what `read` is to be asked for next
    expected: int  # the least offset the client may bring next
    ready: deque[pa.RecordBatch] = field(default_factory=deque)
    fetched: deque[pa.RecordBatch] = field(default_factory=deque)  # not confirmed yet
    rows: int = 0  # of both
    nbytes: int = 0
    paused: bool = False
    failure: PipelineError | None = None

    def take(self, max_records: int) -> pa.RecordBatch | None:
        """Return the next confirmed records, at most so many."""
        taken: list[pa.RecordBatch] = []
        room, size = max_records, 0
        while self.ready and room > 0 and size < _MAX_READ_BYTES:
            batch = self.ready.popleft()
            if batch.num_rows > room:
                self.ready.appendleft(batch.slice(room))
                batch = batch.slice(0, room)
            taken.append(batch)
            room -= batch.num_rows
            size += batch.nbytes
        if not taken:
            return None
        self.rows -= max_records - room
        self.nbytes = self.nbytes - size if self.rows else 0  # slices count shared bytes more than once
        whole = taken[0] if len(taken) == 1 else pa.concat_batches(taken)
        self.position = whole.column("offset")[-1].as_py() + 1
        return whole


class Reader:
    """All partitions that a log object reads. Never waits for new records; not thread-safe."""

    def __init__(self, settings: KafkaSettings, cluster: Cluster) -> None:
        self._settings = settings
        self._cluster = cluster
        self._consumer: Consumer | None = None
        self._trouble = Trouble()
        self._held: dict[Place, _Held] = {}
        self._confirm_at = 0.0  # monotonic; due at once while something waits for it, else then
        self._missing: dict[str, float] = {}  # topics that were not there, monotonic time since when

    def read(self, topic: str, partition: int, offset: int, max_records: int) -> pa.RecordBatch | None:
        """Return records as `TopicLog.read` promises."""
        place = topic, partition
        held = self._held.get(place)
        if held is None or held.position != offset:
            held = self._begin(topic, partition, offset)
        if held.failure is None:
            if held.rows < max_records:
                self._fetch(held, max_records)
            self._confirm()
        batch = held.take(max_records)
        if batch is not None:
            self._resume(place, held)
        elif held.failure is not None:
            raise held.failure
        elif self._trouble.down_for() > self._settings.patience_s:
            self._ask_whether_down()
        return batch

    def forget(self, topic: str) -> None:
        """Let go of a topic's partitions."""
        for place in [place for place in self._held if place[0] == topic]:
            self._release(place)

    def close(self) -> None:
        """Let go of everything."""
        self._held.clear()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def _begin(self, topic: str, partition: int, offset: int) -> _Held:
        # A partition is assigned anew rather than sought in: that works in every state the client may be in.
        place = topic, partition
        self._release(place)
        identity = self._cluster.first_identity(topic)
        check_partition(topic, partition, identity.partitions)
        self._check_bounds(topic, partition, offset)
        held = self._held[place] = _Held(identity, offset, offset)
        self._client().incremental_assign([TopicPartition(topic, partition, offset)])
        return held

    def _check_bounds(self, topic: str, partition: int, offset: int) -> None:
        (start,) = self._cluster.bounds(topic, [partition], last=False)
        (end,) = self._cluster.bounds(topic, [partition], last=True)
        check_position(topic, partition, offset, start, end)

    def _release(self, place: Place) -> None:
        if self._held.pop(place, None) is not None and self._consumer is not None:
            self._consumer.incremental_unassign([TopicPartition(*place)])

    def _client(self) -> Consumer:
        if self._consumer is None:
            config = {
                **self._settings.connection(),
                "group.id": "k2",  # the client wants one; none is joined and nothing is committed
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",  # the default jumps to the end
                "isolation.level": "read_committed",
                "fetch.queue.backoff.ms": 10,  # with the default of a second, a partition that ran full waits for it
                "fetch.wait.max.ms": 50,  # a request that waits for idle partitions holds up the busy ones
                "queued.max.messages.kbytes": _QUEUED_KBYTES,
                "queued.min.messages": _QUEUED_MESSAGES,
                "error_cb": self._trouble.report,
            }
            self._consumer = connect(Consumer, config)
        return self._consumer

    def _fetch(self, wanted: _Held, max_records: int) -> None:
        # Messages come as the brokers sent them, those of other partitions too; so take enough, and not without end.
        left = 2 * max(max_records, _CONSUME)
        with _collector_paused():
            while wanted.rows < max_records and left > 0:
                messages = self._client().consume(_CONSUME, 0)
                self._sort(messages)
                left -= len(messages)
                if len(messages) < _CONSUME:
                    return

    def _sort(self, messages: Sequence[Message]) -> None:
        if any(map(Message.error, messages)):
            for message in messages:
                if message.error() is not None:
                    self._failed(message)
            messages = [m for m in messages if m.error() is None]
        if messages:
            self._trouble.clear()
        for partition, run in groupby(messages, Message.partition):
            for topic, same in groupby(run, Message.topic):
                self._hold((topic, partition), list(same))

    def _hold(self, place: Place, messages: list[Message]) -> None:
        held = self._held.get(place)
        if held is None or held.failure is not None:
            return
        if messages[0].offset() < held.expected:
            messages = [m for m in messages if m.offset() >= held.expected]
            if not messages:
                return
        batch = to_batch(messages)
        held.fetched.append(batch)
        held.expected = messages[-1].offset() + 1
        held.rows += batch.num_rows
        held.nbytes += batch.nbytes
        self._confirm_at = 0.0
        if not held.paused and (held.rows >= _FULL_ROWS or held.nbytes >= _FULL_BYTES):
            held.paused = True
            self._client().pause([TopicPartition(*place)])

    def _resume(self, place: Place, held: _Held) -> None:
        if held.paused and held.rows < _FULL_ROWS // 2 and held.nbytes < _FULL_BYTES // 2:
            held.paused = False
            self._client().resume([TopicPartition(*place)])

    def _failed(self, message: Message) -> None:
        topic, partition = message.topic(), message.partition()
        held = self._held.get((topic, partition)) if topic is not None else None
        error = message.error()
        if held is None:
            self._trouble.report(error)
            return
        if error.code() in _GONE:
            self._confirm_at = 0.0  # confirming tells; if the topic is still there, the error passes
            return
        kind = reaction(error)
        if kind is PositionLost:
            held.failure = self._lost(topic, partition, held)
        elif kind is not SourceDisconnected:  # after which the client tries again by itself
            held.failure = translated(error, f"{topic}/{partition} cannot be read")

    def _lost(self, topic: str, partition: int, held: _Held) -> PipelineError | None:
        # The text with the offsets that are held now; a position that is held after all is only fetched again.
        try:
            self._check_bounds(topic, partition, held.expected)
        except PipelineError as error:
            return error
        self._client().incremental_unassign([TopicPartition(topic, partition)])
        self._client().incremental_assign([TopicPartition(topic, partition, held.expected)])
        held.paused = False
        return None

    def _confirm(self) -> None:
        now = time.monotonic()
        if now < self._confirm_at:
            return
        topics = sorted({topic for (topic, _), held in self._held.items() if held.failure is None})
        try:
            found = self._cluster.identities(topics, _CONFIRM_S) if topics else {}
        except KafkaException as error:
            if reaction(error.args[0]) is not SourceDisconnected:
                raise translated(error.args[0], f"{', '.join(topics)} cannot be described") from error
            self._trouble.report(error.args[0], down=True)
            self._confirm_at = time.monotonic() + _AFTER_FAILURE_S
            return
        now = time.monotonic()
        self._confirm_at = now + _CHECK_S
        self._trouble.clear()
        # A broker that is behind may not know a new topic yet, so a missing one has to stay missing.
        self._missing = {topic: self._missing.get(topic, now) for topic in found if found[topic] is None}
        for (topic, _), held in self._held.items():
            if topic not in found or held.failure is not None:
                continue
            if now - self._missing.get(topic, now - _MISSING_S) < _MISSING_S:
                self._confirm_at = now + _MISSING_S / 4
                continue
            held.failure = _changed(topic, held.identity, found[topic])
            if held.failure is None:
                held.ready.extend(held.fetched)
            held.fetched.clear()

    def _ask_whether_down(self) -> None:
        try:
            self._cluster.names()
        except SourceDisconnected as error:
            raise cannot_connect(self._settings, self._trouble, str(error)) from error
        self._trouble.clear()


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    # Messages and their headers are many small objects that die at once and form no cycles. Walking them again and again
    # made a read of 10,000 take four times as long.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _changed(topic: str, was: Identity, found: Identity | None) -> PipelineError | None:
    if found == was:
        return None
    if found is None:
        return PositionLost(f"{topic} was deleted while it was being read (generation {was.generation}): `k2 recover` names the ways on")
    if found.generation != was.generation:
        return PositionLost(
            f"{topic} was deleted and created again while it was being read (generation {was.generation} before, {found.generation} now): "
            "its offsets mean other records. `k2 recover` names the ways on"
        )
    return Refused(
        f"{topic} has {found.partitions} partitions and had {was.partitions}: the count is fixed for a topic's life, since keys "
        "would move between partitions. Create a topic with the old count and copy the records, then `k2 recover` names the ways on"
    )
