"""What the stores should hold, recomputed from the raw log: the flow's own decoders and shards, in memory, without an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from connectors.topics.base import TopicLog
from connectors.topics.stretch import read_stretch
from dataflows.stages import VenueSetup
from maintenance.fingerprint import fingerprint
from market.gold import keys_of_deltas, merge_changes
from market.output import TableOutput
from market.record import RawBatch, topic_name
from market.schema import OHLCV, Table, all_tables, gold_output_schema
from market.shard import Shard

_FOLD_ROWS: Final = 200_000
_KEY: Final = ["exchange", "canonical_symbol", "window_start"]


class NewestCandles:
    """The newest row of each candle of one gold table, as the sinks would store it."""

    def __init__(self) -> None:
        self._schema = OHLCV["1m"].arrow_schema()
        self._rows = pl.DataFrame(self._schema.empty_table())
        self._waiting: list[pa.RecordBatch] = []
        self._count = 0

    def add(self, changes: pa.RecordBatch) -> None:
        """Take changes (`gold_output_schema`) in the order of their causes."""
        if changes.num_rows:
            self._waiting.append(changes)
            self._count += changes.num_rows
        if self._count >= max(_FOLD_ROWS, self._rows.height):
            self._fold()

    def closed(self) -> pa.Table:
        """Return the closed candles (gold schema)."""
        self._fold()
        return self._arrow(self._rows.filter(pl.col("is_closed")))

    def _fold(self) -> None:
        if not self._waiting:
            return
        changes = pa.concat_batches([b.cast(gold_output_schema()) for b in self._waiting])
        self._waiting, self._count = [], 0
        needed = pl.DataFrame(pa.Table.from_batches([keys_of_deltas(changes)]))
        stored = self._arrow(self._rows.join(needed, on=_KEY, how="semi")).combine_chunks().to_batches()
        newest = pl.DataFrame(pa.Table.from_batches([merge_changes(changes, stored[0] if stored else None)]))
        # ROW changes are merged without what is stored: a replay meets them in rising order, so they are the newer ones.
        self._rows = pl.concat([self._rows.join(newest, on=_KEY, how="anti"), newest.select(self._rows.columns)])

    def _arrow(self, frame: pl.DataFrame) -> pa.Table:
        return frame.to_arrow().cast(self._schema)


@dataclass(slots=True)
class Expected:
    """Fingerprints of append tables and newest candles of one exchange.

    `warm` and `cold` differ where ClickHouse keeps fewer columns. `before` gives, per partition, the offset below which
    records were appended before a moment (see `replay`).
    """

    exchange: str
    warm: dict[str, list[pl.DataFrame]] = field(default_factory=dict)
    cold: dict[str, list[pl.DataFrame]] = field(default_factory=dict)
    candles: dict[str, NewestCandles] = field(default_factory=lambda: {t.name: NewestCandles() for t in OHLCV.values()})
    before: dict[int, dict[int, int]] = field(default_factory=dict)
    records: int = 0

    def take(self, tables: Mapping[str, Table], output: TableOutput) -> None:
        """Add what one batch causes in one table."""
        if output.table in self.candles:
            self.candles[output.table].add(output.rows)
        elif output.rows.num_rows:
            table = tables[output.table]
            self.cold.setdefault(table.name, []).append(fingerprint(table, output.rows, warm=False))
            if len(table.warm_columns) < len(table.columns):
                self.warm.setdefault(table.name, []).append(fingerprint(table, output.rows, warm=True))

    def prints(self, table: Table, *, warm: bool) -> pl.DataFrame:
        """Return the fingerprints that a store should hold of a table; for candles the closed ones."""
        if table.name in self.candles:
            return fingerprint(table, self.candles[table.name].closed(), warm=warm)
        own = self.warm if warm and len(table.warm_columns) < len(table.columns) else self.cold
        parts = own.get(table.name, [])
        return pl.concat(parts) if parts else fingerprint(table, table.arrow_schema().empty_table(), warm=warm)


def replay(
    log: TopicLog, setup: VenueSetup, exchange: str, limits: Mapping[int, int], moments: tuple[int, ...], progress: Callable[[int], None]
) -> Expected:
    """Recompute the tables of one exchange from the start of its log.

    Args:
        log: the raw topics; every partition must still begin at offset 0.
        setup: decoder, instruments and rules of the exchange.
        exchange: the exchange.
        limits: per partition, the first offset that is not read.
        moments: epoch µs; `Expected.before[moment]` says up to where records were appended before it.
        progress: called with the number of records read so far.

    Raises:
        SourceDisconnected: a broker stopped answering.
    """
    expected = Expected(exchange, before={moment: dict.fromkeys(limits, 0) for moment in moments})
    tables = {table.name: table for table in all_tables((exchange,))}
    topic = topic_name(exchange)
    generation = log.generation(topic)
    for partition, limit in sorted(limits.items()):
        shard = Shard(
            exchange=exchange,
            partition=partition,
            instruments=setup.instruments,
            rules=setup.rules,
            native_side_is_maker=setup.venue.native_side_is_maker,
        )
        for records in read_stretch(log, topic, partition, log.start_offsets(topic)[partition], limit):
            batch = RawBatch(exchange, topic, partition, generation, records.column("offset")[-1].as_py() + 1, records)
            for output in shard.apply(batch, setup.venue.decode(batch, setup.instruments)):
                expected.take(tables, output)
            for moment, before in expected.before.items():
                old = records.filter(pc.less(records.column("append_us"), moment))
                if old.num_rows:
                    before[partition] = old.column("offset")[-1].as_py() + 1
            expected.records += records.num_rows
            progress(expected.records)
    return expected
