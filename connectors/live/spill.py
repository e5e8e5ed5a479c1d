"""Chunks on disk while their topic is slow or down: a queue of segment files that survives the process.

    <folder>/000017.spill      consecutive entries: length, CRC-32, flags, topic length, topic, chunk as one Arrow IPC message

An entry is written with one call and not fsynced: it survives the death of the process, not that of the machine. A
segment is removed once all of it is in its topic, so after a kill the first entries may be written again; readers of the topic
drop what they have seen. A segment that holds what cannot be read, or what its topic refused, is kept under another name:

    <folder>/000017.spill.damaged, 000017.spill.refused      without the last part of the name it is tried again
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import structlog

from connectors.live.outgoing import CHUNK_SCHEMA, Chunk

log = structlog.get_logger()

SUFFIX: Final = ".spill"
_DAMAGED: Final = ".damaged"
_REFUSED: Final = ".refused"
SEGMENT_BYTES: Final = 32 << 20
_HEAD: Final = struct.Struct("<IIBH")  # bytes of the message, CRC-32 of topic and message, flags, bytes of the topic
_MARKERS: Final = 1
_BEGINS: Final = 2


@dataclass(slots=True)
class _Segment:
    path: Path
    start: int  # position of its first byte in the queue
    end: int
    kept_as: Path | None = None  # where it goes instead of being removed


@dataclass(frozen=True, slots=True)
class Damage:
    """What did not reach its topic: an entry that cannot be read, with all that follows in its segment, or one that was refused."""

    path: Path
    at: int
    lost_bytes: int


class Spill:
    """One queue of chunks in a folder. Positions count bytes since it was opened.

    One thread may append while another reads and acknowledges: appending changes `end` last, reading stops there.

    Args:
        folder: exists already, and belongs to this object. Segments that are in it come first.
        segment_bytes: a segment that has reached this size is followed by a new one.
        after: another queue in the same folder, which is not touched; this one begins empty and numbers its segments after it.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, after: Spill | None = None) -> None:
        self.folder = folder
        self.damage: list[Damage] = []
        self._segment_bytes = segment_bytes
        self._segments: deque[_Segment] = deque()
        self._out: int | None = None  # descriptor of the last segment while it is written
        at = 0
        for path in sorted(folder.glob(f"*{SUFFIX}")) if after is None else ():
            size = path.stat().st_size
            self._segments.append(_Segment(path, at, at + size))
            at += size
        # Names of segments that were kept are not used again.
        self._number = max((int(path.name.partition(".")[0]) for path in folder.glob(f"*{SUFFIX}*")), default=0)
        self.end = at  # after the last entry
        self.read_at = 0  # next entry to be read
        self.acked = 0  # everything before is in its topic

    @property
    def nbytes(self) -> int:
        """Bytes that are not acknowledged yet."""
        return self.end - self.acked

    def append(self, chunk: Chunk) -> int:
        """Write a chunk behind all others; return the position after it.

        Raises:
            OSError: the disk is full, or gone; nothing of the chunk is in the queue.
        """
        entry = _entry(chunk)
        out = self._writable()
        segment = self._segments[-1]
        try:
            written = os.write(out, entry)
            while written < len(entry):
                written += os.write(out, entry[written:])
        except OSError:
            try:
                os.ftruncate(out, segment.end - segment.start)
            except OSError:
                self.close()  # the next one goes into another file
            raise
        segment.end += len(entry)
        self.end = segment.end
        return self.end

    def read(self, limit_bytes: int) -> list[Chunk]:
        """Return the next chunks, about `limit_bytes` and at least one unless there is none; `read_at` moves behind them."""
        found: list[Chunk] = []
        size, end = 0, self.end
        while self.read_at < end and size < limit_bytes:
            segment = next(s for s in tuple(self._segments) if s.start <= self.read_at < s.end)
            for chunk, after in self._entries(segment, min(segment.end, end)):
                found.append(chunk)
                size += after - self.read_at
                self.read_at = after
                if size >= limit_bytes:
                    break
            else:
                self.read_at = max(self.read_at, min(segment.end, end))
        return found

    def rewind(self) -> None:
        """Read again from the first entry that is not acknowledged."""
        self.read_at = self.acked

    def ack(self, position: int) -> None:
        """Note that everything before a position is in its topic; segments that are done with are removed."""
        self.acked = max(self.acked, position)
        self.read_at = max(self.read_at, self.acked)
        while self._segments and self._segments[0].end <= self.acked and (len(self._segments) > 1 or self.acked == self.end):
            segment = self._segments.popleft()
            if not self._segments:
                self.close()
            if segment.kept_as is None:
                segment.path.unlink(missing_ok=True)
            else:
                with contextlib.suppress(FileNotFoundError):
                    segment.path.rename(segment.kept_as)

    def refuse(self, reason: str) -> None:
        """Note that the topic will never take the entry that was read last: its file is kept, and no later marker is believed."""
        segment = next(s for s in self._segments if s.start < self.read_at <= s.end)
        self._keep(segment, _REFUSED, Damage(segment.path, self.acked - segment.start, self.read_at - self.acked), reason)

    def set_aside(self, chunk: Chunk, reason: str) -> None:
        """Keep a chunk that its topic will never take in a file of its own, which is not part of the queue.

        Raises:
            OSError: the disk is full, or gone.
        """
        self._number += 1
        path = self.folder / f"{self._number:06d}{SUFFIX}{_REFUSED}"
        path.write_bytes(_entry(chunk))
        log.error("record_set_aside", file=str(path), topic=chunk.topic, bytes=chunk.records.nbytes, reason=reason)

    def close(self) -> None:
        """Release the file; what is in the queue stays on disk."""
        if self._out is not None:
            os.close(self._out)
            self._out = None

    def _writable(self) -> int:
        if self._out is not None and self._segments[-1].end - self._segments[-1].start < self._segment_bytes:
            return self._out
        self.close()
        path = self.folder / f"{self._number + 1:06d}{SUFFIX}"
        self._out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._number += 1
        self._segments.append(_Segment(path, self.end, self.end))
        return self._out

    def _entries(self, segment: _Segment, end: int) -> Iterator[tuple[Chunk, int]]:
        with segment.path.open("rb") as file:
            file.seek(self.read_at - segment.start)
            at = self.read_at
            while at < end:
                head = file.read(_HEAD.size)
                chunk, size = None, 0
                if len(head) == _HEAD.size:
                    length, crc, flags, topic_length = _HEAD.unpack(head)
                    size = topic_length + length
                    body = file.read(size) if size <= end - at else b""
                    if len(body) == size and zlib.crc32(body) == crc:
                        chunk = _chunk(body, topic_length, flags)
                if chunk is None:
                    self._keep(segment, _DAMAGED, Damage(segment.path, at - segment.start, end - at), "cannot be read")
                    return
                at += _HEAD.size + size
                # What stands behind a lost entry may vouch for it: assertions end there.
                if not (self.damage and chunk.markers):
                    yield chunk, at
                else:
                    yield Chunk(chunk.topic, chunk.records.slice(0, 0), markers=True), at

    def _keep(self, segment: _Segment, suffix: str, damage: Damage, reason: str) -> None:
        # A segment is reported once for each reason, however many entries it is about.
        kept_as = segment.path.with_name(segment.path.name + suffix)
        known = segment.kept_as == kept_as
        segment.kept_as = kept_as
        self.damage.append(damage)
        if not known:
            log.error("spill_set_aside", file=str(kept_as), at=damage.at, bytes=damage.lost_bytes, reason=reason)


def _entry(chunk: Chunk) -> bytes:
    topic, message = chunk.topic.encode(), chunk.records.serialize()
    crc = zlib.crc32(message, zlib.crc32(topic))
    flags = _MARKERS * chunk.markers | _BEGINS * chunk.begins
    return b"".join((_HEAD.pack(len(message), crc, flags, len(topic)), topic, message))


def _chunk(body: bytes, topic_length: int, flags: int) -> Chunk:
    records = pa.ipc.read_record_batch(pa.py_buffer(body)[topic_length:], CHUNK_SCHEMA)
    return Chunk(body[:topic_length].decode(), records, bool(flags & _MARKERS), bool(flags & _BEGINS))
