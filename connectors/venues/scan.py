"""Compiled pieces that venue scanners are made of: strict reading of compact JSON as venues write it.

Each takes bytes and a position and returns the position after what it read, or `FAILED` for anything else than the plain
form: escapes, spaces, non-ASCII text, nesting, exponents, signs, duplicate keys. A frame on which any piece fails is read
again by the complete reader (`text.py`), so a piece may refuse but must never misread.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from connectors.venues.columns import CONTROL, UNREAD, Bytes, Frames, Symbols, Texts
from market.exact import add128, mul64
from market.jit import compiled_scan
from market.trade import Decimals, Int64s

FAILED: Final = -1
NO_TIME: Final = -(2**63)

# Kinds of values in `spans`.
ABSENT: Final = 0
TEXT: Final = 1
NUMBER: Final = 2
TRUE: Final = 3
FALSE: Final = 4

_QUOTE: Final = 34
_DOT: Final = 46
_ZERO: Final = 48
_NINE: Final = 57
_COLON: Final = 58
_BACKSLASH: Final = 92
_OPEN: Final = 123
_CLOSE: Final = 125
_LIST: Final = 91
_LIST_END: Final = 93
_COMMA: Final = 44
_SPACE: Final = 32
_DELETE: Final = 127

_NAME_BYTES: Final = 16
_WORD_BYTES: Final = 8
_PLACES: Final = 18
_WHOLE_LIMIT: Final = 10**15
_UNIT: Final = np.uint64(10**18)
_NO_WORD: Final = np.uint64(0)
_POWERS: Final = np.array([10**k for k in range(19)], np.int64)
_DAYS: Final = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)

Spans = Int64s
Names = npt.NDArray[np.int64]


def names(*keys: str) -> Names:
    """Return object keys (ASCII, at most 16 characters) as scanners compare them: two words each."""
    packed = [k.encode().ljust(_NAME_BYTES, b"\0") for k in keys]
    return np.frombuffer(b"".join(packed), np.int64).reshape(-1, 2)


def spans_for(keys: Names) -> Spans:
    """Return room for what `scan_object` finds."""
    return np.empty((len(keys) + 1, 3), np.int64)


def plain(text: str) -> Bytes:
    """Return a fixed text as scanners compare it."""
    return np.frombuffer(text.encode(), np.uint8)


_STREAM: Final = plain('{"stream":"')
_DATA: Final = plain('","data":')


@compiled_scan
def literal(data: Bytes, at: int, end: int, text: Bytes) -> int:
    """Return the position after `text`, which must stand at `at`."""
    if at < 0 or at + len(text) > end:
        return FAILED
    for k in range(len(text)):
        if data[at + k] != text[k]:
            return FAILED
    return at + len(text)


@compiled_scan
def _eight(text: Bytes, at: int) -> int:
    # Eight bytes as one number: the machine loads them at once, since no place is negative.
    word = 0
    for k in range(_WORD_BYTES):
        word |= int(np.int64(text[np.uintp(at + k)])) << (8 * k)
    return word


@compiled_scan
def excerpt(data: Bytes, at: int, end: int, text: Bytes, first: int, last: int) -> int:
    """Return the position after `text[first:last]`, which must stand at `at`."""
    length = last - first
    if at < 0 or at + length > end:
        return FAILED
    if length < _WORD_BYTES:
        for k in range(length):
            if data[at + k] != text[first + k]:
                return FAILED
        return at + length
    for k in range(0, length - _WORD_BYTES, _WORD_BYTES):
        if _eight(data, at + k) != _eight(text, first + k):
            return FAILED
    return at + length if _eight(data, at + length - _WORD_BYTES) == _eight(text, last - _WORD_BYTES) else FAILED


@compiled_scan
def is_text(data: Bytes, start: int, stop: int, text: Bytes) -> bool:
    """Return whether exactly `text` stands between two positions."""
    return stop - start == len(text) and literal(data, start, stop, text) == stop


@compiled_scan
def _any_of(data: Bytes, at: int, end: int, table: Texts) -> bool:
    # Whether one of the texts stands at a position.
    for k in range(len(table.starts) - 1):
        if excerpt(data, at, end, table.data, int(table.starts[k]), int(table.starts[k + 1])) >= 0:
            return True
    return False


@compiled_scan
def text_end(data: Bytes, at: int, end: int) -> int:
    """Return the position of the quote that ends the plain text from `at` on."""
    while at < end:
        c = data[at]
        if c == _QUOTE:
            return at
        if c < _SPACE or c >= _DELETE or c == _BACKSLASH:
            return FAILED
        at += 1
    return FAILED


@compiled_scan
def unwrapped(data: Bytes, start: int, end: int) -> int:
    """Return where a frame's own document begins: after `{"stream":"…","data":`, or at `start` without it."""
    at = literal(data, start, end, _STREAM)
    if at < 0:
        return start
    return literal(data, text_end(data, at, end), end, _DATA)


