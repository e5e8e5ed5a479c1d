"""The numbers that decide about gaps and candles (design: time is data)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from market.interval import SECOND

MAX_AHEAD_US: Final = 3_600 * SECOND  # a time further ahead of its record's receive time is implausible
MIN_TIME_US: Final = 1_230_768_000 * SECOND  # 2009-01-01: there was no trade before


@dataclass(frozen=True, slots=True)
class Rules:
    """Durations in µs. `contiguous_ids`: the venue numbers trades without holes, so a hole is a loss."""

    lateness_us: int = 2 * SECOND
    gap_grace_us: int = 1 * SECOND
    horizon_us: int = 600 * SECOND
    dedup_horizon_us: int = 7_200 * SECOND
    contiguous_ids: bool = True
