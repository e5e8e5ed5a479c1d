"""What the audit needs of a store: how far its tables have come, and their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from market.schema import Table


@dataclass(frozen=True, slots=True)
class Frontier:
    """The first offset of a topic partition that a table has not taken in, and which topic that is."""

    offset: int
    generation: str


class Stored(Protocol):
    """One store."""

    name: str  # warm | cold

    def frontiers(self) -> Mapping[tuple[str, str, int], Frontier]:
        """Return the frontier by (table, topic, partition)."""

    def rows(self, table: Table, exchange: str) -> Iterator[pa.RecordBatch]:
        """Yield all rows of an exchange in any order (gold: the newest row of each candle), with the table's columns."""
