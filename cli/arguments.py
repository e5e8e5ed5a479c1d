"""What people type, understood or refused with the values that would do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from config.names import unknown
from market.errors import ConfigError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_US: Final = re.compile(r"[0-9]{9,19}|0")
_LAST_US: Final = 253_402_300_799_999_999  # 9999-12-31
_MICROSECOND: Final = timedelta(microseconds=1)


def parse_time(text: str, option: str) -> int:
    """Return epoch µs of an ISO 8601 time (UTC unless it names an offset), a date, or epoch µs.

    Raises:
        ConfigError: it is none of these, or finer than a microsecond.
    """
    value = text.strip()
    if _EPOCH_US.fullmatch(value):
        if int(value) > _LAST_US:
            raise ConfigError(f"{option} {text!r} is after the year 9999: epoch times are in microseconds")
        return int(value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ConfigError(
            f"{option} {text!r} is no time: write 2024-08-08, 2024-08-08T23:55:00Z (UTC unless an offset is given) or epoch microseconds"
        ) from None
    fraction = re.search(r"[.,]([0-9]+)", value)
    if fraction is not None and len(fraction[1].rstrip("0")) > 6:
        raise ConfigError(f"{option} {text!r} is finer than a microsecond")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def parse_range(start: str | None, end: str | None) -> tuple[int | None, int | None]:
    """Return `--from` (inclusive) and `--to` (exclusive) in epoch µs.

    Raises:
        ConfigError: one is no time, or they are the wrong way round.
    """
    first = parse_time(start, "--from") if start is not None else None
    last = parse_time(end, "--to") if end is not None else None
    if first is not None and last is not None and last < first:
        raise ConfigError(f"--to {end} is before --from {start}")
    return first, last


def one_of(what: str, value: str, known: Iterable[str]) -> str:
    """Return the value if it is known, in any case; else `ConfigError` naming the known ones and the nearest."""
    names = list(known)
    found = value.strip().lower()
    if found not in names:
        raise ConfigError(unknown(what, value, names))
    return found


def utc(time_us: int) -> datetime:
    """Return epoch µs as an aware UTC time."""
    return _EPOCH + timedelta(microseconds=time_us)


def iso(time_us: int | None) -> str:
    """Return epoch µs for a person; empty for none."""
    return "" if time_us is None else utc(time_us).strftime("%Y-%m-%d %H:%M:%S")
