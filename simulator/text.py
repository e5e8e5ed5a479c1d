"""Numbers and times as venues write them, exactly: whole numbers in, text out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def padded(value: int, decimals: int, width: int | None = None) -> str:
    """Return `value` × 10^-decimals with all its decimals, and zeros up to `width` of them: (617, 1, 3) is `61.700`."""
    pad = "" if width is None else "0" * (width - decimals)
    if decimals == 0:
        return f"{value}.{pad}" if pad else str(value)
    digits = str(value).rjust(decimals + 1, "0")
    return f"{digits[:-decimals]}.{digits[-decimals:]}{pad}"


def shortest(value: int, decimals: int) -> str:
    """Return `value` × 10^-decimals without zeros at its end: (6170, 2) is `61.7`."""
    text = padded(value, decimals)
    return text.rstrip("0").rstrip(".") if decimals else text


def cut(value: int, decimals: int, width: int) -> str:
    """Return `value` × 10^-decimals with exactly `width` decimals; what is below them is cut off."""
    return padded(value // 10 ** (decimals - width), width) if decimals > width else padded(value, decimals, width)


def micros(text: str) -> int:
    """Return the epoch µs of a time like `2026-08-09T21:05:38.50436Z`; what is below µs is cut off.

    Raises:
        ValueError: it is no such time.
    """
    second, _, fraction = text.removesuffix("Z").partition(".")
    moment = datetime.strptime(second, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    return int((moment - _EPOCH).total_seconds()) * 1_000_000 + int(fraction[:6].ljust(6, "0"))


@lru_cache(maxsize=64)
def _second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(time_us: int) -> str:
    """Return a time with six decimals: `2026-07-07T23:00:04.590753Z`."""
    second, micro = divmod(time_us, 1_000_000)
    return f"{_second(second)}.{micro:06d}Z"


def rfc3339_short(time_us: int) -> str:
    """Return a time without zeros at its end: `2026-08-09T21:05:38.50436Z`, `2026-08-09T21:05:38Z`."""
    second, micro = divmod(time_us, 1_000_000)
    return f"{_second(second)}.{micro:06d}".rstrip("0").rstrip(".") + "Z"


def rfc3339_ns(time_ns: int) -> str:
    """Return a time with nanoseconds, without zeros at its end: `2026-08-09T21:05:49.25328358Z`."""
    second, nano = divmod(time_ns, 1_000_000_000)
    return f"{_second(second)}.{nano:09d}".rstrip("0").rstrip(".") + "Z"
