"""Trades as columns on their way from a source to the tape and to the clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.listing import Listing

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

IS_BUY = 1
IS_MARKET = 2
LOST = 4  # no client ever saw it, and REST does not know it
ABSENT = 8  # an id that a recording does not hold: no trade at all


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive trades of one venue. Shape: columns of one length, ascending by `due_us`; ids of a symbol ascend.

    `due_us`: run time at which the venue sends the trade. `run_us`: run time at which it happened, before any offset of the
    venue's clock. `push_us`: µs between trade and push. `order`: number of the taker's order; its fills stand together.
    """

    end_us: int
    symbol: Ints
    due_us: Ints
    run_us: Ints
    push_us: Ints
    price: Ints
    quantity: Ints
    flags: NDArray[np.uint8]
    order: Ints

    def __len__(self) -> int:
        return len(self.symbol)


@dataclass(frozen=True, slots=True)
class Rows:
    """Trades of one venue as it would tell them. Shape: columns of one length. Times are the venue's clock, epoch µs."""

    symbol: Ints
    trade_id: Ints
    time_us: Ints
    push_us: Ints
    price: Ints
    quantity: Ints
    flags: NDArray[np.uint8]
    order: Ints

    def __len__(self) -> int:
        return len(self.symbol)

    def where(self, kept: NDArray[Any]) -> Rows:
        """Return the rows that a mask, or positions, name."""
        return Rows(*(getattr(self, name)[kept] for name in self.__slots__))


def runs(values: Ints) -> list[tuple[int, int]]:
    """Return where equal neighbours stand: [start, stop) of each stretch."""
    if not len(values):
        return []
    edges = np.flatnonzero(np.diff(values)) + 1
    return list(zip([0, *edges.tolist()], [*edges.tolist(), len(values)], strict=True))


class Source(Protocol):
    """Where a venue's trades come from."""

    listings: list[Listing]

    def next_block(self) -> Block | None:
        """Return the next trades, or None when there are no more."""