@compiled_scan
def mark_other_channels(frames: Frames, others: Texts) -> None:
    """Mark the unread frames whose document begins as those of channels without trades do: most frames of a recording."""
    for row in range(len(frames.status)):
        if frames.status[row] == UNREAD:
            end = int(frames.starts[row + 1])
            at = unwrapped(frames.data, int(frames.starts[row]), end)
            if at >= 0 and _any_of(frames.data, at, end, others):
                frames.status[row] = CONTROL


@compiled_scan
def number_end(data: Bytes, at: int, end: int) -> int:
    """Return the position after a plain JSON number: digits, at most one dot between digits, no leading zero."""
    first = at
    while at < end and _ZERO <= data[at] <= _NINE:
        at += 1
    if at == first or (data[first] == _ZERO and at > first + 1):
        return FAILED
    if at < end and data[at] == _DOT:
        dot = at
        at += 1
        while at < end and _ZERO <= data[at] <= _NINE:
            at += 1
        if at == dot + 1:
            return FAILED
    return at


@compiled_scan
def _value(data: Bytes, at: int, end: int, spans: Spans, slot: int) -> int:
    # Read one scalar into a slot (kind, start, stop); returns the position after it.
    if at >= end:
        return FAILED
    c = data[at]
    if c == _QUOTE:
        stop = text_end(data, at + 1, end)
        spans[slot, 0], spans[slot, 1], spans[slot, 2] = TEXT, at + 1, stop
        return stop + 1 if stop >= 0 else FAILED
    if c == 116 and at + 4 <= end and data[at + 1] == 114 and data[at + 2] == 117 and data[at + 3] == 101:
        spans[slot, 0] = TRUE
        return at + 4
    if c == 102 and at + 5 <= end and data[at + 1] == 97 and data[at + 2] == 108 and data[at + 3] == 115 and data[at + 4] == 101:
        spans[slot, 0] = FALSE
        return at + 5
    stop = number_end(data, at, end)
    spans[slot, 0], spans[slot, 1], spans[slot, 2] = NUMBER, at, stop
    return stop


@compiled_scan
def _key(data: Bytes, at: int, end: int) -> tuple[int, int, int]:
    # Read `"key":`; returns the position after it and the key in two words as `names` has them.
    low, high = 0, 0
    if at >= end or data[at] != _QUOTE:
        return FAILED, low, high
    first = at + 1
    at = text_end(data, first, end)
    if at < 0 or at - first > _NAME_BYTES or at + 1 >= end or data[at + 1] != _COLON:
        return FAILED, low, high
    for k in range(first, at):
        c = int(np.int64(data[k]))
        if k - first < _WORD_BYTES:
            low |= c << (8 * (k - first))
        else:
            high |= c << (8 * (k - first - _WORD_BYTES))
    return at + 2, low, high


@compiled_scan
def _slot(keys: Names, low: int, high: int, expected: int) -> int:
    # Venues keep the order of their keys: the next one is mostly the one after the last. `len(keys)`: not ours.
    for step in range(len(keys)):
        k = expected + step
        while k >= len(keys):
            k -= len(keys)
        if keys[k, 0] == low and keys[k, 1] == high:
            return k
    return len(keys)


@compiled_scan
def scan_object(data: Bytes, at: int, end: int, keys: Names, spans: Spans) -> int:
    """Read one flat object; `spans[k]` becomes (kind, start, stop) of the value of key k.

    `spans` has one row more than `keys`, for values of other keys.
    """
    others = len(keys)
    for k in range(others):
        spans[k, 0] = ABSENT
    if at < 0 or at >= end or data[at] != _OPEN:
        return FAILED
    slot = others
    while True:
        at, low, high = _key(data, at + 1, end)
        slot = _slot(keys, low, high, slot + 1)
        if at < 0 or (slot < others and spans[slot, 0] != ABSENT):
            return FAILED
        at = _value(data, at, end, spans, slot)
        if at < 0 or at >= end:
            return FAILED
        if data[at] == _CLOSE:
            return at + 1
        if data[at] != _COMMA:
            return FAILED


