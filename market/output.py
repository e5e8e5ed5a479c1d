"""What one raw batch causes, table by table: the item that flows from the shards to the sinks."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class TableOutput:
    """Rows for one table from one raw batch; `rows` has the table's Arrow schema and may be empty.

    `next_offset` is the topic partition's position after the batch: every row's cause is below it, and a sink that has
    taken this item may set its frontier there.
    """

    table: str
    exchange: str
    topic: str
    partition: int
    generation: str
    first_offset: int
    next_offset: int
    rows: pa.RecordBatch

    def __reduce__(self) -> tuple[object, ...]:
        # Between processes batches travel as Arrow IPC bytes: a pickled slice would ship its whole parent.
        return _restore, (
            self.table, self.exchange, self.topic, self.partition, self.generation, self.first_offset, self.next_offset,
            self.rows.schema.serialize().to_pybytes(), self.rows.serialize().to_pybytes(),
        )  # fmt: skip


def _restore(
    table: str, exchange: str, topic: str, partition: int, generation: str, first_offset: int, next_offset: int, schema: bytes, body: bytes
) -> TableOutput:
    rows = pa.ipc.read_record_batch(pa.py_buffer(body), pa.ipc.read_schema(pa.py_buffer(schema)))
    return TableOutput(table, exchange, topic, partition, generation, first_offset, next_offset, rows)
