"""Exact decimals: 128-bit two's complement mantissas at scale 18, as (n, 2) uint64 arrays `[low, high]`.

That is the memory of Arrow's decimal128(38, 18), so columns move between numpy and Arrow without a copy. Compiled helpers
take and return the two words as separate uint64 scalars and expect values ≥ 0; sums are kept below 2^127 by their callers.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from market.jit import compiled, compiled_scan
from market.schema import DECIMAL, DECIMAL_SCALE
from market.trade import Bools, Decimals, Int64s

Words = npt.NDArray[np.uint64]

_CONTEXT: Final = Context(prec=80)
_ONE: Final = 10**DECIMAL_SCALE

_0: Final = np.uint64(0)
_1: Final = np.uint64(1)
_32: Final = np.uint64(32)
_63: Final = np.uint64(63)
_LOW32: Final = np.uint64(0xFFFFFFFF)
_1E9: Final = np.uint64(10**9)
_HALF: Final = np.uint64(5 * 10**17)
UNIT: Final = np.uint64(10**18)
"""Mantissa of 1."""

# 10^15 and 10^20 as mantissas, in words: the range of one value and of a sum.
VALUE_LIMIT: Final = 10**15 * _ONE
SUM_LIMIT: Final = 10**20 * _ONE
_VALUE_LOW: Final = np.uint64(VALUE_LIMIT & 0xFFFFFFFFFFFFFFFF)
_VALUE_HIGH: Final = np.uint64(VALUE_LIMIT >> 64)


def empty(n: int) -> Decimals:
    """Return n zeros."""
    return np.zeros((n, 2), np.uint64)


def from_ints(mantissas: Sequence[int]) -> Decimals:
    """Return mantissas at scale 18 as decimals; OverflowError beyond 128 bits."""
    raw = b"".join(m.to_bytes(16, "little", signed=True) for m in mantissas)
    return np.frombuffer(bytearray(raw), np.uint64).reshape(-1, 2)


def to_ints(values: Decimals) -> list[int]:
    """Return the mantissas at scale 18."""
    raw = np.ascontiguousarray(values).tobytes()
    return [int.from_bytes(raw[at : at + 16], "little", signed=True) for at in range(0, len(raw), 16)]


def from_int64(mantissa: Int64s, scale: int) -> Decimals:
    """Return mantissa / 10^scale (mantissa ≥ 0, 0 ≤ scale ≤ 18); exact, never overflows."""
    return scale_up(mantissa, np.uint64(10 ** (DECIMAL_SCALE - scale)))


def from_decimals(values: Sequence[Decimal]) -> Decimals:
    """Return finite decimals of at most 18 places; ValueError for one with more."""
    scaled = [_CONTEXT.scaleb(value, DECIMAL_SCALE) for value in values]
    mantissas = [int(value) for value in scaled]
    for value, mantissa in zip(scaled, mantissas, strict=True):
        if value != mantissa:
            raise ValueError(f"more than {DECIMAL_SCALE} decimals: {value.scaleb(-DECIMAL_SCALE, _CONTEXT)}")
    return from_ints(mantissas)


def to_decimals(values: Decimals) -> list[Decimal]:
    """Return Python decimals with 18 places."""
    return [Decimal(mantissa).scaleb(-DECIMAL_SCALE, _CONTEXT) for mantissa in to_ints(values)]


def to_arrow(values: Decimals) -> pa.Array:
    """Return a decimal128(38, 18) array over the same memory."""
    return pa.Array.from_buffers(DECIMAL, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def from_arrow(array: pa.Array) -> Decimals:
    """Return the words of a decimal128(38, 18) array without nulls; a read-only view of the same memory."""
    if array.type != DECIMAL or array.null_count:
        raise TypeError(f"not a {DECIMAL} array without nulls: {array.type}, {array.null_count} nulls")
    words: Decimals = np.frombuffer(array.buffers()[1], np.uint64).reshape(-1, 2)[array.offset : array.offset + len(array)]
    words.flags.writeable = False  # whatever the buffer allows: compiled functions are specialised on it
    return words


def quote_volume(price: Decimals, quantity: Decimals) -> Decimals:
    """Return price × quantity, rounded half-even at scale 18; range is the caller's check (`too_large`)."""
    return multiply(price, quantity)[0]


