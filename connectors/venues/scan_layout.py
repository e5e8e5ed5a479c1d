"""One compiled scanner for every venue whose frames can be told as a table: what stands around trades, and their fields.

A frame is a text with holes. `<~>` is any plain text (up to its quote), `<#>` any number, `<sign>` an optional minus, `<{}>`
one trade as a flat object, `<[]>` a list of them, and `<name>` the value of a trade's field that stands in the frame:

    {"topic":"publicTrade.<~>","ts":<ts>,"type":"snapshot","data":<[]>}

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
    integer,
    number_end,
    rfc3339,
    scan_object,
    symbol_code,
    text_end,
)
from market.jit import compiled_scan
from market.trade import NO_TAIL, Bools, Int64s

LATEST_US: Final = 10**16  # a time at or past it is none

# How times are written: µs of one unit, or as text.
MS: Final = 1000
US: Final = 1
RFC3339: Final = 0

# What a trade is made of. FIXED: a field that must hold a given text.
ROLES: Final = ("symbol", "id", "time", "price", "quantity", "side", "event", "fixed")
_SYMBOL, _ID, _TIME, _PRICE, _QUANTITY, _SIDE, _EVENT, _FIXED = range(len(ROLES))
_ROLE_COUNT: Final = len(ROLES)

# What stands at a place of a frame.
_LITERAL, _TEXT_HOLE, _NUMBER_HOLE, _SIGN, _OBJECT, _LIST = range(6)
_NOWHERE: Final = _ROLE_COUNT  # the row of `spans` for values that nobody wants
_NO_KEY: Final = "\x01"  # cannot be written in JSON without an escape
_HOLE: Final = re.compile(r"<([^<>]+)>")

_MINUS: Final = 45
_COMMA: Final = 44
_LIST_START: Final = 91
_LIST_END: Final = 93
_ID_DIGITS: Final = 18  # any number of so many digits fits
_ID_LIMIT: Final = 2**63 - 1


class Program(NamedTuple):
    """A layout as the scanner reads it; row k of `steps` is (what, first, last), frame k its rows from `frames[k]` on.

    The first `trade_frames` of them hold trades. `kinds`: the kind of value of each role, `ABSENT` for those a layout does
    without. `in_frame`: it stands around the trade's object. `words`: where in `text` those of a buy, of a sale and of the
    fixed field stand. `must`: the fixed field may not be missing. `uuids`: ids are no numbers.
    """

    steps: Int64s
    frames: Int64s
    trade_frames: int
    text: Bytes
    keys: Names
    kinds: Int64s
    in_frame: Bools
    words: Int64s
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
    words: tuple[str, str, str],
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
        words: what the side says of a buy and of a sale, what the fixed field says.
        unit_us: how times are written: `MS`, `US` or `RFC3339`.
        must: the fixed field may not be missing.
        uuids: ids are UUIDs.
    """
    text = _Texts()
    roles = {fields[role]: k for k, role in enumerate(ROLES) if role in fields}
    steps: list[tuple[int, int, int]] = []
    starts, placed = [0], set()
    for frame in (*frames, *others):
        for k, part in enumerate(_HOLE.split(frame)):
            if k % 2 == 0:
                steps.append((_LITERAL, *text.add(part)))
            else:
                what = _hole(part, roles, texts)
                placed |= {what[1]} - {_NOWHERE}
                steps.append(what)
        starts.append(len(steps))
    names = [_NO_KEY if k in placed else fields.get(role, _NO_KEY) for k, role in enumerate(ROLES)]
    kinds = [ABSENT if role not in fields else TEXT if fields[role] in texts else NUMBER for role in ROLES]
    spans = np.array([text.add(word) for word in words], np.int64)
    return Program(
        steps=np.array(steps, np.int64),
        frames=np.array(starts, np.int64),
        trade_frames=len(frames),
        text=np.frombuffer(text.body, np.uint8),
        keys=scan.names(*names),
        kinds=np.array(kinds, np.int64),
        in_frame=np.array([k in placed for k in range(_ROLE_COUNT)], np.bool_),
        words=spans,
        unit_us=unit_us,
        must=must,
        uuids=uuids,
    )


def _hole(name: str, roles: Mapping[str, int], texts: frozenset[str]) -> tuple[int, int, int]:
    if name in ("{}", "[]"):
        return (_OBJECT if name == "{}" else _LIST), _NOWHERE, 0
    if name in ("~", "#"):
        return (_TEXT_HOLE if name == "~" else _NUMBER_HOLE), _NOWHERE, 0
    if name == "sign":
        return _SIGN, roles[name], 0
    return (_TEXT_HOLE if name in texts else _NUMBER_HOLE), roles[name], 0


@compiled_scan
def _same(data: Bytes, at: int, end: int, text: Bytes, first: int, last: int) -> int:
    # Position after `text[first:last]`, which must stand at `at`.
    if at < 0 or at + last - first > end:
        return FAILED
    for k in range(last - first):
        if data[at + k] != text[first + k]:
            return FAILED
    return at + last - first


