"""Trade ids of two kinds in two integers: numbers, and UUIDs where a venue has no numbers.

A number is (number, `NO_TAIL`). A UUID has 126 bits that vary (two tell its variant): the upper 63 are its head, the lower 63
its tail, so that pairs sort as the texts do. Nothing is hashed: two ids are one pair only if they are one id.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from market.columns import integers
from market.trade import NO_TAIL, Bools, Int64s

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_TAIL_LOW_BITS: Final = 62  # of a tail's 63 bits, those in the second half of the UUID; the other one ends the first half
_LOW_MASK: Final = 2**_TAIL_LOW_BITS - 1
_LENGTH: Final = 36
_DASHES: Final = (8, 13, 18, 23)
_DIGITS: Final = np.frombuffer(b"0123456789abcdef", np.uint8)


def uuid_halves(text: str) -> tuple[int, int] | None:
    """Return head and tail of a UUID as venues write it (lower case, RFC variant), else None."""
    if _UUID.fullmatch(text) is None:
        return None
    value = int(text.replace("-", ""), 16)
    high, low = value >> 64, value & (2**64 - 1)
    return high >> 1, (high & 1) << _TAIL_LOW_BITS | (low & _LOW_MASK)


def id_text(number: int, tail: int) -> str:
    """Return an id as the venue writes it."""
    return str(number) if tail == NO_TAIL else id_texts(np.array([number]), np.array([tail]))[0].as_py()


def id_texts(numbers: Int64s, tails: Int64s) -> pa.Array:
    """Return ids as the venue writes them."""
    are_uuids = tails != NO_TAIL
    if not are_uuids.any():
        return pc.cast(integers(numbers), pa.string())
    texts = _uuid_texts(numbers, tails)
    if are_uuids.all():
        return texts
    return pc.if_else(pa.array(are_uuids), texts, pc.cast(integers(numbers), pa.string()))


def sequence_numbers(numbers: Int64s, tails: Int64s) -> pa.Array:
    """Return ids as numbers, null where they are none."""
    are_uuids: Bools = tails != NO_TAIL
    return pa.array(numbers, pa.int64(), mask=are_uuids) if are_uuids.any() else integers(numbers)


def _uuid_texts(heads: Int64s, tails: Int64s) -> pa.Array:
    head, tail = heads.astype(np.uint64), tails.astype(np.uint64)
    halves = np.empty((len(head), 2), ">u8")
    halves[:, 0] = head << np.uint64(1) | tail >> np.uint64(_TAIL_LOW_BITS)
    halves[:, 1] = np.uint64(1 << 63) | tail & np.uint64(_LOW_MASK)
    packed = halves.view(np.uint8).reshape(-1, 16)
    digits = np.empty((len(head), 32), np.uint8)
    digits[:, 0::2], digits[:, 1::2] = _DIGITS[packed >> 4], _DIGITS[packed & 15]
    body: npt.NDArray[np.uint8] = np.insert(digits, [at - k for k, at in enumerate(_DASHES)], ord("-"), axis=1)
    offsets = np.arange(0, _LENGTH * (len(head) + 1), _LENGTH, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(head), [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(body))])