@compiled_scan
def mul64(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return the 128-bit product of two words, (low, high)."""
    a0, a1, b0, b1 = a & _LOW32, a >> _32, b & _LOW32, b >> _32
    low, mid1, mid2, high = a0 * b0, a1 * b0, a0 * b1, a1 * b1
    carry = (low >> _32) + (mid1 & _LOW32) + (mid2 & _LOW32)
    return (low & _LOW32) | (carry << _32), high + (mid1 >> _32) + (mid2 >> _32) + (carry >> _32)


@compiled_scan
def add128(a_low: np.uint64, a_high: np.uint64, b_low: np.uint64, b_high: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return the sum, (low, high); wraps at 2^128."""
    low = a_low + b_low
    return low, a_high + b_high + (_1 if low < a_low else _0)


@compiled_scan
def less128(a_low: np.uint64, a_high: np.uint64, b_low: np.uint64, b_high: np.uint64) -> bool:
    """Return a < b for values ≥ 0."""
    return bool(a_high < b_high or (a_high == b_high and a_low < b_low))


@compiled_scan
def _divide_word(remainder: np.uint64, word: np.uint64) -> tuple[np.uint64, np.uint64]:
    # One step of long division by 10^9: (remainder·2^64 + word) / 10^9 with remainder < 10^9, in 32-bit halves.
    top = (remainder << _32) | (word >> _32)
    quotient = top // _1E9
    low = ((top - quotient * _1E9) << _32) | (word & _LOW32)
    rest = low // _1E9
    return (quotient << _32) | rest, low - rest * _1E9


@compiled_scan
def _divide_words(
    w3: np.uint64, w2: np.uint64, w1: np.uint64, w0: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64, np.uint64]:
    # 256-bit / 10^9: quotient words, most significant first, and remainder.
    remainder = _0
    if w3 != _0:
        w3, remainder = _divide_word(remainder, w3)
    if w3 | w2 | remainder != _0:
        w2, remainder = _divide_word(remainder, w2)
    w1, remainder = _divide_word(remainder, w1)
    w0, remainder = _divide_word(remainder, w0)
    return w3, w2, w1, w0, remainder


@compiled_scan
def mul128(a_low: np.uint64, a_high: np.uint64, b_low: np.uint64, b_high: np.uint64) -> tuple[np.uint64, np.uint64, bool]:
    """Return the product of two values at scale 18, rounded half-even at scale 18: (low, high, overflow).

    `overflow`: the result is ≥ 2^127 and the words are meaningless.
    """
    w0, w1 = mul64(a_low, b_low)
    w2, w3 = _0, _0
    if a_high != _0:
        low, high = mul64(a_high, b_low)
        w1, w2 = add128(w1, w2, low, high)
    if b_high != _0:
        low, high = mul64(a_low, b_high)
        w1, added = add128(w1, _0, low, high)
        w2, w3 = add128(w2, w3, added, _0)
        if a_high != _0:
            low, high = mul64(a_high, b_high)
            w2, w3 = add128(w2, w3, low, high)
    w3, w2, w1, w0, first = _divide_words(w3, w2, w1, w0)
    w3, w2, w1, w0, second = _divide_words(w3, w2, w1, w0)
    rest = second * _1E9 + first
    if rest > _HALF or (rest == _HALF and w0 & _1 == _1):
        w0, w1 = add128(w0, w1, _1, _0)
    return w0, w1, bool((w3 | w2) != _0 or (w1 >> _63) != _0)


@compiled
def scale_up(mantissa: Int64s, factor: np.uint64) -> Decimals:
    """Return mantissa × factor as decimals (both ≥ 0)."""
    out = np.empty((len(mantissa), 2), np.uint64)
    for k in range(len(mantissa)):
        out[k, 0], out[k, 1] = mul64(np.uint64(mantissa[k]), factor)
    return out


@compiled
def multiply(a: Decimals, b: Decimals) -> tuple[Decimals, Bools]:
    """Return a × b rounded half-even at scale 18, and which results do not fit into 127 bits (operands ≥ 0)."""
    out = np.empty((len(a), 2), np.uint64)
    overflow = np.empty(len(a), np.bool_)
    for k in range(len(a)):
        out[k, 0], out[k, 1], overflow[k] = mul128(a[k, 0], a[k, 1], b[k, 0], b[k, 1])
    return out, overflow


@compiled
def too_large(values: Decimals) -> Bools:
    """Return which values (≥ 0) are 10^15 or more: out of range for a price, quantity or product."""
    out = np.empty(len(values), np.bool_)
    for k in range(len(values)):
        out[k] = not less128(values[k, 0], values[k, 1], _VALUE_LOW, _VALUE_HIGH)
    return out


@compiled_scan
def _long_divide(u: Words, v: Words, q: Words) -> None:
    # Knuth, The Art of Computer Programming 2, 4.3.1, algorithm D in base 2^32: v has 4 digits, the top one ≥ 2^31; u has
    # len(q) + 4 digits, the top one 0, and becomes the remainder. Digits stand least significant first.
    for j in range(len(q) - 1, -1, -1):
        top = (u[j + 4] << _32) | u[j + 3]
        guess = top // v[3]
        rest = top - guess * v[3]
        while guess > _LOW32 or guess * v[2] > ((rest << _32) | u[j + 2]):
            guess -= _1
            rest += v[3]
            if rest > _LOW32:
                break
        borrow = _0
        for k in range(4):
            product = guess * v[k] + borrow
            part = u[j + k] - (product & _LOW32)
            u[j + k] = part & _LOW32
            borrow = (product >> _32) + (part >> _63)
        part = u[j + 4] - borrow
        u[j + 4] = part & _LOW32
        if part >> _63 == _1:  # the guess was one too high: add back
            guess -= _1
            carry = _0
            for k in range(4):
                total = u[j + k] + v[k] + carry
                u[j + k] = total & _LOW32
                carry = total >> _32
            u[j + 4] = (u[j + 4] + carry) & _LOW32
        q[j] = guess


@compiled_scan
def _spread(words: Words, shift: np.uint64, out: Words) -> None:
    # Words shifted left by less than 32 bits, as 32-bit digits.
    carry = _0
    for k in range(len(out)):
        digit = _0
        if k < 2 * len(words):
            digit = (words[k >> 1] >> _32) if k & 1 else (words[k >> 1] & _LOW32)
        wide = (digit << shift) | carry
        out[k] = wide & _LOW32
        carry = wide >> _32


@compiled
def divide(a: Decimals, b: Decimals) -> Decimals:
    """Return a / b rounded half-even at scale 18 (a ≥ 0, b ≥ 0, quotient below 10^20); 0 where b is 0."""
    out = np.empty((len(a), 2), np.uint64)
    numerator, divisor = np.empty(3, np.uint64), np.empty(2, np.uint64)
    u, v, q = np.empty(14, np.uint64), np.empty(4, np.uint64), np.empty(10, np.uint64)
    for k in range(len(a)):
        if b[k, 0] | b[k, 1] == _0:
            out[k] = _0
            continue
        numerator[0], high = mul64(a[k, 0], UNIT)
        low, top = mul64(a[k, 1], UNIT)
        numerator[1], numerator[2] = add128(low, top, high, _0)
        divisor[0], divisor[1] = b[k, 0], b[k, 1]
        # Make the divisor four full digits: whole digits first, then bits; the quotient stays the same.
        digits = 0
        while divisor[1] >> _32 == _0:
            divisor[1] = (divisor[1] << _32) | (divisor[0] >> _32)
            divisor[0] <<= _32
            digits += 1
        shift = _0
        while (divisor[1] << shift) >> _63 == _0:
            shift += _1
        _spread(divisor, shift, v)
        u[:] = _0
        _spread(numerator, shift, u[digits:])
        _long_divide(u, v, q)
        low, high = q[0] | (q[1] << _32), q[2] | (q[3] << _32)
        if _rounds_up(u, v, low & _1):
            low, high = add128(low, high, _1, _0)
        out[k, 0], out[k, 1] = low, high
    return out


@compiled_scan
def _rounds_up(rest: Words, divisor: Words, odd: np.uint64) -> bool:
    # 2·rest against the divisor, from the top digit down; `rest` is below the divisor.
    carry, order = _0, 0
    doubled = rest[3] >> np.uint64(31)
    if doubled != _0:
        return True
    for k in range(4):
        wide = (rest[k] << _1) | carry
        digit = wide & _LOW32
        carry = wide >> _32
        if digit != divisor[k]:
            order = 1 if digit > divisor[k] else -1
    return bool(order > 0 or (order == 0 and odd == _1))
