"""One compiled scanner for every venue whose frames can be told as a table: what stands around trades, and their fields.

A frame is a text with holes. `<~>` is any plain text (up to its quote), `<#>` any number, `<sign>` an optional minus, `<{}>`
one trade as a flat object, `<[]>` a list of them, and `<name>` the value of a trade's field that stands in the frame. `<one|other>`
is one of two words: after the other one, the trades of the next list are past ones. What stands between `<(>` and `<,)>` may come
again after a comma:

    {"topic":"publicTrade.<~>","ts":<ts>,"type":"snapshot","data":<[]>}
    {"timestamp":"<timestamp>","events":[<(>{"type":"<update|snapshot>","trades":<[]>}<,)>]}

Objects may carry keys that are not named here, in any order. Whatever does not fit exactly is left to the complete reader.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from connectors.venues import scan
from connectors.venues.columns import CONTROL, TRADES, UNREAD, WANTED, Bytes, Columns, Frames, Symbols
from connectors.venues.scan import (
    ABSENT,
    FAILED,
    NUMBER,
    TEXT,
    Names,
    Spans,
    decimal,
    excerpt,
    integer,
    number_end,
    rfc3339,
    scan_object,
    symbol_code,
    text_end,
)
from market.jit import compiled_scan
from market.trade import NO_TAIL, Int64s

LATEST_US: Final = 10**16  # a time at or past it is none

# How times are written: µs of one unit, or as text.
MS: Final = 1000
US: Final = 1
RFC3339: Final = 0

# What a trade is made of. FIXED: a field that must hold a given text. WORD: the venue's extra field, which may be missing.
ROLES: Final = ("symbol", "id", "time", "price", "quantity", "side", "event", "fixed", "word")
_SYMBOL, _ID, _TIME, _PRICE, _QUANTITY, _SIDE, _EVENT, _FIXED, _WORD = range(len(ROLES))
_NEEDED: Final = (_ID, _TIME, _PRICE, _QUANTITY, _SIDE)

# What stands after a plain part of a frame.
_NOTHING, _EITHER, _AGAIN, _TEXT_HOLE, _NUMBER_HOLE, _SIGN, _OBJECT, _LIST = range(8)
_HOLES: Final = {"": _NOTHING, "(": _NOTHING, "~": _TEXT_HOLE, "#": _NUMBER_HOLE, "sign": _SIGN, "{}": _OBJECT, "[]": _LIST}
_NOWHERE: Final = len(ROLES)  # the row of `spans` for values that nobody wants
_NO_KEY: Final = "\x01"  # cannot be written in JSON without an escape
_HOLE: Final = re.compile(r"<([^<>]+)>")

_MINUS: Final = 45
_COMMA: Final = 44
_LIST_START: Final = 91
_LIST_END: Final = 93
_ID_DIGITS: Final = 18  # any number of so many digits fits
_ID_LIMIT: Final = 2**63 - 1

# The rows of `Program.words`: what a buy, a sale and the fixed field say, then what the extra field mostly says.
_BUY, _SELL, _FIXED_TEXT, _FIRST_WORD = range(4)


class Program(NamedTuple):
    """A layout as the scanner reads it.

    Row k of `steps` is a plain part of a frame (first, last in `text`), what stands after it, and of which role, word or step that
    is. Frame k has the rows from `frames[k]` on; the first `trade_frames` of them hold trades. `kinds`: the kind of value of each
    role, `ABSENT` for those a layout does without; `around`: those that stand around a trade's object, `needed`: those that every
    trade has. `words`: where in `text` each word stands, the first `own_words` being those of trades. `must`: the fixed field may
    not be missing. `uuids`: ids are no numbers.
    """

    steps: Int64s
    frames: Int64s
    trade_frames: int
    text: Bytes
    keys: Names
    kinds: Int64s
    around: Int64s
    needed: Int64s
    words: Int64s
    own_words: int
    unit_us: int
    must: bool
    uuids: bool


class _Texts:
    # Texts end to end, and where each stands.
    def __init__(self) -> None:
        self.body = b""

    def add(self, text: str) -> tuple[int, int]:
        first = len(self.body)
        self.body += text.encode()
        return first, len(self.body)


def program(
    frames: Sequence[str],
    others: Sequence[str],
    fields: Mapping[str, str],
    texts: frozenset[str],
    words: Sequence[str],
    unit_us: int,
    *,
    must: bool,
    uuids: bool,
) -> Program:
    """Return a layout in the scanner's form.

    Args:
        frames: frames with trades, with holes.
        others: frames without trades, with holes.
        fields: field name by role; roles may be missing.
        texts: the fields that are JSON strings; the others are numbers.
        words: what the side says of a buy and of a sale, what the fixed field says, what the extra field mostly says.
        unit_us: how times are written: `MS`, `US` or `RFC3339`.
        must: the fixed field may not be missing.
        uuids: ids are UUIDs.

    Raises:
        ValueError: the event's field is no hole of the frames.
    """
    text = _Texts()
    roles = {fields[role]: k for k, role in enumerate(ROLES) if role in fields}
    spans = [text.add(word) for word in words]
    steps: list[tuple[int, int, int, int]] = []
    starts, placed, again = [0], set(), 0
    for frame in (*frames, *others):
        parts = [*_HOLE.split(frame), ""]
        for plain, hole in zip(parts[::2], parts[1::2], strict=True):
            what, which = _HOLES.get(hole, _TEXT_HOLE if hole in texts else _NUMBER_HOLE), roles.get(hole, _NOWHERE)
            placed |= {which} - {_NOWHERE}
            if "|" in hole:
                what, which = _EITHER, len(spans)
                spans += [text.add(word) for word in hole.split("|")]
            elif hole == ",)":
                what, which = _AGAIN, again
            steps.append((*text.add(plain), what, which))
            again = len(steps) if hole == "(" else again
        starts.append(len(steps))
    if "event" in fields and _EVENT not in placed:
        raise ValueError(f"the frame's own time, {fields['event']}, is no hole of {frames}")
    names = [_NO_KEY if k in placed else fields.get(role, _NO_KEY) for k, role in enumerate(ROLES)]
    kinds = [ABSENT if role not in fields else TEXT if fields[role] in texts else NUMBER for role in ROLES]
    return Program(
        steps=np.array(steps, np.int64),
        frames=np.array(starts, np.int64),
        trade_frames=len(frames),
        text=np.frombuffer(text.body, np.uint8),
        keys=scan.names(*names),
        kinds=np.array(kinds, np.int64),
        around=np.array(sorted(placed - {_EVENT}), np.int64),
        needed=np.array(_NEEDED, np.int64),
        words=np.array(spans, np.int64),
        own_words=len(words),
        unit_us=unit_us,
        must=must,
        uuids=uuids,
    )


@compiled_scan
def _says(data: Bytes, spans: Spans, role: int, layout: Program, word: int) -> bool:
    # Whether a value is exactly a word of the layout.
    first, last = layout.words[word, 0], layout.words[word, 1]
    start, stop = spans[role, 1], spans[role, 2]
    return stop - start == last - first and excerpt(data, start, stop, layout.text, first, last) == stop


@compiled_scan
def _identifier(data: Bytes, start: int, stop: int) -> int:
    # Digits below 2^63.
    if stop - start <= _ID_DIGITS:
        return integer(data, start, stop)
    if stop - start > _ID_DIGITS + 1:
        return FAILED
    head, last = integer(data, start, stop - 1), integer(data, stop - 1, stop)
    if head < 0 or last < 0 or head > (_ID_LIMIT - last) // 10:
        return FAILED
    return head * 10 + last


@compiled_scan
def _hexadecimal(data: Bytes, start: int, stop: int, value: int) -> int:
    # `value` with the lower-case hexadecimal digits of a text behind it; 63 bits at most.
    for at in range(start, stop):
        c = int(np.int64(data[at]))
        if 48 <= c <= 57:
            c -= 48
        elif 97 <= c <= 102:
            c -= 87
        else:
            return FAILED
        if value >= 0:
            value = value << 4 | c
    return value


@compiled_scan
def _uuid(data: Bytes, start: int, stop: int) -> tuple[int, int]:
    # Head and tail of a UUID of the RFC's variant, as `market.ids` has them.
    if stop - start != 36 or data[start + 8] != _MINUS or data[start + 13] != _MINUS or data[start + 18] != _MINUS:
        return FAILED, NO_TAIL
    upper = _hexadecimal(data, start, start + 8, 0)
    middle = _hexadecimal(data, start + 14, start + 18, _hexadecimal(data, start + 9, start + 13, 0))
    variant = _hexadecimal(data, start + 19, start + 23, 0)
    lower = _hexadecimal(data, start + 24, stop, 0)
    if data[start + 23] != _MINUS or upper < 0 or middle < 0 or variant >> 14 != 2 or lower < 0:
        return FAILED, NO_TAIL
    return upper << 31 | middle >> 1, (middle & 1) << 62 | (variant & 0x3FFF) << 48 | lower


@compiled_scan
def _time_us(data: Bytes, spans: Spans, role: int, unit_us: int) -> int:
    if unit_us == RFC3339:
        return max(rfc3339(data, spans[role, 1], spans[role, 2]), FAILED)
    value = integer(data, spans[role, 1], spans[role, 2])
    return value * unit_us if 0 <= value < LATEST_US // unit_us else FAILED


@compiled_scan
def _hole_end(data: Bytes, at: int, end: int, what: int, spans: Spans, role: int) -> int:
    # Read what stands in a hole of a frame.
    spans[role, 0], spans[role, 1] = NUMBER if what == _NUMBER_HOLE else TEXT, at
    if what == _TEXT_HOLE:
        stop = text_end(data, at, end)
    elif what == _NUMBER_HOLE:
        stop = number_end(data, at, end)
    else:
        stop = at + 1 if at < end and data[at] == _MINUS else at
    spans[role, 2] = stop
    return stop


@compiled_scan
def _side(data: Bytes, layout: Program, spans: Spans) -> int:
    # 1 if the taker bought, 0 if it sold; `FAILED` also if the fixed field says something else.
    there = spans[_FIXED, 0] != ABSENT
    if layout.kinds[_FIXED] != ABSENT and (layout.must or there) and not (there and spans[_FIXED, 0] == layout.kinds[_FIXED]):
        return FAILED
    if layout.kinds[_FIXED] != ABSENT and there and not _says(data, spans, _FIXED, layout, _FIXED_TEXT):
        return FAILED
    if _says(data, spans, _SIDE, layout, _BUY):
        return 1
    return 0 if _says(data, spans, _SIDE, layout, _SELL) else FAILED


@compiled_scan
def _word(data: Bytes, layout: Program, spans: Spans) -> int:
    # Number of the word in the extra field, from 1; 0 without one, `FAILED` for an unusual one.
    if layout.kinds[_WORD] == ABSENT or spans[_WORD, 0] == ABSENT:
        return 0
    for word in range(_FIRST_WORD, layout.own_words):
        if spans[_WORD, 0] == TEXT and _says(data, spans, _WORD, layout, word):
            return word - _FIRST_WORD + 1
    return FAILED


@compiled_scan
def _trade(data: Bytes, layout: Program, spans: Spans, out: Columns, n: int) -> bool:
    # Read the fields of one trade of the record's own symbol into out[n].
    for role in layout.needed:
        if spans[role, 0] != layout.kinds[role]:
            return False
    side, word = _side(data, layout, spans), _word(data, layout, spans)
    out.is_buy[n], out.is_snapshot[n], out.vendor[n] = side == 1, False, word
    if layout.uuids:
        out.trade_id[n], out.id_tail[n] = _uuid(data, spans[_ID, 1], spans[_ID, 2])
    else:
        out.trade_id[n] = _identifier(data, spans[_ID, 1], spans[_ID, 2])
    out.time_us[n] = out.event_us[n] = _time_us(data, spans, _TIME, layout.unit_us)
    if side < 0 or word < 0 or out.trade_id[n] < 0 or out.time_us[n] < 0:
        return False
    return decimal(data, spans[_PRICE, 1], spans[_PRICE, 2], out.price, n) and decimal(
        data, spans[_QUANTITY, 1], spans[_QUANTITY, 2], out.quantity, n
    )


@compiled_scan
def _take(frames: Frames, row: int, symbols: Symbols, layout: Program, spans: Spans, holes: Spans, out: Columns, n: int) -> int:
    # Read one trade into out[n] if it is of the record's own symbol: 1 if it is, 0 if not, `FAILED` for the complete reader.
    for role in layout.around:
        spans[role, 0], spans[role, 1], spans[role, 2] = holes[role, 0], holes[role, 1], holes[role, 2]
    data, key = frames.data, int(frames.codes[row])
    code = key
    if layout.kinds[_SYMBOL] != ABSENT:
        there = spans[_SYMBOL, 0] == layout.kinds[_SYMBOL]
        code = symbol_code(data, spans[_SYMBOL, 1], spans[_SYMBOL, 2], symbols, key) if there else FAILED
    if code < 0 or n >= len(out.row):
        return FAILED
    if code != key:
        return 0
    out.row[n], out.symbol[n] = row, code
    return 1 if _trade(data, layout, spans, out, n) else FAILED


@compiled_scan
def _list(
    frames: Frames, row: int, symbols: Symbols, layout: Program, at: int, spans: Spans, holes: Spans, out: Columns, n: int
) -> tuple[int, int]:
    # Read the trades of a list; returns the position after it, and how far `out` is filled.
    data, end = frames.data, int(frames.starts[row + 1])
    if at < 0 or at >= end or data[at] != _LIST_START:
        return FAILED, n
    while True:
        at = scan_object(data, at + 1, end, layout.keys, spans)
        taken = _take(frames, row, symbols, layout, spans, holes, out, n) if at >= 0 else FAILED
        if taken < 0 or at >= end:
            return FAILED, n
        n += taken
        if data[at] == _LIST_END:
            return at + 1, n
        if data[at] != _COMMA:
            return FAILED, n


@compiled_scan
def _either(data: Bytes, at: int, end: int, layout: Program, word: int) -> tuple[int, bool]:
    # Position after one of two words, and whether it is the other one.
    after = excerpt(data, at, end, layout.text, layout.words[word, 0], layout.words[word, 1])
    if after >= 0:
        return after, False
    return excerpt(data, at, end, layout.text, layout.words[word + 1, 0], layout.words[word + 1, 1]), True


@compiled_scan
def _stamped(data: Bytes, layout: Program, holes: Spans, out: Columns, first: int, n: int) -> bool:
    # Write the frame's own time, if it has one, to the trades out[first:n]; returns whether it can be read.
    if layout.kinds[_EVENT] == ABSENT or n == first:
        return True
    event_us = _time_us(data, holes, _EVENT, layout.unit_us)
    for trade in range(first, n):
        out.event_us[trade] = event_us
    return event_us >= 0


@compiled_scan
def _frame(
    frames: Frames, row: int, symbols: Symbols, layout: Program, form: int, spans: Spans, holes: Spans, out: Columns, first: int
) -> tuple[bool, int]:
    # Read one frame of one form into out[first:]; returns whether it is of that form, and the number of trades.
    data, end = frames.data, int(frames.starts[row + 1])
    at, n = int(frames.starts[row]), first
    step, last = int(layout.frames[form]), int(layout.frames[form + 1])
    is_list = is_past = False
    while step < last and at >= 0:
        at = excerpt(data, at, end, layout.text, layout.steps[step, 0], layout.steps[step, 1])
        what, which = layout.steps[step, 2], layout.steps[step, 3]
        step += 1
        if what == _OBJECT:
            at = scan_object(data, at, end, layout.keys, spans)
        elif what == _LIST:
            is_list, begin = True, n
            at, n = _list(frames, row, symbols, layout, at, spans, holes, out, n)
            for trade in range(begin, n):
                out.is_snapshot[trade] = is_past
        elif what == _EITHER:
            at, is_past = _either(data, at, end, layout, which)
        elif what == _AGAIN and 0 <= at < end and data[at] == _COMMA:
            at, step = at + 1, which
        elif what > _AGAIN and at >= 0:
            at = _hole_end(data, at, end, what, holes, which)
    if at != end:
        return False, 0
    if form < layout.trade_frames and not is_list:
        n += max(_take(frames, row, symbols, layout, spans, holes, out, n), 0)
    return True, n - first if _stamped(data, layout, holes, out, first, n) else 0


@compiled_scan
def scan_frames(frames: Frames, symbols: Symbols, layout: Program, spans: Spans, holes: Spans, out: Columns) -> int:
    """Read the frames of a layout into `out` and mark each frame's status; returns the number of trades."""
    n = 0
    for row in range(len(frames.status)):
        if frames.status[row] == WANTED:
            frames.status[row] = UNREAD
            for form in range(len(layout.frames) - 1):
                fits, count = _frame(frames, row, symbols, layout, form, spans, holes, out, n)
                if fits:
                    frames.status[row] = TRADES if count > 0 else CONTROL if form >= layout.trade_frames else UNREAD
                    n += count
                    break
    return n
