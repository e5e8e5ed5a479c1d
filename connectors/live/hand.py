"""What an outbox's writer sends at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from connectors.live.outgoing import Chunk
from connectors.live.spill import Spill

_TAKE_RECORDS: Final = 20_000
_TAKE_BYTES: Final = 4 << 20


@dataclass(slots=True)
class Hand:
    """What the writer is sending. `queue`: where on disk it came from, None for memory; `end`: position there after it.

    It came from memory: its first `copied` chunks stand at the head of the spill too, up to `copied_to`. `unsent`: the appends
    to come. `singly`: one of its records was refused, so its entries are sent one by one.
    """

    chunks: Sequence[Chunk] = ()
    queue: Spill | None = None
    end: int = 0
    copied: int = 0
    copied_to: int = 0
    nbytes: int = 0
    singly: bool = False
    unsent: deque[dict[str, list[Chunk]]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.nbytes = sum(chunk.nbytes for chunk in self.chunks)


def from_memory(memory: deque[Chunk]) -> Hand:
    """Take the oldest chunks out of memory, as many as one append should have."""
    chunks: list[Chunk] = []
    records = size = 0
    while memory and records < _TAKE_RECORDS and size < _TAKE_BYTES:
        chunks.append(memory.popleft())
        records, size = records + chunks[-1].records.num_rows, size + chunks[-1].nbytes
    return Hand(chunks)


def from_disk(queue: Spill) -> Hand:
    """Read the oldest chunks of a queue that are not acknowledged."""
    queue.rewind()
    chunks = queue.read(_TAKE_BYTES)
    return Hand(chunks, queue, queue.read_at)


def appends_of(chunks: Iterable[Chunk], *, atomic: bool) -> Iterator[dict[str, list[Chunk]]]:
    """Yield the appends that chunks need, each by topic.

    All at once where appends are all or nothing. Elsewhere topic by topic, so that none is repeated for another's failure, and
    markers only behind an acknowledged append of the frames before them.
    """
    waiting: dict[str, list[Chunk]] = {}
    frames = False
    for chunk in chunks:
        if chunk.markers and frames and not atomic:
            yield from ({topic: found} for topic, found in waiting.items())
            waiting, frames = {}, False
        waiting.setdefault(chunk.topic, []).append(chunk)
        frames = frames or not chunk.markers
    yield from [waiting] if atomic else ({topic: found} for topic, found in waiting.items())
