"""The six candle intervals and window arithmetic on integer microseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SECOND: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """One candle interval; windows are `[start, start + length_us)` aligned to the epoch."""

    name: str
    length_us: int

    def window_start(self, time_us: int) -> int:
        """Return the start of the window that contains `time_us`."""
        return time_us - time_us % self.length_us


INTERVALS: Final[tuple[Interval, ...]] = (
    Interval("1m", 60 * SECOND),
    Interval("5m", 300 * SECOND),
    Interval("15m", 900 * SECOND),
    Interval("30m", 1_800 * SECOND),
    Interval("1h", 3_600 * SECOND),
    Interval("1d", 86_400 * SECOND),
)
INTERVAL_NAMES: Final = tuple(i.name for i in INTERVALS)
BY_NAME: Final = {i.name: i for i in INTERVALS}
