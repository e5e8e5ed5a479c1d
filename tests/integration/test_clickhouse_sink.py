"""The ClickHouse sink against the real served engine: what arrives, and that it arrives once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest

from market.errors import PipelineError, Refused
from market.schema import CHANGE, SILVER_TRADES, TRADE_GAPS, Change, Layer, Table
from sinks.clickhouse import WarmReader
from sinks.endpoint import Endpoint, ask
from tests.integration.warm_outputs import (
    EXCHANGE,
    ORDER,
    PER_RECORD,
    TOPIC,
    candle,
    candles,
    output,
    rows,
)
from tests.integration.warm_sink import (
    BRONZE,
    CANDLES,
    Sinks,
    assert_exactly_once,
    causes,
    frontiers,
    newest_candles,
    opened,
    wait_until,
    write,
)

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