@compiled_scan
def _says(data: Bytes, spans: Spans, role: int, layout: Program, word: int) -> bool:
    # Whether a value is exactly a word of the layout.
    first, last = layout.words[word, 0], layout.words[word, 1]
    start, stop = spans[role, 1], spans[role, 2]
    return stop - start == last - first and _same(data, start, stop, layout.text, first, last) == stop


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
def _whose(data: Bytes, symbols: Symbols, layout: Program, spans: Spans, holes: Spans, key: int) -> int:
    # The instrument of the trade in `spans`, completed from `holes`; `FAILED` if a value is of another kind than it should be.
    for role in range(_ROLE_COUNT):
        if layout.in_frame[role]:
            spans[role, 0], spans[role, 1], spans[role, 2] = holes[role, 0], holes[role, 1], holes[role, 2]
        if role != _FIXED and layout.kinds[role] != ABSENT and spans[role, 0] != layout.kinds[role]:
            return FAILED
    if layout.kinds[_SYMBOL] == ABSENT:
        return key
    return symbol_code(data, spans[_SYMBOL, 1], spans[_SYMBOL, 2], symbols, key)


@compiled_scan
def _side(data: Bytes, layout: Program, spans: Spans) -> int:
    # 1 if the taker bought, 0 if it sold; `FAILED` also if the fixed field says something else.
    there = spans[_FIXED, 0] != ABSENT
    if layout.kinds[_FIXED] != ABSENT and (layout.must or there) and not (there and spans[_FIXED, 0] == layout.kinds[_FIXED]):
        return FAILED
    if layout.kinds[_FIXED] != ABSENT and there and not _says(data, spans, _FIXED, layout, 2):
        return FAILED
    if _says(data, spans, _SIDE, layout, 0):
        return 1
    return 0 if _says(data, spans, _SIDE, layout, 1) else FAILED


@compiled_scan
def _trade(data: Bytes, layout: Program, spans: Spans, out: Columns, n: int) -> bool:
    # Read the fields of one trade of the record's own symbol into out[n].
    side = _side(data, layout, spans)
    out.is_buy[n] = side == 1
    if layout.uuids:
        out.trade_id[n], out.id_tail[n] = _uuid(data, spans[_ID, 1], spans[_ID, 2])
    else:
        out.trade_id[n] = _identifier(data, spans[_ID, 1], spans[_ID, 2])
    out.time_us[n] = _time_us(data, spans, _TIME, layout.unit_us)
    out.event_us[n] = out.time_us[n] if layout.kinds[_EVENT] == ABSENT else _time_us(data, spans, _EVENT, layout.unit_us)
    out.is_snapshot[n], out.vendor[n] = False, 0
    if side < 0 or out.trade_id[n] < 0 or out.time_us[n] < 0 or out.event_us[n] < 0:
        return False
    return decimal(data, spans[_PRICE, 1], spans[_PRICE, 2], out.price, n) and decimal(
        data, spans[_QUANTITY, 1], spans[_QUANTITY, 2], out.quantity, n
    )


@compiled_scan
def _take(frames: Frames, row: int, symbols: Symbols, layout: Program, spans: Spans, holes: Spans, out: Columns, n: int) -> int:
    # Read one trade into out[n] if it is of the record's own symbol: 1 if it is, 0 if not, `FAILED` for the complete reader.
    key = int(frames.codes[row])
    code = _whose(frames.data, symbols, layout, spans, holes, key)
    if code < 0 or n >= len(out.row):
        return FAILED
    if code != key:
        return 0
    out.row[n], out.symbol[n] = row, code
    return 1 if _trade(frames.data, layout, spans, out, n) else FAILED


@compiled_scan
def _list(
    frames: Frames, row: int, symbols: Symbols, layout: Program, at: int, spans: Spans, holes: Spans, out: Columns, n: int
) -> tuple[int, int]:
    # Read the trades of a list; returns the position after it, and how far `out` is filled.
    data, end = frames.data, int(frames.starts[row + 1])
    if at >= end or data[at] != _LIST_START:
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
def _frame(
    frames: Frames, row: int, symbols: Symbols, layout: Program, which: int, spans: Spans, holes: Spans, out: Columns, first: int
) -> tuple[bool, int]:
    # Read one frame of one form into out[first:]; returns whether it is of that form, and the number of trades.
    data, end = frames.data, int(frames.starts[row + 1])
    at, n = int(frames.starts[row]), first
    what = _LITERAL
    is_list = False
    for step in range(layout.frames[which], layout.frames[which + 1]):
        what = layout.steps[step, 0]
        if what == _LITERAL:
            at = _same(data, at, end, layout.text, layout.steps[step, 1], layout.steps[step, 2])
        elif what == _OBJECT:
            at = scan_object(data, at, end, layout.keys, spans)
        elif what == _LIST:
            is_list = True
            at, n = _list(frames, row, symbols, layout, at, spans, holes, out, n)
        else:
            at = _hole_end(data, at, end, what, holes, layout.steps[step, 1])
        if at < 0:
            return False, 0
    if at != end:
        return False, 0
    if which < layout.trade_frames and not is_list:
        n += max(_take(frames, row, symbols, layout, spans, holes, out, n), 0)
    return True, n - first


@compiled_scan
def scan_frames(frames: Frames, symbols: Symbols, layout: Program, spans: Spans, holes: Spans, out: Columns) -> int:
    """Read the frames of a layout into `out` and mark each frame's status; returns the number of trades."""
    n = 0
    for row in range(len(frames.status)):
        if frames.status[row] == WANTED:
            frames.status[row] = UNREAD
            for which in range(len(layout.frames) - 1):
                fits, count = _frame(frames, row, symbols, layout, which, spans, holes, out, n)
                if fits:
                    frames.status[row] = TRADES if count > 0 else CONTROL if which >= layout.trade_frames else UNREAD
                    n += count
                    break
    return n
