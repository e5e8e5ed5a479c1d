"""Blocks: how records of one append lie in the SQLite log, and when small ones are merged.

A block is an Arrow IPC stream of one record batch: the append columns and `append_us`. Offsets are not in it: a block's
row says where it begins, and offsets are dense. Measured on Binance trade frames (168 bytes, one core), per record: lz4
37 bytes, written in 0.13 µs and read in 0.06 µs; zstd 19 bytes, 0.3 and 0.12 µs. Under about 1,000 records zstd pays
150 µs a block for its set-up, so small blocks, which are merged soon, are lz4 and large ones zstd.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import pyarrow as pa

from market.record import RAW_SCHEMA

BLOCK_SCHEMA: Final = pa.schema([f for f in RAW_SCHEMA if f.name != "offset"])
MAX_BLOCK_RECORDS: Final = 8_192
MAX_BLOCK_BYTES: Final = 8 << 20

FINAL_LEVEL: Final = 2  # a block of this level is never merged
_LEVEL_RECORDS: Final = (64, 1_024)  # a block of fewer records, and
_LEVEL_BYTES: Final = (16 << 10, 256 << 10)  # fewer bytes, is of level 0, or 1
MERGE_WIDTH: Final = 16  # so many blocks of a level at the end become one of the next


def level_of(records: int, size: int) -> int:
    """Return how large a block is: 0 and 1 are merged with their like, `FINAL_LEVEL` is left alone."""
    return sum(records >= r or size >= s for r, s in zip(_LEVEL_RECORDS, _LEVEL_BYTES, strict=True))


def blocks_to_merge(levels_from_end: Iterable[int]) -> tuple[int, int] | None:
    """Return (level, how many of the last blocks to merge), or None.

    A level is merged, with the smaller blocks in between, once the end holds `MERGE_WIDTH` blocks of it. A record is thus
    rewritten at most once a level, however small the appends are, and the end of a partition keeps few small blocks.

    Args:
        levels_from_end: levels of the blocks, last first.
    """
    highest, found = 0, [0] * FINAL_LEVEL
    for number, level in enumerate(levels_from_end, 1):
        if level >= FINAL_LEVEL:
            return None
        highest = max(highest, level)
        found[level] += 1
        if found[highest] == MERGE_WIDTH:
            return highest, number
    return None


def split(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    """Cut records into pieces of at most `MAX_BLOCK_RECORDS` and about `MAX_BLOCK_BYTES`."""
    rows = batch.num_rows
    per_block = MAX_BLOCK_RECORDS if rows == 0 else max(1, min(MAX_BLOCK_RECORDS, MAX_BLOCK_BYTES * rows // max(1, batch.nbytes)))
    return [batch.slice(start, per_block) for start in range(0, rows, per_block)]


def stamp(batch: pa.RecordBatch, append_us: int) -> pa.RecordBatch:
    """Add the append time to records in the append schema."""
    times = pa.array(np.full(batch.num_rows, append_us, np.int64))
    return pa.RecordBatch.from_arrays([times, *batch.columns], schema=BLOCK_SCHEMA)


def encode(block: pa.RecordBatch) -> bytes:
    """Return the bytes of a block."""
    small = level_of(block.num_rows, block.nbytes) < FINAL_LEVEL
    codec = "lz4" if small else pa.Codec("zstd", compression_level=1)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, BLOCK_SCHEMA, options=pa.ipc.IpcWriteOptions(compression=codec, use_threads=False)) as writer:
        writer.write_batch(block)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def decode(body: bytes) -> pa.RecordBatch:
    """Return the block that `encode` wrote.

    Raises:
        pa.ArrowInvalid: the bytes are not such a block.
    """
    with pa.ipc.open_stream(body, options=pa.ipc.IpcReadOptions(use_threads=False)) as reader:
        block = reader.read_next_batch()
    if not block.schema.equals(BLOCK_SCHEMA):
        raise pa.ArrowInvalid(f"block has the columns {block.schema.names}")
    return block


def with_offsets(blocks: list[pa.RecordBatch], first_offset: int) -> pa.RecordBatch:
    """Join consecutive blocks into one raw batch whose first record stands at `first_offset`."""
    joined = blocks[0] if len(blocks) == 1 else pa.concat_batches(blocks)
    offsets = pa.array(np.arange(first_offset, first_offset + joined.num_rows, dtype=np.int64))
    return pa.RecordBatch.from_arrays([offsets, *joined.columns], schema=RAW_SCHEMA)
