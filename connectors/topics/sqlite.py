"""The embedded topic log: one SQLite file in WAL mode, many processes.

    topics      one row a topic: name, generation (a uuid made when it was created), partition count
    partitions  one row a partition: start and end offset; `end` survives retention, so offsets never start again
    blocks      consecutive records of one partition (`connectors.topics.blocks`); [first_offset, next_offset)

Appends are transactions and fsynced (`docs/decisions/0010-sqlite-log.md`): when `append` returns, the records
survive the death of the process and of the machine.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from connectors.topics import blocks
from connectors.topics.checks import check_partition, check_partitions, check_position, check_records, unknown_topic
from connectors.topics.sqlite_file import WAY_OUT, SqliteFile
from market.errors import FatalError

_MAX_READ_BYTES: Final = 64 << 20
_EXPIRE_BLOCKS: Final = 500  # a transaction; writers wait for one of them at most
_INSERT_BLOCK: Final = (
    "INSERT INTO blocks (topic_id, partition, first_offset, next_offset, last_append_us, level, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
)


_Encoded = tuple[int, int, bytes]  # records, bytes in memory, block


@dataclass(frozen=True, slots=True)
class _Topic:
    topic_id: int
    generation: str
    partitions: int


def _clock() -> int:
    return time.time_ns() // 1_000


class SqliteTopics:
    """`TopicLog` in one file. It connects when first used; threads may share it and take turns.

    Args:
        url: `sqlite:///relative.db` or `sqlite:////absolute.db`, optionally `?timeout=30` (seconds to wait for other
            writers) and `&synchronous=normal` (power loss may then take the last appends).
        now_us: the clock of append times, epoch µs.

    Raises (all calls): as `TopicLog`; `FatalError` for a damaged file.
    """

    atomic_appends = True

    def __init__(self, url: str, *, now_us: Callable[[], int] = _clock) -> None:
        self._file = SqliteFile(url)
        self._now_us = now_us
        self._topics: dict[str, _Topic] = {}
        # The rest of the block that the last read of a partition cut, so that small reads do not decode it again.
        self._cut: dict[tuple[int, int], tuple[int, pa.RecordBatch]] = {}

    def create(self, topic: str, partitions: int) -> None:
        check_partitions(topic, partitions)
        self._file.open(create=True)
        with self._file.transaction(write=True) as db:
            row = db.execute("SELECT partitions FROM topics WHERE name = ?", (topic,)).fetchone()
            if row is None:
                values = (topic, str(uuid.uuid4()), partitions)
                topic_id = db.execute("INSERT INTO topics (name, generation, partitions) VALUES (?, ?, ?)", values).lastrowid
                db.executemany("INSERT INTO partitions VALUES (?, ?, 0, 0)", [(topic_id, p) for p in range(partitions)])
        check_partitions(topic, partitions, partitions if row is None else row[0])

    def topics(self) -> list[str]:
        if not self._file.open(create=False):
            return []
        with self._file.transaction() as db:
            return [name for (name,) in db.execute("SELECT name FROM topics ORDER BY name")]

    def partitions(self, topic: str) -> int:
        return self._of(topic).partitions

    def generation(self, topic: str) -> str:
        return self._of(topic).generation

    def start_offsets(self, topic: str) -> list[int]:
        return self._offsets(topic, "start_offset")

    def end_offsets(self, topic: str) -> list[int]:
        return self._offsets(topic, "end_offset")

    def read(self, topic: str, partition: int, offset: int, max_records: int) -> pa.RecordBatch | None:
        found = self._of(topic)
        check_partition(topic, partition, found.partitions)
        place = (found.topic_id, partition)
        with self._file.transaction() as db:
            start, end = db.execute(
                "SELECT start_offset, end_offset FROM partitions WHERE topic_id = ? AND partition = ?", place
            ).fetchone()
            check_position(topic, partition, offset, start, end)
            taken: list[pa.RecordBatch] = []
            at, room = offset, max_records
            for first, block in self._blocks_from(db, place, offset):
                if first > at:
                    raise FatalError(f"{self._file.path} is damaged: {topic}/{partition} misses the records {at} to {first - 1}; {WAY_OUT}")
                piece = block.slice(at - first, room)
                taken.append(piece)
                at, room = at + piece.num_rows, room - piece.num_rows
                if at < first + block.num_rows:
                    self._cut[place] = (first, block)
                if room <= 0 or sum(t.nbytes for t in taken) >= _MAX_READ_BYTES:
                    break
        if not taken and offset < end:
            raise FatalError(f"{self._file.path} is damaged: {topic}/{partition} misses the records {offset} to {end - 1}; {WAY_OUT}")
        return blocks.with_offsets(taken, offset) if taken else None

    def append(self, topic: str, records: Mapping[int, pa.RecordBatch]) -> None:
        self.append_all({topic: records})

    def append_all(self, records: Mapping[str, Mapping[int, pa.RecordBatch]]) -> None:
        now_us = self._now_us()
        # Encoded before the transaction: other writers wait only for the disk.
        pieces: list[tuple[tuple[int, int], list[_Encoded]]] = []
        for topic, batches in records.items():
            found = self._of(topic)
            check_records(topic, batches, found.partitions)
            pieces += [
                ((found.topic_id, p), [(s.num_rows, s.nbytes, blocks.encode(blocks.stamp(s, now_us))) for s in blocks.split(b)])
                for p, b in batches.items()
            ]
        with self._file.transaction(write=True) as db:
            for place, encoded in pieces:
                (end,) = db.execute("SELECT end_offset FROM partitions WHERE topic_id = ? AND partition = ?", place).fetchone()
                for rows, size, body in encoded:
                    db.execute(_INSERT_BLOCK, (*place, end, end + rows, now_us, blocks.level_of(rows, size), body))
                    end += rows
                db.execute("UPDATE partitions SET end_offset = ? WHERE topic_id = ? AND partition = ?", (end, *place))
                while encoded and self._merge_small(db, place):
                    pass

    def expire(self, topic: str, before: Mapping[int, int], older_than_us: int) -> int:
        found = self._of(topic)
        dropped = 0
        for partition, limit in before.items():
            check_partition(topic, partition, found.partitions)
            while rows := self._expire_some((found.topic_id, partition), limit, older_than_us):
                dropped += rows
        return dropped

    def close(self) -> None:
        self._file.close()
        self._topics.clear()
        self._cut.clear()

    def _offsets(self, topic: str, column: str) -> list[int]:
        found = self._of(topic)
        with self._file.transaction() as db:
            rows = db.execute(f"SELECT {column} FROM partitions WHERE topic_id = ? ORDER BY partition", (found.topic_id,))
            return [offset for (offset,) in rows]

    def _of(self, topic: str) -> _Topic:
        if topic not in self._topics:
            known = self.topics()
            if topic not in known:
                raise unknown_topic(topic, known, str(self._file.path))
            with self._file.transaction() as db:
                row = db.execute("SELECT topic_id, generation, partitions FROM topics WHERE name = ?", (topic,)).fetchone()
            self._topics[topic] = _Topic(*row)
        return self._topics[topic]

    def _blocks_from(self, db: sqlite3.Connection, place: tuple[int, int], offset: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield (first offset, block) from the block that holds `offset` on; each is fetched only when it is asked for."""
        cut = self._cut.pop(place, None)
        if cut is not None and cut[0] <= offset < cut[0] + cut[1].num_rows:
            yield cut
            offset = cut[0] + cut[1].num_rows
        rows = db.execute(
            "SELECT first_offset, next_offset, body FROM blocks WHERE topic_id = ? AND partition = ? AND next_offset > ? ORDER BY next_offset",
            (*place, offset),
        )
        for first, following, body in rows:
            yield first, self._decode(body, following - first)

    def _decode(self, body: bytes, rows: int) -> pa.RecordBatch:
        try:
            block = blocks.decode(body)
        except (pa.ArrowInvalid, OSError) as error:
            raise FatalError(f"{self._file.path} is damaged: a block cannot be read ({error}); {WAY_OUT}") from error
        if block.num_rows != rows:
            raise FatalError(f"{self._file.path} is damaged: a block of {rows} records holds {block.num_rows}; {WAY_OUT}")
        return block

    def _merge_small(self, db: sqlite3.Connection, place: tuple[int, int]) -> bool:
        """Merge the small blocks at the end of a partition if there are enough of them; return whether it did."""
        levels = db.execute("SELECT level FROM blocks WHERE topic_id = ? AND partition = ? ORDER BY next_offset DESC", place)
        found = blocks.blocks_to_merge(level for (level,) in levels)
        levels.close()
        if found is None:
            return False
        level, count = found
        rows = db.execute(
            "SELECT block_id, first_offset, next_offset, last_append_us, body FROM blocks WHERE topic_id = ? AND partition = ? "
            "ORDER BY next_offset DESC LIMIT ?",
            (*place, count),
        ).fetchall()[::-1]
        merged = pa.concat_batches([self._decode(body, following - first) for _, first, following, _, body in rows])
        db.executemany("DELETE FROM blocks WHERE block_id = ?", [(block_id,) for block_id, *_ in rows])
        reached = max(level + 1, blocks.level_of(merged.num_rows, merged.nbytes))
        values = (rows[0][1], rows[-1][2], max(r[3] for r in rows), reached, blocks.encode(merged))
        db.execute(_INSERT_BLOCK, (*place, *values))
        return True

    def _expire_some(self, place: tuple[int, int], limit: int, older_than_us: int) -> int:
        with self._file.transaction(write=True) as db:
            (start,) = db.execute("SELECT start_offset FROM partitions WHERE topic_id = ? AND partition = ?", place).fetchone()
            oldest = db.execute(
                "SELECT next_offset, last_append_us FROM blocks WHERE topic_id = ? AND partition = ? AND next_offset <= ? "
                "ORDER BY next_offset LIMIT ?",
                (*place, limit, _EXPIRE_BLOCKS),
            ).fetchall()
            kept_from = start
            for following, last_append_us in oldest:
                if last_append_us >= older_than_us:
                    break
                kept_from = following
            db.execute("DELETE FROM blocks WHERE topic_id = ? AND partition = ? AND next_offset <= ?", (*place, kept_from))
            db.execute("UPDATE partitions SET start_offset = ? WHERE topic_id = ? AND partition = ?", (kept_from, *place))
            return int(kept_from - start)
