"""Durations as people write them: decimal seconds, or a number with a unit."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final

_UNITS: Final = {
    "us": Decimal("0.000001"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_FORM: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(us|ms|s|m|h|d)?")
_MAX_SECONDS: Final = Decimal(86400) * 36525  # a century; also keeps microseconds far inside 64 bits
_MICROSECOND: Final = Decimal("0.000001")


def parse_seconds(value: Any) -> Decimal:
    """Return exact seconds of `2`, `0.05`, `"500ms"`, `"10m"`, `"7d"`.

    Raises:
        ValueError: not a duration, negative, finer than a microsecond or longer than a century.
    """
    text = str(value).strip()
    match = None if isinstance(value, bool) else _FORM.fullmatch(text)
    if match is None:
        raise ValueError("is not a duration: write seconds (2, 0.05) or a number with a unit (500ms, 10m, 2h, 7d)")
    seconds = Decimal(match[1]) * _UNITS[match[2] or "s"]
    if seconds > _MAX_SECONDS:
        raise ValueError("is longer than a century")
    if seconds % _MICROSECOND:
        raise ValueError("is finer than a microsecond")
    return seconds.normalize() + 0


def to_us(seconds: Decimal) -> int:
    """Return whole microseconds."""
    return int(seconds.scaleb(6))


def human(seconds: Decimal) -> str:
    """Return the shortest exact spelling: `50ms`, `2s`, `10m`, `7d`."""
    for unit in ("d", "h", "m", "s", "ms"):
        count = seconds / _UNITS[unit]
        if seconds and count == count.to_integral_value():
            return f"{count:f}".split(".")[0] + unit
    return f"{seconds.normalize():f}s"
