"""The audit against stores that are Arrow tables, filled by the flow's own shards with batches of another size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.generate import Workload, fill
from connectors.topics.memory import MemoryTopics
from connectors.venues.registry import build_instruments, venue
from dataflows.stages import VenueSetup
from maintenance.audit import TIME_TO_LIVE_US, audit_exchange
from maintenance.replay import NewestCandles
from maintenance.report import Report
from maintenance.stored import Frontier, Wanted
from market.errors import Refused
from market.record import RawBatch, topic_name
from market.rules import Rules
from market.schema import Layer, Table, all_tables
from market.shard import Shard

WORK = Workload(trades=1_500, symbols=5, trouble=0.05, rate=10, exchanges=("binance",))
TOPIC = topic_name("binance")
NOW_US = WORK.start_us + 10_000_000
SETUP = VenueSetup(venue("binance"), build_instruments("binance", WORK.symbols_of("binance")), Rules(horizon_us=30_000_000))
TABLES = {t.name: t for t in all_tables(("binance",))}


@dataclass
class Store:
    """A store that holds Arrow tables."""

    name: str
    held: dict[str, pa.Table]
    positions: dict[tuple[str, str, int], Frontier] = field(default_factory=dict)

    def frontiers(self) -> Mapping[tuple[str, str, int], Frontier]:
        return self.positions

    def rows(self, table: Table, wanted: Wanted, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        assert columns is None
        assert wanted == Wanted("binance")
        yield from self.held[table.name].to_batches(max_chunksize=200)

    def close(self) -> None:
        pass

    def change(self, table: str, change: Callable[[pa.Table], pa.Table]) -> None:
        self.held[table] = change(self.held[table])


@pytest.fixture(scope="module")
def log() -> MemoryTopics:
    made = MemoryTopics(now_us=lambda: NOW_US)
    fill(made, WORK, partitions=2)
    return made


def filled(log: MemoryTopics, name: str, upto: Mapping[int, int] | None = None, step: int = 333) -> Store:
    """A store as the sinks would have left it with these frontiers."""
    ends = dict(enumerate(log.end_offsets(TOPIC))) | dict(upto or {})
    rows: dict[str, list[pa.RecordBatch]] = {table: [] for table in TABLES}
    gold = {name_: NewestCandles() for name_, t in TABLES.items() if t.layer is Layer.GOLD}
    for partition, end in ends.items():
        shard = Shard(exchange="binance", partition=partition, instruments=SETUP.instruments, rules=SETUP.rules)
        at = 0
        while at < end:
            records = log.read(TOPIC, partition, at, min(step, end - at))
            assert records is not None
            at += records.num_rows
            batch = RawBatch("binance", TOPIC, partition, log.generation(TOPIC), at, records)
            for output in shard.apply(batch, SETUP.venue.decode(batch, SETUP.instruments)):
                if output.table in gold:
                    gold[output.table].add(output.rows)
                else:
                    rows[output.table].append(output.rows)
    held = {n: pa.Table.from_batches(r, TABLES[n].arrow_schema()) for n, r in rows.items() if n not in gold}
    held |= {n: candles.closed() for n, candles in gold.items()}
    if name == "warm":
        held = {n: t.select([c.name for c in TABLES[n].warm_columns]) for n, t in held.items()}
    positions = {(table, TOPIC, p): Frontier(end, log.generation(TOPIC)) for p, end in ends.items() for table in TABLES}
    return Store(name, held, positions)


def audited(log: MemoryTopics, *stores: Store, setup: VenueSetup | None = SETUP, now_us: int = NOW_US) -> Report:
    return audit_exchange("binance", setup, log, stores, now_us, lambda *_: None)


def test_stores_filled_in_other_batches_are_clean(log: MemoryTopics) -> None:
    report = audited(log, filled(log, "warm", step=50), filled(log, "cold", step=10_000))
    assert (report.differences, report.examples, report.notes) == (0, [], [])
    assert sum(line.raw or 0 for line in report.lines if line.layer == "silver") == WORK.trades
    assert all(line.raw == line.warm == line.cold for line in report.lines)


def test_rows_past_the_lowest_frontier_are_left_out_and_changed_candles_count_as_there(log: MemoryTopics) -> None:
    half = {p: end // 2 for p, end in enumerate(log.end_offsets(TOPIC))}
    for warm, cold in ((None, half), (half, None)):
        report = audited(log, filled(log, "warm", warm), filled(log, "cold", cold))
        assert report.differences == 0
        silver = [line for line in report.lines if line.layer == "silver"]
        assert 0 < sum(line.raw or 0 for line in silver) < WORK.trades
        assert all(line.raw == line.warm == line.cold for line in report.lines)


@pytest.mark.parametrize("store", [0, 1])
@pytest.mark.parametrize("name", ["bronze_trades_binance", "silver_trades", "ohlcv_1m"])
def test_missing_repeated_and_changed_rows_are_differences(log: MemoryTopics, store: int, name: str) -> None:
    def changed(table: pa.Table) -> pa.Table:
        index = table.column_names.index("trade_id" if "trade_id" in table.column_names else "first_trade_id")
        ids = pa.chunked_array([pa.array(["0", *table.column(index).to_pylist()[1:]])])
        return table.set_column(index, table.schema.field(index), ids)

    for change in (lambda t: t.slice(1), lambda t: pa.concat_tables([t, t.slice(3, 1)]), changed):
        stores = [filled(log, "warm"), filled(log, "cold")]
        stores[store].change(name, change)
        report = audited(log, *stores)
        assert report.differences == 1
        assert [(e.table, e.store) for e in report.examples] == [(name, stores[store].name)]


def test_row_of_a_partition_that_the_topic_does_not_have_is_not_expected(log: MemoryTopics) -> None:
    cold = filled(log, "cold")
    row = {c.name: 1 for c in TABLES["trade_gaps"].columns} | {"source_partition": 7}
    texts = {"exchange": "binance", "canonical_symbol": "C000/USDT", "state": "open", "reason": ""}
    times = dict.fromkeys(("after_time", "before_time", "event_time"), WORK.start_us)
    schema = cold.held["trade_gaps"].schema
    added = pa.Table.from_pydict(
        {name: pa.array([(row | texts | times)[name]], schema.field(name).type) for name in schema.names}, schema=schema
    )
    cold.change("trade_gaps", lambda t: pa.concat_tables([t, added]))
    assert audited(log, filled(log, "warm"), cold).differences == 1


@pytest.mark.parametrize("name", ["silver_trades", "ohlcv_5m"])
def test_row_of_a_record_past_the_logs_end_is_not_taken_for_one_still_to_be_compared(log: MemoryTopics, name: str) -> None:
    def moved(table: pa.Table) -> pa.Table:
        index = table.column_names.index("source_offset")
        partition = table.column("source_partition")[0].as_py()
        offsets = [log.end_offsets(TOPIC)[partition], *table.column(index).to_pylist()[1:]]
        return table.set_column(index, table.schema.field(index), pa.array(offsets, pa.int64()))

    cold = filled(log, "cold")
    cold.change(name, moved)
    report = audited(log, filled(log, "warm"), cold)
    assert {(e.table, e.store) for e in report.examples} == {(name, "cold")}


def test_warm_rows_past_their_time_to_live_may_be_gone_from_the_start_only(log: MemoryTopics) -> None:
    def without(rows: Callable[[pa.Table], pa.Table]) -> Store:
        warm = filled(log, "warm")
        warm.change("silver_trades", rows)
        return warm

    def oldest(table: pa.Table) -> pa.Table:
        return table.filter(pc.greater(table.column("source_offset"), 100))

    def middle(table: pa.Table) -> pa.Table:
        offset = table.column("source_offset")
        return table.filter(pc.or_(pc.less(offset, 100), pc.greater(offset, 110)))

    later = NOW_US + TIME_TO_LIVE_US[Layer.SILVER] + 1
    assert audited(log, without(oldest), filled(log, "cold"), now_us=later).differences == 0
    assert audited(log, without(lambda t: t.slice(0, 0)), filled(log, "cold"), now_us=later).differences == 0
    assert audited(log, without(oldest), filled(log, "cold"), now_us=NOW_US).differences > 0
    assert audited(log, without(middle), filled(log, "cold"), now_us=later).differences > 0


def test_stores_are_compared_with_each_other_where_the_log_cannot_be_replayed(log: MemoryTopics) -> None:
    for setup, expired, note in ((None, False, "not in the instruments file"), (SETUP, True, "the log's beginning has expired")):
        held: MemoryTopics | _Expired = _Expired(log) if expired else log
        warm, cold = filled(log, "warm"), filled(log, "cold")
        report = audit_exchange("binance", setup, held, (warm, cold), NOW_US, lambda *_: None)
        assert report.differences == 0
        assert note in report.notes[0]
        assert {line.raw for line in report.lines} == {None}
        cold.change("ohlcv_5m", lambda t: t.slice(1))
        cold.change("silver_trades", lambda t: pa.concat_tables([t, t.slice(0, 1)]))
        assert audit_exchange("binance", setup, held, (warm, cold), NOW_US, lambda *_: None).differences == 2


class _Expired(MemoryTopics):
    """The same log after retention."""

    def __init__(self, log: MemoryTopics) -> None:
        super().__init__()
        self._topics = log._topics

    def start_offsets(self, topic: str) -> list[int]:
        return [5 for _ in super().start_offsets(topic)]


def test_table_that_never_committed_leaves_nothing_to_compare_and_says_so(log: MemoryTopics) -> None:
    warm, cold = filled(log, "warm"), filled(log, "cold")
    for partition in range(2):
        del cold.positions["feed_events", TOPIC, partition]
    report = audited(log, warm, cold)
    assert report.lines == []
    assert "feed_events (cold) has taken nothing in" in report.notes[0]


def test_tables_of_another_topic_are_refused(log: MemoryTopics) -> None:
    warm = filled(log, "warm")
    warm.positions["silver_trades", TOPIC, 1] = Frontier(3, "another")
    with pytest.raises(Refused, match=r"silver_trades \(warm\) was filled from another raw.trades.binance"):
        audited(log, warm, filled(log, "cold"))
