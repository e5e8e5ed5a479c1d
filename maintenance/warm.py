"""The warm store as those see it who only read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from maintenance.stored import WARM, Frontier, Wanted
from market.schema import Layer, Table
from sinks.clickhouse.reader import WarmReader
from sinks.endpoint import Endpoint


class WarmRows:
    """The warm store."""

    name = WARM

    def __init__(self, endpoint: Endpoint) -> None:
        self.reader = WarmReader(endpoint)
        self._tables: set[str] | None = None

    def frontiers(self) -> dict[tuple[str, str, int], Frontier]:
        """See `Stored`."""
        return {
            (f.table, f.topic, f.partition): Frontier(f.offset, f.generation, int(f.committed_at.timestamp() * 1_000_000))
            for f in self.reader.frontiers()
        }

    def rows(self, table: Table, wanted: Wanted, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """See `Stored`."""
        if table.name not in self._known():
            return
        clauses: list[str] = []
        bound: dict[str, Any] = {}
        if wanted.exchange is not None and table.layer is not Layer.BRONZE:
            clauses.append("`exchange` = {exchange:String}")
            bound["exchange"] = wanted.exchange
        if wanted.symbols is not None:
            clauses.append("`canonical_symbol` IN {symbols:Array(String)}")
            bound["symbols"] = list(wanted.symbols)
        for name, sign, time_us in (("start", ">=", wanted.start_us), ("end", "<", wanted.end_us)):
            if time_us is not None:
                clauses.append(f"`{table.time_column}` {sign} fromUnixTimestamp64Micro({{{name}:Int64}})")
                bound[name] = time_us
        if wanted.closed:
            clauses.append("`is_closed`")
        yield from self.reader.stream_table(table, " AND ".join(clauses), bound, columns=columns)

    def _known(self) -> set[str]:
        if self._tables is None:
            found = self.reader.arrow("SELECT name FROM system.tables WHERE database = 'k2'")
            self._tables = set(found.column("name").to_pylist()) if found.num_rows else set()
        return self._tables

    def close(self) -> None:
        """Close the connection."""
        self.reader.close()
