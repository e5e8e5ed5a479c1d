"""How the writer of an outbox appends a hand: in order, and past the records that their topic will never take.

A record that its topic refuses is set aside. What an ended process left behind is refused as it was put together. Of a living
feed's own records a refused append is halved until one record is left; if that one is large, only it is set aside, and no marker of its topic
is believed until the feed has begun its assertions anew. A topic that refuses ordinary frames is set up wrongly, and ends the feed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from connectors.live.hand import Hand, appends_of
from connectors.live.outgoing import Chunk, by_partition
from connectors.live.spill import Spill
from connectors.topics.base import TopicLog
from market.errors import RecordRefused

ORDINARY_BYTES: Final = 64 << 10
"""No frame of a venue that a topic must be able to take is larger."""


class Written(Protocol):
    """Who is told what a topic has acknowledged; called on the writer's thread."""

    def __call__(self, topic: str, chunks: list[Chunk]) -> None:
        """Take note."""


class Sender:
    """Appends to the topics of a log; everything happens on the writer's thread.

    Args:
        topics: where the records go.
        written: is told of each append.
        ensure: creates a topic that a left-over goes to, unless it exists.
        set_aside: keeps a record of ours that its topic refuses, given why.
    """

    def __init__(
        self, topics: TopicLog, *, written: Written, ensure: Callable[[str], None], set_aside: Callable[[Chunk, str], None]
    ) -> None:
        self._topics, self._written, self._ensure, self._set_aside = topics, written, ensure, set_aside
        self._distrusted: set[str] = set()

    def append(self, hand: Hand) -> None:
        """Append records of a living feed.

        Raises:
            TransientError: a topic cannot be reached; the same hand goes on where it stopped.
            RecordRefused: a topic refuses what any topic must take.
        """
        while True:
            try:
                self._append_together(hand)
            except RecordRefused as error:
                chunks = [chunk for found in hand.unsent.popleft().values() for chunk in found]
                halves = _halves(chunks)
                if not halves:
                    self._refuse(chunks[0], error)
                for half in reversed(halves):
                    hand.unsent.appendleft(_by_topic(half))
                if not hand.unsent:
                    return
            else:
                return

    def append_left_over(self, hand: Hand, queue: Spill) -> None:
        """Append what an ended process left behind; what is refused stays in its file, under another name."""
        for topic in dict.fromkeys(chunk.topic for chunk in hand.chunks):
            self._ensure(topic)
        if not hand.singly:
            try:
                self._append_together(hand)
            except RecordRefused:
                hand.singly = True
        if hand.singly:
            self._append_singly(queue, hand.end)

    def _append_singly(self, queue: Spill, end: int) -> None:
        # Or one record would keep this and every later process from writing the rest.
        queue.rewind()
        while queue.read_at < end:
            try:
                self._append_together(Hand(queue.read(1)))
            except RecordRefused as error:
                queue.refuse(str(error))
            queue.ack(queue.read_at)

    def _append_together(self, hand: Hand) -> None:
        if not hand.unsent:
            hand.unsent.extend(appends_of(hand.chunks, atomic=self._topics.atomic_appends))
        while hand.unsent:
            distrusted = set(self._distrusted)
            chunks = {topic: _believed(found, distrusted) for topic, found in hand.unsent[0].items()}
            records = {topic: batches for topic, found in chunks.items() if found and (batches := by_partition(found))}
            if records:
                self._topics.append_all(records)
                for topic in records:
                    self._written(topic, chunks[topic])
            self._distrusted = distrusted
            hand.unsent.popleft()

    def _refuse(self, chunk: Chunk, error: RecordRefused) -> None:
        if chunk.records.nbytes <= ORDINARY_BYTES:
            raise error
        self._set_aside(chunk, str(error))
        self._distrusted.add(chunk.topic)


def _believed(chunks: Iterable[Chunk], distrusted: set[str]) -> list[Chunk]:
    # Without the markers that stand behind a refused record, up to where assertions begin anew.
    found = []
    for chunk in chunks:
        if chunk.begins:
            distrusted.discard(chunk.topic)
        if not (chunk.markers and chunk.topic in distrusted):
            found.append(chunk)
    return found


def _halves(chunks: list[Chunk]) -> list[list[Chunk]]:
    # Nothing, if it is one record.
    half = len(chunks) // 2
    if half:
        return [chunks[:half], chunks[half:]]
    chunk = chunks[0]
    half = chunk.records.num_rows // 2
    return [[chunk.part(0, half)], [chunk.part(half, chunk.records.num_rows - half)]] if half else []


def _by_topic(chunks: Iterable[Chunk]) -> dict[str, list[Chunk]]:
    found: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        found.setdefault(chunk.topic, []).append(chunk)
    return found
