"""The ClickHouse sink against the real served engine: what arrives, and that it arrives once."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from market.errors import Fenced, PipelineError, Refused, SchemaMismatch, SinkUnavailable
from market.schema import CHANGE, DEAD_LETTERS, FEED_EVENTS, OHLCV, SILVER_TRADES, TRADE_GAPS, Change, Layer, Table, bronze_table
from sinks import warm_store
from sinks.clickhouse import ClickHouseWarm, WarmPartition, WarmReader, inserter, prepare
from sinks.endpoint import Endpoint, ask
from tests.integration.lossy_proxy import Fate, Once, lossy
from tests.integration.warm_outputs import (
    EXCHANGE,
    GENERATION,
    ORDER,
    PER_RECORD,
    TABLES,
    TOPIC,
    candle,
    candles,
    output,
    raw_batch,
    rows,
)

BRONZE = bronze_table(EXCHANGE)
CANDLES = OHLCV["1m"]
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("warm")
    warm_store.ensure(folder)
    yield folder
    warm_store.stop(folder)


@pytest.fixture
def endpoint(home: Path) -> Endpoint:
    found = warm_store.ensure(home)
    assert ask(found, "DROP DATABASE IF EXISTS k2 SYNC", 20) == ""
    prepare(found, TABLES)
    return found


@pytest.fixture
def reader(endpoint: Endpoint) -> Iterator[WarmReader]:
    with WarmReader(endpoint) as opened:
        yield opened


@pytest.fixture
def new_sink(endpoint: Endpoint) -> Iterator[Callable[..., ClickHouseWarm]]:
    opened = []

    def make(provider: Callable[[], Endpoint] = lambda: endpoint, **options: int) -> ClickHouseWarm:
        opened.append(ClickHouseWarm(provider, TABLES, **options))
        return opened[-1]

    yield make
    for sink in opened:
        sink.close()


Sinks = Callable[..., ClickHouseWarm]


def opened(sink: ClickHouseWarm, resume: int | None = None, partition: int = 0) -> WarmPartition:
    return sink.open(EXCHANGE, TOPIC, partition, GENERATION, resume)


def write(part: WarmPartition, first: int, count: int, partition: int = 0) -> None:
    for each in raw_batch(first, count, partition):
        part.write(each)


def causes(reader: WarmReader, table: Table, partition: int = 0) -> list[tuple[int, int]]:
    names = ("kafka_offset", "kafka_partition") if table.layer is Layer.BRONZE else ("source_offset", "source_partition")
    found = reader.read_table(table, f"{names[1]} = {{p:Int64}}", {"p": partition}, columns=[names[0], "source_index"])
    return sorted(zip(found[0].to_pylist(), found[1].to_pylist(), strict=True))


def expected(first: int, end: int) -> list[tuple[int, int]]:
    return [(offset, index) for offset in range(first, end) for index in range(PER_RECORD)]


def assert_exactly_once(reader: WarmReader, end: int, partition: int = 0) -> None:
    for table in (BRONZE, SILVER_TRADES):
        assert causes(reader, table, partition) == expected(0, end), table.name
    assert causes(reader, DEAD_LETTERS, partition) == [(offset, 0) for offset in range(0, end, 97)]


def frontiers(reader: WarmReader, partition: int = 0) -> dict[str, int]:
    return {f.table: f.offset for f in reader.frontiers() if f.partition == partition}


def newest_candles(reader: WarmReader) -> list[dict[str, object]]:
    return reader.arrow("SELECT * FROM k2.ohlcv_1m_view ORDER BY window_start").to_pylist()


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------------------------ what arrives


@pytest.mark.parametrize("table", [t for t in ORDER if t.layer is not Layer.GOLD], ids=lambda t: t.name)
def test_every_column_arrives_as_it_was(new_sink: Sinks, reader: WarmReader, table: Table) -> None:
    sent = rows(table, 0, 40, 0)
    part = opened(new_sink())
    part.write(output(table, sent, 0, 40))
    part.commit()
    names = table.arrow_schema(warm=True).names
    got = reader.read_table(table)
    assert got.schema == table.arrow_schema(warm=True)
    order = [(name, "ascending") for name in names if name.endswith("_offset")] + [("source_index", "ascending")]
    assert got.sort_by(order).equals(pa.Table.from_batches([sent]).select(names))


def test_candles_arrive_as_they_were_and_the_view_shows_the_newest(new_sink: Sinks, reader: WarmReader) -> None:
    part = opened(new_sink())
    old, new = candle(0, 4, close_price=Decimal("2.000000000000000001")), candle(0, 9, close_price=Decimal(3), is_closed=False)
    part.write(output(CANDLES, candles(old), 0, 5))
    part.commit()
    part.write(output(CANDLES, candles(new, candle(1, 7)), 5, 5))
    part.commit()
    schema = CANDLES.arrow_schema()
    assert reader.read_table(CANDLES, order_by=["window_start"]).equals(
        pa.Table.from_batches([candles(new, candle(1, 7))]).drop_columns([CHANGE]).cast(schema)
    )
    shown = newest_candles(reader)
    assert [row["close_price"] for row in shown] == [Decimal(3), Decimal(1)]


def test_the_gap_view_shows_the_newest_event_of_each_gap_unless_it_is_filled(new_sink: Sinks, reader: WarmReader) -> None:
    def event(first: int, offset: int, index: int, state: str) -> dict[str, object]:
        made = rows(TRADE_GAPS, offset, 1, 0, 1).to_pylist()[0]
        return {**made, "first_id": first, "last_id": first + 5, "state": state, "source_index": index}

    events = [event(1, 3, 0, "open"), event(1, 4, 0, "filled"), event(1, 4, 1, "open"), event(9, 3, 1, "open"), event(9, 5, 0, "filled")]
    part = opened(new_sink())
    part.write(output(TRADE_GAPS, pa.RecordBatch.from_pylist(events, TRADE_GAPS.arrow_schema()), 0, 10))
    part.commit()
    assert reader.arrow("SELECT first_id, state, source_offset FROM k2.trade_gaps_view").to_pylist() == [
        {"first_id": 1, "state": "open", "source_offset": 4}
    ]


def test_commit_moves_the_frontiers_of_all_tables_also_the_quiet_ones(new_sink: Sinks, reader: WarmReader) -> None:
    part = opened(new_sink())
    write(part, 0, 10)
    part.commit()
    assert frontiers(reader) == {table.name: 10 for table in ORDER}
    write(part, 10, 5)
    assert frontiers(reader) == {table.name: 10 for table in ORDER}, "not before the barrier"
    part.commit()
    assert frontiers(reader) == {table.name: 15 for table in ORDER}
    assert_exactly_once(reader, 15)


def test_partitions_of_one_barrier_share_an_insert(new_sink: Sinks, reader: WarmReader) -> None:
    sink = new_sink()
    parts = [opened(sink, partition=number) for number in range(3)]
    for number, part in enumerate(parts):
        write(part, 0, 7, number)
    for part in parts:
        part.commit()
    for number in range(3):
        assert_exactly_once(reader, 7, number)
        assert set(frontiers(reader, number).values()) == {7}


def test_rows_are_visible_without_a_commit(new_sink: Sinks, reader: WarmReader) -> None:
    write(opened(new_sink()), 0, 4)
    wait_until(lambda: len(causes(reader, SILVER_TRADES)) == 4 * PER_RECORD)


# ----------------------------------------------------------------------------------------------------------------- replays


@pytest.mark.parametrize("cut", [1, 7, 25])
def test_a_replay_with_other_batches_adds_nothing(new_sink: Sinks, reader: WarmReader, cut: int) -> None:
    first = opened(new_sink())
    write(first, 0, 100)
    first.commit()
    write(first, 100, 100)  # no frontier for these
    wait_until(lambda: len(causes(reader, BRONZE)) == len(causes(reader, SILVER_TRADES)) == 200 * PER_RECORD)
    second = opened(new_sink(), 100)
    for start in range(100, 300, cut):
        write(second, start, min(cut, 300 - start))
    second.commit()
    assert_exactly_once(reader, 300)
    assert set(frontiers(reader).values()) == {300}


def test_a_replay_from_the_logs_start_is_hidden_behind_the_frontiers(new_sink: Sinks, reader: WarmReader) -> None:
    first = opened(new_sink())
    write(first, 0, 100)
    first.commit()
    second = opened(new_sink(), None)
    for start in range(0, 150, 30):
        write(second, start, 30)
    second.commit()
    assert_exactly_once(reader, 150)


def test_a_half_written_insert_is_completed(new_sink: Sinks, endpoint: Endpoint, reader: WarmReader) -> None:
    first = opened(new_sink())
    write(first, 0, 50)
    first.commit()
    write(first, 50, 50)
    wait_until(lambda: len(causes(reader, BRONZE)) == len(causes(reader, SILVER_TRADES)) == 300)
    # A crash between two parts leaves holes, also inside a record.
    for table, offset in ((BRONZE, "kafka_offset"), (SILVER_TRADES, "source_offset")):
        assert ask(endpoint, f"DELETE FROM k2.{table.name} WHERE {offset} >= 60 AND (source_index + {offset}) % 5 < 2", 20) is not None
        assert len(causes(reader, table)) == 252
    second = opened(new_sink(), 50)
    for start in range(50, 120, 14):
        write(second, start, 14)
    second.commit()
    assert_exactly_once(reader, 120)


def test_a_position_past_the_frontier_is_refused(new_sink: Sinks) -> None:
    first = opened(new_sink())
    write(first, 0, 10)
    first.commit()
    with pytest.raises(Refused, match=r"binance/00 at offset 11, but k2\.\w+ is only complete up to 10(.|\n)*k2 recover"):
        opened(new_sink(), 11)
    write(first, 10, 5)
    first.commit()  # who was refused has not taken anything over
    opened(new_sink(), 15)


def test_another_generation_of_the_topic_is_refused(new_sink: Sinks) -> None:
    sink = new_sink()
    write(opened(sink), 0, 10)
    sink.commit(next(iter(sink._partitions)))
    with pytest.raises(Refused, match="generation g1, now g2"):
        new_sink().open(EXCHANGE, TOPIC, 0, "g2", None)


# ---------------------------------------------------------------------------------------------------------- late candles


def test_a_delta_is_merged_into_the_stored_row_once(new_sink: Sinks, reader: WarmReader) -> None:
    first = opened(new_sink())
    first.write(output(CANDLES, candles(candle(0, 3), candle(1, 4)), 0, 10))
    first.commit()
    late = candle(0, 12, change=Change.DELTA, high_price=Decimal(9), trade_count=2, is_complete=False)
    for attempt in range(2):
        part = opened(new_sink())
        part.write(output(CANDLES, candles(late), 10, 5))
        wait_until(lambda: newest_candles(reader)[0]["revision"] == 1)
        if attempt == 1:
            part.commit()
    shown = newest_candles(reader)
    assert [(r["revision"], r["trade_count"], r["high_price"], r["source_offset"], r["is_complete"]) for r in shown] == [
        (1, 3, Decimal(9), 12, False),
        (0, 1, Decimal(1), 4, True),
    ]


def test_a_delta_sees_rows_that_still_wait_and_deltas_follow_each_other(new_sink: Sinks, reader: WarmReader) -> None:
    part = opened(new_sink())
    part.write(output(CANDLES, candles(candle(0, 3)), 0, 5))
    part.write(output(CANDLES, candles(candle(0, 6, change=Change.DELTA), candle(5, 7, change=Change.DELTA)), 5, 5))
    part.write(output(CANDLES, candles(candle(0, 11, change=Change.DELTA), candle(5, 12, change=Change.DELTA)), 10, 5))
    part.commit()
    assert [(r["revision"], r["trade_count"], r["source_offset"]) for r in newest_candles(reader)] == [(2, 3, 11), (1, 2, 12)]


def test_a_status_changes_stored_rows_only(new_sink: Sinks, reader: WarmReader) -> None:
    part = opened(new_sink())
    part.write(output(CANDLES, candles(candle(0, 3)), 0, 5))
    part.commit()
    status = [candle(window, 6, change=Change.STATUS, is_complete=False, trade_count=0) for window in (0, 1)]
    part.write(output(CANDLES, candles(*status), 5, 5))
    part.commit()
    assert [(r["is_complete"], r["revision"], r["trade_count"]) for r in newest_candles(reader)] == [(False, 1, 1)]


def test_many_late_windows_at_once(new_sink: Sinks, reader: WarmReader) -> None:
    part = opened(new_sink())
    part.write(output(CANDLES, candles(*(candle(w, 3) for w in range(3000))), 0, 5))
    part.commit()
    part.write(output(CANDLES, candles(*(candle(w, 6, change=Change.STATUS, is_complete=False) for w in range(0, 3000, 2))), 5, 5))
    part.commit()
    shown = newest_candles(reader)
    assert [r["is_complete"] for r in shown] == [w % 2 == 1 for w in range(3000)]
    assert [r["source_offset"] for r in shown] == [3 if w % 2 else 6 for w in range(3000)]


# ------------------------------------------------------------------------------------------------------- unknown outcomes


@pytest.mark.parametrize("table", ["silver_trades", "bronze_trades_binance", "ohlcv_1m", "dead_letters", "frontiers"])
@pytest.mark.parametrize("fate", [Fate.LOSE_ANSWER, Fate.LOSE_REQUEST, Fate.DELAY_REQUEST])
def test_a_lost_request_or_answer_neither_loses_nor_doubles_rows(
    new_sink: Sinks, endpoint: Endpoint, reader: WarmReader, table: str, fate: Fate
) -> None:
    name = table if table == "frontiers" else f"`{table}`"
    rule = Once(f"INSERT INTO k2.{name} (", fate)
    with lossy(endpoint.url, rule) as proxy:
        sink = new_sink(lambda: dataclasses.replace(endpoint, url=proxy.url))
        part = opened(sink)
        for start in range(0, 100, 20):
            write(part, start, 20)
        part.commit()
        assert rule.left == 0
        proxy.release.set()  # what was held back arrives now, after all was stored
        if fate is Fate.DELAY_REQUEST:
            wait_until(lambda: len(proxy.delivered) == 1)
            assert b"200" in proxy.delivered[0]
        write(part, 100, 20)
        part.commit()
    assert_exactly_once(reader, 120)
    assert set(frontiers(reader).values()) == {120}
    assert newest_candles(reader)[0]["source_offset"] == 119


def test_a_question_for_what_became_of_an_insert_is_asked_until_it_is_answered(
    new_sink: Sinks, endpoint: Endpoint, reader: WarmReader
) -> None:
    rules = (Once("INSERT INTO k2.`silver_trades`", Fate.LOSE_ANSWER), Once("SELECT 'silver_trades' AS t", Fate.LOSE_ANSWER, times=5))

    def decide(statement: str) -> Fate:
        return rules[1](statement) if rules[0].left == 0 and rules[0](statement) is Fate.PASS else rules[0](statement)

    with lossy(endpoint.url, decide) as proxy:
        part = opened(new_sink(lambda: dataclasses.replace(endpoint, url=proxy.url)))
        write(part, 0, 20)
        part.commit()
    assert rules[1].left == 0
    assert_exactly_once(reader, 20)


@pytest.mark.parametrize("fate", [Fate.LOSE_ANSWER, Fate.LOSE_REQUEST])
def test_a_lost_claim_is_made_again(new_sink: Sinks, endpoint: Endpoint, reader: WarmReader, fate: Fate) -> None:
    rule = Once("INSERT INTO k2.writers (", fate)
    with lossy(endpoint.url, rule) as proxy:
        part = opened(new_sink(lambda: dataclasses.replace(endpoint, url=proxy.url)))
        assert rule.left == 0
        write(part, 0, 20)
        part.commit()
    assert_exactly_once(reader, 20)


def test_a_claim_that_arrives_late_leaves_no_owner_rather_than_two(new_sink: Sinks, endpoint: Endpoint, reader: WarmReader) -> None:
    with lossy(endpoint.url, Once("INSERT INTO k2.writers (", Fate.DELAY_REQUEST)) as proxy:
        first = opened(new_sink(lambda: dataclasses.replace(endpoint, url=proxy.url)))
        write(first, 0, 20)
        first.commit()
        second = opened(new_sink(), 20)
        proxy.release.set()
        wait_until(lambda: len(proxy.delivered) == 1)
        for part in (first, second):
            write(part, 20, 20)
            with pytest.raises(Fenced):
                part.commit()
    third = opened(new_sink(), 20)
    write(third, 20, 20)
    third.commit()
    assert_exactly_once(reader, 40)


def test_a_store_that_stays_away_is_an_error_at_the_next_call(
    new_sink: Sinks, endpoint: Endpoint, reader: WarmReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inserter, "RETRY_SECONDS", 0.3)
    with lossy(endpoint.url, Once("INSERT INTO k2.`silver_trades`", Fate.LOSE_REQUEST, times=10**6)) as proxy:
        part = opened(new_sink(lambda: dataclasses.replace(endpoint, url=proxy.url)))
        write(part, 0, 5)
        with pytest.raises(SinkUnavailable, match=r"k2\.silver_trades: ClickHouse did not take it within"):
            part.commit()
        with pytest.raises(SinkUnavailable):
            write(part, 5, 5)
        part.abort()
    second = opened(new_sink())
    write(second, 0, 10)
    second.commit()
    assert_exactly_once(reader, 10)


def test_a_table_that_vanishes_is_an_error_at_the_next_call(new_sink: Sinks, endpoint: Endpoint) -> None:
    part = opened(new_sink())
    ask(endpoint, "DROP TABLE k2.silver_trades SYNC", 20)
    write(part, 0, 5)
    with pytest.raises(SchemaMismatch, match="silver_trades"):
        part.commit()
    part.abort()


def test_a_null_where_none_belongs_is_an_error_and_not_a_default(new_sink: Sinks, reader: WarmReader) -> None:
    made = rows(SILVER_TRADES, 0, 5, 0)
    place = made.schema.get_field_index("price")
    prices = pa.array([None, *made["price"][1:].to_pylist()], made["price"].type)
    part = opened(new_sink())
    part.write(output(SILVER_TRADES, made.set_column(place, pa.field("price", prices.type), prices), 0, 5))
    with pytest.raises(PipelineError, match="NULL"):
        part.commit()
    assert causes(reader, SILVER_TRADES) == []


# --------------------------------------------------------------------------------------------------------------- one writer


def test_the_newest_writer_wins_and_the_old_one_writes_nothing_more(new_sink: Sinks, reader: WarmReader) -> None:
    old, new = new_sink(), new_sink()
    zombie = opened(old)
    write(zombie, 0, 10)
    zombie.commit()
    owner = opened(new, 10)
    write(zombie, 10, 10)
    with pytest.raises(Fenced, match=r"taken over k2\.\w+ for binance/00: this process .* must stop"):
        zombie.commit()
    assert_exactly_once(reader, 10)
    write(owner, 10, 30)
    owner.commit()
    assert_exactly_once(reader, 40)


def test_a_replaced_writer_that_writes_no_rows_is_told_at_its_commit(new_sink: Sinks, reader: WarmReader) -> None:
    zombie = opened(new_sink())
    opened(new_sink())
    write(zombie, 0, 0)
    zombie.write(output(FEED_EVENTS, rows(FEED_EVENTS, 0, 0, 0), 0, 5))
    with pytest.raises(Fenced):
        zombie.commit()
    assert frontiers(reader) == {}


def test_losing_one_partition_stops_inserts_that_carry_others(new_sink: Sinks, reader: WarmReader) -> None:
    old = new_sink()
    lost, kept = opened(old, partition=0), opened(old, partition=1)
    opened(new_sink(), partition=0)
    write(lost, 0, 5, 0)
    with pytest.raises(Fenced):
        lost.commit()
    with pytest.raises(PipelineError):
        kept.commit()
    assert causes(reader, SILVER_TRADES) == []


def test_taking_over_ends_an_insert_that_is_stuck_halfway(new_sink: Sinks, endpoint: Endpoint, reader: WarmReader) -> None:
    with lossy(endpoint.url, Once("INSERT INTO k2.`silver_trades`", Fate.STALL)) as proxy:
        zombie = opened(new_sink(lambda: dataclasses.replace(endpoint, url=proxy.url)))
        zombie.write(output(SILVER_TRADES, rows(SILVER_TRADES, 0, 5000, 0), 0, 5000))
        wait_until(lambda: reader_sees_insert(endpoint))
        owner = opened(new_sink())
        assert not reader_sees_insert(endpoint)
        proxy.release.set()
        write(owner, 0, 30)
        owner.commit()
        with pytest.raises(PipelineError):
            zombie.commit()
    assert_exactly_once(reader, 30)


def reader_sees_insert(endpoint: Endpoint) -> bool:
    return ask(endpoint, "SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO k2.`silver%'") == "1"


def test_two_newcomers_at_once_leave_one_owner(new_sink: Sinks, reader: WarmReader) -> None:
    outcome: dict[int, object] = {}

    def run(number: int, sink: ClickHouseWarm) -> None:
        try:
            part = opened(sink)
            write(part, 0, 20)
            part.commit()
            outcome[number] = "done"
        except PipelineError as error:
            outcome[number] = error

    threads = [threading.Thread(target=run, args=(number, new_sink())) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [o for o in outcome.values() if o == "done"], outcome
    assert all(o == "done" or isinstance(o, Fenced) for o in outcome.values()), outcome
    assert_exactly_once(reader, 20)


# --------------------------------------------------------------------------------------------------------- pressure and end


def test_writes_wait_for_room_and_go_on(new_sink: Sinks, reader: WarmReader) -> None:
    sink = new_sink(max_pending_rows=150)
    part = opened(sink)
    most = 0
    for start in range(0, 600, 20):
        write(part, start, 20)
        most = max(most, sum(lane.rows for lane in sink._lanes.values()) + sink._in_flight[0])
    part.commit()
    assert most <= 150
    assert_exactly_once(reader, 600)


def test_an_output_larger_than_all_the_room_is_taken_alone(new_sink: Sinks, reader: WarmReader) -> None:
    part = opened(new_sink(max_pending_rows=10))
    write(part, 0, 50)
    part.commit()
    assert_exactly_once(reader, 50)


def test_candles_do_not_wait_behind_bulk(new_sink: Sinks, reader: WarmReader) -> None:
    part = opened(new_sink(max_pending_rows=5_000_000))
    big = rows(BRONZE, 0, 40_000, 0)
    for _ in range(12):
        part.write(output(BRONZE, big, 0, 40_000))
    part.write(output(CANDLES, candles(candle(0, 3)), 0, 5))
    wait_until(lambda: len(newest_candles(reader)) == 1)
    assert part._warm._lanes[BRONZE.name].rows > 0, "candles were there before the bulk was in"


def test_abort_drops_what_waits_and_never_raises(new_sink: Sinks, endpoint: Endpoint) -> None:
    sink = new_sink()
    part = opened(sink)
    write(part, 0, 5)
    part.abort()
    part.abort()
    sink.close()
    sink.close()
    part.abort()
    with pytest.raises(PipelineError):
        opened(sink)


def test_commit_times_are_the_servers(new_sink: Sinks, reader: WarmReader) -> None:
    part = opened(new_sink())
    write(part, 0, 5)
    part.commit()
    at = reader.frontiers()[0].committed_at
    assert abs(at - datetime.now(UTC)) < timedelta(minutes=1)
