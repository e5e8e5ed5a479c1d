"""Arrow columns as numpy arrays over the same memory, and back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from market.schema import TIMESTAMP
from market.trade import Int64s


def int64_view(column: pa.Array) -> Int64s:
    """Return a read-only view of an int64 or timestamp column without nulls (timestamps as epoch µs).

    Always read-only: compiled functions are specialised on that.
    """
    if column.null_count:
        raise TypeError(f"column with {column.null_count} nulls")
    words: Int64s = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column)]
    words.flags.writeable = False
    return words


def timestamps(epoch_us: Int64s) -> pa.Array:
    """Return epoch µs as a UTC timestamp column over the same memory."""
    return pa.Array.from_buffers(TIMESTAMP, len(epoch_us), [None, pa.py_buffer(np.ascontiguousarray(epoch_us))])


def integers(values: Int64s) -> pa.Array:
    """Return an int64 column over the same memory."""
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])
