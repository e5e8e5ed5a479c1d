"""Candles on their way to ClickHouse: whole rows go in as they are, deltas are merged into the newest stored row first."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from market.gold import keys_of_deltas, merge_changes
from market.schema import CHANGE, Change, Table
from sinks.clickhouse.reader import read_newest
from sinks.clickhouse.session import Session

KEY: Final = ("exchange", "canonical_symbol", "window_start")


def newest_rows(session: Session, table: Table, changes: pa.Table) -> pa.Table:
    """Return the rows to store for some changes: one per candle, in the table's schema.

    Args:
        session: to read stored candles with.
        table: a gold table; nothing else writes these candles meanwhile.
        changes: in the order of their causes within each candle, schema `market.schema.gold_output_schema`.
    """
    changes = changes.combine_chunks()
    whole = pc.all(pc.equal(changes[CHANGE], pa.scalar(Change.ROW.value, pa.int8()))).as_py()
    if whole:
        return _last_of_each(changes).drop_columns([CHANGE])
    # Not only the candles with deltas: a row that comes before a delta of the same candle must be merged in order, and
    # merging all changes at once does that. Stored rows matter for candles with deltas only.
    batch = _one_batch(changes)
    stored = read_newest(session, table, pa.Table.from_batches([keys_of_deltas(batch)]))
    merged = merge_changes(batch, _one_batch(stored) if stored.num_rows else None)
    return pa.Table.from_batches([merged])


def _last_of_each(rows: pa.Table) -> pa.Table:
    numbered = rows.select(KEY).append_column("n", pa.array(np.arange(rows.num_rows)))
    last = numbered.group_by(list(KEY)).aggregate([("n", "max")])["n_max"]
    return rows if len(last) == rows.num_rows else rows.take(last.combine_chunks().sort())


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([column.combine_chunks() for column in table.columns], schema=table.schema)
