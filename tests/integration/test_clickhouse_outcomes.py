"""The ClickHouse sink when answers are lost, stores vanish and another writer comes."""

from __future__ import annotations

import dataclasses
import threading

import pyarrow as pa
import pytest

from market.errors import Fenced, PipelineError, SchemaMismatch, SinkUnavailable
from market.schema import FEED_EVENTS, SILVER_TRADES
from sinks.clickhouse import WarmReader, inserter
from sinks.clickhouse.warm import ClickHouseWarm, WarmPartition
from sinks.endpoint import Endpoint, ask
from tests.integration.lossy_proxy import Fate, Once, lossy
from tests.integration.warm_outputs import (
    output,
    rows,
)
from tests.integration.warm_sink import (
    Sinks,
    assert_exactly_once,
    causes,
    frontiers,
    newest_candles,
    opened,
    wait_until,
    write,
)

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


def write_and_commit(part: WarmPartition, first: int, count: int, partition: int = 0) -> None:
    """For who is refused: the first insert may be it before the last one is handed over."""
    write(part, first, count, partition)
    part.commit()


def test_a_claim_that_arrives_late_leaves_no_owner_rather_than_two(new_sink: Sinks, endpoint: Endpoint, reader: WarmReader) -> None:
    with lossy(endpoint.url, Once("INSERT INTO k2.writers (", Fate.DELAY_REQUEST)) as proxy:
        first = opened(new_sink(lambda: dataclasses.replace(endpoint, url=proxy.url)))
        write(first, 0, 20)
        first.commit()
        second = opened(new_sink(), 20)
        proxy.release.set()
        wait_until(lambda: len(proxy.delivered) == 1)
        for part in (first, second):
            with pytest.raises(Fenced):
                write_and_commit(part, 20, 20)
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
    with pytest.raises(Fenced, match=r"taken over k2\.\w+ for binance/00: this process .* must stop"):
        write_and_commit(zombie, 10, 10)
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
    with pytest.raises(Fenced):
        write_and_commit(lost, 0, 5, 0)
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
