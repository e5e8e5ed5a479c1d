"""Outboxes and disks for tests: small ones, and such as are full."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from connectors.live.outbox import SPILL_BYTES, Outbox
from connectors.live.outgoing import Chunk
from connectors.live.spill import Spill
from tests.feeding import Topics, chunk

KRAKEN = "raw.trades.kraken"


class FullDisk(Spill):
    """A spill on a disk with so many bytes left; small entries still fit when large ones do not."""

    def __init__(self, folder: Path, *, free: int) -> None:
        super().__init__(folder)
        self.free = free

    def append(self, chunk: Chunk) -> int:
        need = chunk.records.nbytes + 500
        if need > self.free:
            raise OSError(28, "No space left on device")
        self.free -= need
        return super().append(chunk)


def left_in(folder: Path) -> list[str]:
    """What the next process finds there."""
    return [p.decode() for c in Spill(folder).read(1 << 30) for p in c.records.column("payload").to_pylist()]


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def numbered(first: int, last: int) -> list[Chunk]:
    return [chunk(str(number)) for number in range(first, last)]


def wanted(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def small(topics: Topics, spill: Spill, chunks: int = 3, spill_bytes: int = SPILL_BYTES) -> Outbox:
    """An outbox with room for so many chunks in memory."""
    return Outbox(topics, spill, memory_bytes=chunks * chunk("0").nbytes, spill_bytes=spill_bytes)
