"""Read exactly what venues write: JSON, decimals, ids and times, without a float in between.

This is the slow and complete reading, for frames that the compiled scanners (`scan.py`) hand back; both agree on what they
both accept.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn

import numpy as np

from connectors.venues.scan import nesting
from market.schema import DECIMAL_SCALE

ID_LIMIT: Final = 2**63
_RANGE_DIGITS: Final = 15  # a value is < 10^15
_EXPONENT_DIGITS: Final = 9  # more only with zeros: beyond any range
_DETAIL_LENGTH: Final = 80
MAX_DEPTH: Final = 100

_DECIMAL: Final = re.compile(r"([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?)([0-9]+))?")
_RFC3339: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Unusable(Exception):
    """Why a frame or trade cannot be used; never leaves the decoders, where it becomes a `Rejected`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class NumberText(str):
    """A JSON number as it was written."""

    __slots__ = ()


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_JSON: Final = json.JSONDecoder(parse_float=NumberText, parse_int=NumberText, parse_constant=_refuse)


def read_json(frame: bytes) -> object:
    """Return the document of a frame; numbers are `NumberText`, the last of duplicate keys wins.

    Raises:
        Unusable: `bad_json`: not UTF-8, not JSON, nested more than 100 deep, or blank.
    """
    # A bound of our own: how deep Python can go depends on who called, and the same log must give the same rows everywhere.
    if frame.count(b"[") + frame.count(b"{") > MAX_DEPTH and nesting(np.frombuffer(frame, np.uint8)) > MAX_DEPTH:
        raise Unusable("bad_json", f"nested more than {MAX_DEPTH} deep")
    try:
        return _JSON.decode(frame.decode())
    except UnicodeDecodeError as error:
        raise Unusable("bad_json", f"not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        detail = f"{error}" if frame.strip() else "blank frame"
        raise Unusable("bad_json", detail[:_DETAIL_LENGTH]) from None


def shown(value: object) -> str:
    """Return a value for a person: printable ASCII, at most about 100 characters."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = str(value)
    short = text[:_DETAIL_LENGTH] if isinstance(value, NumberText) else ascii(text[:_DETAIL_LENGTH])
    return short if len(text) <= _DETAIL_LENGTH else f"{short}… ({len(text)} characters)"


def mantissa(value: object, kind: type[str], name: str) -> int:
    """Return a positive decimal < 10^15 as an integer at scale 18.

    Args:
        value: from the document.
        kind: `str` where the venue writes strings, `NumberText` where it writes numbers; the other is refused.
        name: `price` or `quantity`, for the reason.

    Raises:
        Unusable: `bad_price` or `bad_quantity` (also zero and negative), `too_many_decimals`, `out_of_range`.
    """
    found = _DECIMAL.fullmatch(value) if type(value) is kind else None
    if found is None:
        raise Unusable(f"bad_{name}", f"{name} {shown(value)}")
    whole, fraction, sign, exponent = found.groups("")
    digits = (whole + fraction).lstrip("0")
    significant = digits.rstrip("0")
    if not significant:
        raise Unusable(f"bad_{name}", f"{name} {shown(value)} is zero")
    power = _exponent(sign, exponent) - len(fraction)
    if len(digits) + power > _RANGE_DIGITS:
        raise Unusable("out_of_range", f"{name} {shown(value)} is 10^{_RANGE_DIGITS} or more")
    power += len(digits) - len(significant)
    if power < -DECIMAL_SCALE:
        raise Unusable("too_many_decimals", f"{name} {shown(value)} has more than {DECIMAL_SCALE} decimals")
    places: int = DECIMAL_SCALE + power
    return int(significant + "0" * places)


def _exponent(sign: str, digits: str) -> int:
    short = digits.lstrip("0")
    # Far beyond any range is far enough: int() of a million digits would take for ever.
    size = int(short or "0") if len(short) <= _EXPONENT_DIGITS else 10**_EXPONENT_DIGITS
    return -size if sign == "-" else size


def whole(value: object) -> int | None:
    """Return a JSON number that is an integer in [0, 2^63), else None."""
    if type(value) is int:
        return value if 0 <= value < ID_LIMIT else None
    return digits(value) if isinstance(value, NumberText) else None


def digits(text: str) -> int | None:
    """Return a text of ASCII digits as an integer in [0, 2^63), else None."""
    if not (text.isascii() and text.isdigit()):
        return None
    short = text.lstrip("0")
    number = int(short or "0") if len(short) <= 19 else ID_LIMIT
    return number if number < ID_LIMIT else None


def rfc3339_us(value: object) -> int | None:
    """Return an RFC 3339 time (0-9 decimals, cut to µs) as epoch µs, else None."""
    found = _RFC3339.fullmatch(value) if type(value) is str else None
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, ahead_hours, ahead_minutes = found.groups()
    try:
        moment = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError:
        return None
    us = (moment - _EPOCH) // _MICROSECOND + int(((fraction or "") + "000000")[:6])
    if sign is None:
        return us
    if int(ahead_hours) > 23 or int(ahead_minutes) > 59:
        return None
    ahead = (int(ahead_hours) * 60 + int(ahead_minutes)) * 60_000_000
    return us - ahead if sign == "+" else us + ahead
