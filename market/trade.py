"""Decoded trades as columns, and what could not be decoded.

Decimals are 128-bit two's complement mantissas at scale 18, stored as an (n, 2) uint64 array `[low, high]`: the memory
layout of Arrow's decimal128(38, 18), so columns move between numpy and Arrow without a copy (`market.exact`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]
Decimals = npt.NDArray[np.uint64]

NO_TAIL: Final = -1  # the id is a number


@dataclass(frozen=True, slots=True)
class TradeBatch:
    """Valid trades of one raw batch, ascending by (row, position in the frame). All arrays have one entry a trade.

    Every trade here is of a listed instrument, its price, quantity and quote volume are > 0 and < 10^15 at no more than
    18 decimals, and its time is plausible: nothing downstream checks again.
    """

    row: Int32s  # index of its record in the raw batch
    symbol: Int32s  # code: index into `Instruments.listed`
    trade_id: Int64s  # the venue's own number, or the head of a UUID (`market.ids`)
    time_us: Int64s  # when the venue says it traded, epoch µs
    event_us: Int64s  # when the venue pushed it (frame's own time), or `time_us` where frames carry none
    is_buy: Bools  # the taker bought
    is_snapshot: Bools  # from a frame that the venue marks as a snapshot of past trades
    price: Decimals  # (n, 2), quote per base
    quantity: Decimals  # (n, 2), base units
    quote_volume: Decimals  # (n, 2), price * quantity rounded half-even at scale 18
    vendor: dict[str, pa.Array] = field(default_factory=dict)  # extra venue fields for silver.vendor_data: strings, null = absent
    id_tail: Int64s | None = None  # the rest of ids that are UUIDs, `NO_TAIL` for numbers; None: all are numbers

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True)
class Rejected:
    """One frame or trade that cannot be used; becomes a dead letter and never stops the flow."""

    row: int  # index of its record in the raw batch
    reason: str  # snake_case code
    detail: str  # the value and the place, for a person


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the frames of one raw batch hold. Every frame is a trade frame, a control frame or rejected."""

    trades: TradeBatch
    rejected: list[Rejected]  # ascending by row
    control_frames: int  # acks, heartbeats, status and channels that are not ours