@compiled_scan
def nesting(data: Bytes) -> int:
    """Return how deep objects and lists are nested in a text that may be any JSON."""
    deepest, depth = 0, 0
    inside = False
    at = 0
    while at < len(data):
        c = data[at]
        if inside:
            if c == _BACKSLASH:
                at += 1
            elif c == _QUOTE:
                inside = False
        elif c == _QUOTE:
            inside = True
        elif c in (_OPEN, _LIST):
            depth += 1
            deepest = max(deepest, depth)
        elif c in (_CLOSE, _LIST_END):
            depth -= 1
        at += 1
    return deepest


@compiled_scan
def integer(data: Bytes, start: int, stop: int) -> int:
    """Return the value of 1-18 digits; `FAILED` for anything else."""
    if stop <= start or stop - start > _PLACES:
        return FAILED
    value = 0
    for at in range(start, stop):
        c = int(np.int64(data[at]))
        if c < _ZERO or c > _NINE:
            return FAILED
        value = value * 10 + (c - _ZERO)
    return value


@compiled_scan
def decimal(data: Bytes, start: int, stop: int, out: Decimals, row: int) -> bool:
    """Write a decimal 0 < x < 10^15 of at most 18 places at scale 18 to `out[row]`; returns whether it is one."""
    at = start
    while at < stop and _ZERO <= data[at] <= _NINE:
        at += 1
    units = integer(data, start, at)
    if units < 0 or units >= _WHOLE_LIMIT:
        return False
    part = 0
    if at < stop:
        places = stop - at - 1
        part = integer(data, at + 1, stop)
        if data[at] != _DOT or part < 0:
            return False
        part *= int(_POWERS[_PLACES - places])
    if units == 0 and part == 0:
        return False
    low, high = mul64(np.uint64(units), _UNIT)
    out[row, 0], out[row, 1] = add128(low, high, np.uint64(part), _NO_WORD)
    return True


@compiled_scan
def rfc3339(data: Bytes, start: int, stop: int) -> int:
    """Return `YYYY-MM-DDTHH:MM:SS[.f]Z` with at most 9 decimals, cut to µs, as epoch µs; `NO_TIME` for anything else."""
    length = stop - start
    if length < 20 or length == 21 or length > 30 or data[stop - 1] != 90:
        return NO_TIME
    if data[start + 4] != 45 or data[start + 7] != 45 or data[start + 10] != 84 or data[start + 13] != 58 or data[start + 16] != 58:
        return NO_TIME
    year = integer(data, start, start + 4)
    month = integer(data, start + 5, start + 7)
    day = integer(data, start + 8, start + 10)
    hour = integer(data, start + 11, start + 13)
    minute = integer(data, start + 14, start + 16)
    second = integer(data, start + 17, start + 19)
    if year < 1 or month < 1 or month > 12 or hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return NO_TIME
    leap = 1 if month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 0
    if day < 1 or day > _DAYS[month - 1] + leap:
        return NO_TIME
    part = 0
    if length > 20:
        places = length - 21
        part = integer(data, start + 20, stop - 1)
        if data[start + 19] != _DOT or part < 0:
            return NO_TIME
        part = part * int(_POWERS[6 - places]) if places <= 6 else part // int(_POWERS[places - 6])
    # Days since the epoch, with years that begin in March so that the leap day is the last of its year.
    y = year if month > 2 else year - 1
    m = month - 3 if month > 2 else month + 9
    days = 365 * y + y // 4 - y // 100 + y // 400 + (153 * m + 2) // 5 + day - 1 - 719_468
    return ((days * 24 + hour) * 60 + minute) * 60_000_000 + second * 1_000_000 + part


@compiled_scan
def symbol_code(data: Bytes, start: int, stop: int, symbols: Symbols, likely: int) -> int:
    """Return the code of the instrument whose venue symbol stands between two positions; `FAILED` if none is listed."""
    if likely >= 0 and _compare(data, start, stop, symbols, likely) == 0:
        return likely
    low, high = 0, len(symbols.order)
    while low < high:
        middle = (low + high) // 2
        code = int(symbols.order[middle])
        order = _compare(data, start, stop, symbols, code)
        if order == 0:
            return code
        if order < 0:
            high = middle
        else:
            low = middle + 1
    return FAILED


@compiled_scan
def _compare(data: Bytes, start: int, stop: int, symbols: Symbols, code: int) -> int:
    # Order of the text between two positions against a listed symbol, by (length, bytes): < 0, 0 or > 0.
    first = int(symbols.starts[code])
    length = int(symbols.starts[code + 1]) - first
    if stop - start != length:
        return stop - start - length
    for k in range(length):
        difference = int(np.int64(data[start + k])) - int(np.int64(symbols.data[first + k]))
        if difference != 0:
            return difference
    return 0
