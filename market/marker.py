"""What records that are not frames say: markers, ids that cannot be got, a feed's own events."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from market.instrument import Instruments
from market.rules import MAX_AHEAD_US, MIN_TIME_US

_ID_LIMIT: Final = 2**63
TIME_LIMIT: Final = 2**53
"""Epoch µs in the year 2255: times below it are what every store can hold."""


class BadRecord(ValueError):
    """A record that is not what its kind promises; becomes a dead letter."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Marker:
    """Everything of these symbols (codes, no repeats) with event times in (from_us, to_us] stands before this record."""

    feed: str
    from_us: int
    to_us: int
    symbols: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UnfillableIds:
    """Ids of one symbol that a feed could not get."""

    symbol: int
    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """Something a feed reports about itself; times in epoch µs."""

    feed: str
    kind: str
    symbols: tuple[str, ...]
    from_us: int
    to_us: int
    detail: str


def read_marker(payload: bytes, *, instruments: Instruments, received_us: int) -> Marker:
    """Read a marker; symbols that are not listed are left out.

    Raises:
        BadRecord: `bad_marker` for what is none, `implausible_time` for one before 2009 or more than an hour ahead.
    """
    body = _body(payload, "bad_marker", instruments.exchange)
    from_us, to_us = (_integer(body, name, "bad_marker", TIME_LIMIT) for name in ("from_us", "to_us"))
    names = body.get("symbols")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadRecord("bad_marker", "symbols is not a list of text")
    if to_us <= from_us:
        raise BadRecord("bad_marker", f"to_us {to_us} is not after from_us {from_us}")
    if from_us < MIN_TIME_US or to_us > received_us + MAX_AHEAD_US:
        raise BadRecord("implausible_time", f"from_us {from_us}, to_us {to_us}, received {received_us}")
    codes = dict.fromkeys(code for name in names if (code := instruments.by_canonical.get(name)) is not None)
    return Marker(_text(body, "feed", "bad_marker"), from_us, to_us, tuple(codes))


def read_unfillable(payload: bytes, *, instruments: Instruments) -> UnfillableIds:
    """Read ids that could not be got.

    Raises:
        BadRecord: `bad_record`, or `unknown_symbol` for one that is not listed.
    """
    body = _body(payload, "bad_record", instruments.exchange)
    first, last = (_integer(body, name, "bad_record", _ID_LIMIT) for name in ("first_id", "last_id"))
    if first > last:
        raise BadRecord("bad_record", f"first_id {first}, last_id {last}")
    symbol = _text(body, "symbol", "bad_record")
    code = instruments.by_canonical.get(symbol)
    if code is None:
        raise BadRecord("unknown_symbol", symbol[:200])
    return UnfillableIds(code, first, last, _text(body, "reason", "bad_record"))


def read_event(payload: bytes, *, exchange: str, received_us: int) -> FeedEvent:
    """Read a feed's event; times that it does not give are the receive time.

    Raises:
        BadRecord: `bad_record`.
    """
    body = _body(payload, "bad_record", exchange)
    kind = body.get("kind")
    symbols = body.get("symbols") or []
    if not isinstance(kind, str) or not kind:
        raise BadRecord("bad_record", "kind is not text")
    if not isinstance(symbols, list) or not all(isinstance(name, str) for name in symbols):
        raise BadRecord("bad_record", "symbols is not a list of text")
    times = [received_us if body.get(name) is None else _integer(body, name, "bad_record", TIME_LIMIT) for name in ("from_us", "to_us")]
    feed, detail = _text(body, "feed", "bad_record"), _text(body, "detail", "bad_record")
    return FeedEvent(feed, _valid(kind), tuple(map(_valid, symbols)), times[0], times[1], detail)


def _body(payload: bytes, reason: str, exchange: str) -> dict[str, Any]:
    try:
        body = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise BadRecord(reason, f"not JSON: {error}"[:200]) from error
    if not isinstance(body, dict):
        raise BadRecord(reason, "not an object")
    named = body.get("exchange", exchange)
    if named != exchange:
        raise BadRecord(reason, f"of exchange {named!r}"[:200])
    return body


def _integer(body: dict[str, Any], name: str, reason: str, limit: int) -> int:
    value = body.get(name)
    if type(value) is not int or not 0 <= value < limit:
        raise BadRecord(reason, f"{name} is {value!r}"[:200])
    return value


def _text(body: dict[str, Any], name: str, reason: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRecord(reason, f"{name} is {value!r}"[:200])
    return _valid(value)


def _valid(text: str) -> str:
    # JSON can spell half of a surrogate pair, which no store takes.
    return text.encode("utf-8", "replace").decode()
