"""The rules of candles, one by one. Times are given as seconds after `START`, a full minute."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from market.rules import Rules
from market.schema import all_tables
from tests.shard_logs import MINUTE, SECOND, START, Record, Store, batch_of, frame, marker, micros, new_shard, run, trade

TABLES = [table.name for table in all_tables(("binance",))]


def at(seconds: float) -> int:
    return START + round(seconds * SECOND)


def traded(
    number: int, seconds: float, price: str = "100", quantity: str = "1", *, symbol: int = 0, is_buy: bool = True, **other: Any
) -> Record:
    return frame(trade(number, at(seconds), price, quantity, is_buy=is_buy), symbol=symbol, **other)


def covered(seconds_from: float, seconds_to: float, *symbols: int) -> Record:
    return marker(at(seconds_from), at(seconds_to), symbols or (0,))


def candle(store: Store, interval: str = "1m", *, minute: int = 0, symbol: int = 0) -> dict[str, Any]:
    found = store.candle(interval, start=START + minute * MINUTE, symbol=symbol)
    assert found is not None
    return found


def status(store: Store, *, minute: int = 0) -> tuple[bool, bool, int, int]:
    row = candle(store, minute=minute)
    return row["is_closed"], row["is_complete"], row["revision"], row["source_offset"]


def test_every_batch_has_one_output_a_table_in_the_order_of_the_schema() -> None:
    shard = new_shard()
    for records in ([], [traded(1, 1)], [covered(-1, 5)]):
        outputs = shard.apply(*batch_of(records, 7))
        assert [output.table for output in outputs] == TABLES
        assert {(o.exchange, o.topic, o.partition, o.generation, o.first_offset, o.next_offset) for o in outputs} == {
            ("binance", "raw.trades.binance", 3, "g1", 7, 7 + len(records))
        }


def test_candle_has_every_value_of_its_trades() -> None:
    store = run(
        [
            traded(1, 1, "100", "2"),
            traded(2, 2, "90.5", "0.5", is_buy=False),
            traded(3, 3, "110", "0.25"),
            traded(4, 4, "95", "1", is_buy=False, received_us=at(9)),
        ]
    )
    row = candle(store)
    prices = (row["open_price"], row["high_price"], row["low_price"], row["close_price"])
    assert prices == (Decimal(100), Decimal(110), Decimal("90.5"), Decimal(95))
    assert (row["volume"], row["quote_volume"], row["trade_count"]) == (Decimal("3.75"), Decimal("367.75"), 4)
    assert row["vwap"] == Decimal("98.066666666666666667")
    assert (row["taker_buy_volume"], row["taker_buy_quote_volume"]) == (Decimal("2.25"), Decimal("227.5"))
    assert (row["first_trade_id"], row["last_trade_id"]) == ("1", "4")
    assert (micros(row["first_trade_time"]), micros(row["last_trade_time"])) == (at(1), at(4))
    assert (micros(row["window_start"]), micros(row["window_end"])) == (START, START + MINUTE)
    assert (row["is_closed"], row["is_complete"], row["revision"]) == (False, False, 0)
    assert (row["source_partition"], row["source_offset"], micros(row["updated_at"])) == (3, 3, at(9))
    assert (row["exchange"], row["canonical_symbol"]) == ("binance", "BTC/USDT")


def test_trade_is_in_the_window_that_starts_at_its_time_and_not_in_the_one_that_ends_there() -> None:
    store = run([traded(1, 60)])
    assert store.candle(start=START) is None
    assert candle(store, minute=1)["trade_count"] == 1


@pytest.mark.parametrize(("interval", "start"), [("1m", 0), ("5m", 0), ("15m", -10), ("30m", -25), ("1h", -55), ("1d", -23 * 60 - 55)])
def test_trade_is_in_one_candle_of_each_interval(interval: str, start: int) -> None:
    assert candle(run([traded(1, 30)]), interval, minute=start)["trade_count"] == 1


def test_equal_times_are_decided_by_the_trade_id() -> None:
    row = candle(run([frame(trade(3, at(1), "3"), trade(1, at(1), "1"), trade(2, at(1), "2"))]))
    assert (row["first_trade_id"], row["open_price"], row["last_trade_id"], row["close_price"]) == ("1", Decimal(1), "3", Decimal(3))


def test_repeated_ids_count_once() -> None:
    store = run([traded(1, 1), traded(2, 2), traded(1, 1), frame(trade(2, at(2)), trade(3, at(3)), trade(3, at(3)))])
    assert candle(store)["trade_count"] == 3
    assert [row["trade_id"] for row in store.rows["silver_trades"]] == ["1", "2", "3"]
    assert len(store.rows["bronze_trades_binance"]) == 6


def test_trades_move_no_watermark() -> None:
    assert not candle(run([covered(-10, 1), traded(1, 1), traded(2, 500)]))["is_closed"]


def test_candle_closes_when_the_watermark_reaches_its_end() -> None:
    log = [covered(-10, 1), traded(1, 1), covered(1, 61.999999)]
    assert status(run(log)) == (False, False, 0, 1)
    assert status(run([*log, covered(61, 62)])) == (True, True, 0, 3)


def test_quiet_symbol_closes_from_markers_alone() -> None:
    store = run([covered(-10, 1, 0, 1), traded(1, 1, symbol=1), traded(1, 1), traded(2, 70), covered(1, 70, 0, 1)])
    assert candle(store, symbol=1)["is_closed"]


def test_marker_of_another_symbol_closes_nothing() -> None:
    assert not candle(run([covered(-10, 1), traded(1, 1), covered(-10, 100, 1)]))["is_closed"]


def test_candle_born_after_its_end_is_closed_at_birth() -> None:
    assert status(run([covered(-10, 100), traded(1, 1)])) == (True, True, 0, 1)


def test_late_trade_revises_its_candle_once_a_record() -> None:
    late = frame(trade(2, at(2)), trade(3, at(3)))
    store = run([covered(-10, 1), traded(1, 1), covered(1, 70), late, traded(4, 5)])
    assert status(store) == (True, True, 2, 4)
    assert candle(store)["trade_count"] == 4


def test_windows_before_the_first_coverage_are_not_complete() -> None:
    log = [traded(1, 1), covered(30, 70)]
    assert status(run(log)) == (True, False, 0, 1)
    assert status(run([*log, covered(-1, 31)])) == (True, True, 1, 2)


def test_outage_makes_a_window_incomplete_until_it_is_covered_or_bridged() -> None:
    log = [covered(-10, 20), traded(1, 10), covered(40, 70)]
    assert status(run(log)) == (True, False, 0, 2)
    assert status(run([*log, covered(19, 40)])) == (True, True, 1, 3)
    assert status(run([*log, traded(2, 41)])) == (True, True, 1, 3)
    assert status(run([*log, traded(3, 41)])) == (True, False, 1, 3)


def test_outage_is_not_bridged_where_ids_jump() -> None:
    rules = Rules(contiguous_ids=False)
    assert status(run([covered(-10, 20), traded(1, 10), covered(40, 70), traded(2, 41)], rules=rules)) == (True, False, 1, 3)


def test_hole_of_one_instant_is_bridged_by_a_trade_at_it() -> None:
    log = [covered(-10, 20), covered(20.000001, 70), traded(1, 20.000001)]
    assert status(run(log)) == (True, True, 0, 2)


@pytest.mark.parametrize("seconds", [10, 30])
def test_hole_of_one_instant_is_bridged_by_the_next_id_at_it(seconds: float) -> None:
    log = [traded(1, seconds), covered(-10, 20), covered(20.000001, 70)]
    assert status(run(log)) == (True, False, 0, 2)
    assert status(run([*log, traded(2, 20.000001)])) == (True, True, 1, 3)


def test_open_gap_touches_the_windows_between_its_times() -> None:
    log = [covered(-10, 1), traded(1, 50), traded(3, 70), covered(1, 200)]
    store = run(log)
    assert [status(store, minute=m)[:2] for m in (0, 1)] == [(True, False), (True, False)]
    refilled = run([*log, traded(2, 55)])
    assert [status(refilled, minute=m) for m in (0, 1)] == [(True, True, 1, 4), (True, True, 1, 4)]


def test_missing_ids_within_the_grace_are_no_gap_yet() -> None:
    log = [covered(-10, 1), traded(1, 50), traded(3, 62), covered(1, 62.9)]
    assert status(run(log)) == (True, True, 0, 3)
    assert status(run([*log, covered(62.9, 63)])) == (True, False, 1, 4)


def test_nothing_is_missing_below_the_lowest_id() -> None:
    assert status(run([covered(-10, 1), traded(1000, 1), covered(1, 70)])) == (True, True, 0, 2)


def test_second_feed_covers_the_outage_of_the_first() -> None:
    second = marker(at(-10), at(70), feed="b")
    assert status(run([covered(-10, 20), traded(1, 1), second, covered(50, 75)])) == (True, True, 0, 2)


def test_markers_in_any_order_cover_the_same() -> None:
    parts = [covered(40, 70), covered(-10, 20), covered(20, 40), covered(-10, 20)]
    assert status(run([traded(1, 1), *parts])) == (True, True, 1, 3)


def test_trade_beyond_the_horizon_is_merged_into_the_stored_row() -> None:
    log = [covered(-10, 1), traded(1, 1), covered(1, 70), covered(70, 700)]
    late = traded(2, 5, "50")
    for cuts in ([], [4]):
        store = run([*log, late], cuts=cuts)
        assert status(store) == (True, True, 1, 4)
        assert candle(store)["close_price"] == Decimal(50)


def test_first_trade_of_a_window_beyond_the_horizon_becomes_its_row() -> None:
    assert status(run([covered(-10, 1000), traded(1, 1)])) == (True, True, 0, 1)


def test_completeness_of_a_window_beyond_the_horizon_changes_its_stored_row() -> None:
    log = [covered(-10, 20), traded(1, 10), covered(40, 70), covered(70, 2000)]
    for cuts in ([], [4]):
        assert status(run([*log, covered(10, 41)], cuts=cuts)) == (True, True, 1, 4)


def test_gap_filled_beyond_the_horizon_changes_every_stored_row_that_it_touched() -> None:
    log = [covered(-10, 1), traded(1, 50), traded(3, 70), covered(1, 200), covered(200, 2000)]
    for cuts in ([], [5]):
        store = run([*log, traded(2, 55)], cuts=cuts)
        assert [status(store, minute=m) for m in (0, 1)] == [(True, True, 1, 5), (True, True, 1, 5)]
        assert [candle(store, minute=m)["trade_count"] for m in (0, 1)] == [2, 1]


def test_no_candle_appears_for_a_window_without_trades() -> None:
    log = [covered(-10, 20), traded(1, 10), traded(2, 400), covered(390, 3000), covered(20, 390)]
    store = run(log, cuts=[4])
    assert {micros(row["window_start"]) for row in store.gold["ohlcv_1m"].values()} == {START, START + 6 * MINUTE}


@pytest.mark.parametrize("offset", [0, 2**40])
def test_rows_name_the_offset_of_their_cause(offset: int) -> None:
    store = run([covered(-10, 1), traded(1, 1), covered(1, 70)], first_offset=offset)
    assert status(store) == (True, True, 0, offset + 2)


def test_offsets_may_have_holes() -> None:
    shard, store = new_shard(), Store()
    store.take(shard.apply(*batch_of([covered(-10, 1), traded(1, 1), covered(1, 70)], 5, stride=10)))
    assert status(store) == (True, True, 0, 25)


def test_sum_that_would_reach_the_limit_is_a_dead_letter() -> None:
    large = Decimal(10) ** 15 - 1
    log = [frame(*(trade(k + 1, at(1), "1", str(large)) for k in range(first, first + 1000))) for first in range(0, 101_000, 1000)]
    contiguous, jumping = run(log, cuts=[50]), run(log, rules=Rules(contiguous_ids=False))
    for store in (contiguous, jumping):
        letters = store.rows["dead_letters"]
        assert {row["reason"] for row in letters} == {"volume_overflow"}
        assert candle(store)["volume"] == large * (101_000 - len(letters))
        assert Decimal(10) ** 20 - large <= candle(store)["volume"] < Decimal(10) ** 20


def test_next_day_has_room_again_after_a_full_one() -> None:
    large = Decimal(10) ** 15 - 1
    log = [frame(*(trade(k + 1, at(1), "1", str(large)) for k in range(first, first + 1000))) for first in range(0, 43_000, 1000)]
    store = run([*log, traded(43_001, 600), covered(-10, 1800), traded(43_002, 1801)])
    assert store.rows["dead_letters"] == []
    assert candle(store, "1d", minute=5)["trade_count"] == 2


def test_record_with_trades_of_two_symbols_counts_for_both() -> None:
    batch, decoded = batch_of([frame(trade(1, at(1)), trade(2, at(2)), trade(7, at(3)))], 0)
    decoded.trades.symbol[2] = 1
    store = Store()
    store.take(new_shard().apply(batch, decoded))
    assert [candle(store, symbol=s)["trade_count"] for s in (0, 1)] == [2, 1]


def test_trades_of_one_record_beyond_the_horizon_are_one_change() -> None:
    store = run([covered(-10, 1), traded(1, 1), covered(1, 2000), frame(trade(2, at(5)), trade(3, at(6)), trade(4, at(61)))], cuts=[3])
    assert [status(store, minute=m) for m in (0, 1)] == [(True, True, 1, 3), (True, True, 0, 3)]
    assert candle(store)["trade_count"] == 3


def test_late_trade_that_may_bridge_is_judged_with_its_record() -> None:
    log = [covered(-10, 20), traded(1, 10), covered(40, 200), frame(trade(2, at(30)), trade(3, at(70)))]
    assert [status(run(log), minute=m) for m in (0, 1)] == [(True, True, 1, 3), (True, True, 0, 3)]


def test_jumping_ids_leave_no_gaps_and_are_deduplicated() -> None:
    rules = Rules(contiguous_ids=False)
    store = run([covered(-10, 1), traded(1, 1), traded(900, 2), traded(17, 3), traded(900, 2), covered(1, 70)], rules=rules)
    assert candle(store)["trade_count"] == 3
    assert status(store) == (True, True, 0, 5)
    assert store.rows["trade_gaps"] == []


def test_trade_too_old_to_deduplicate_is_a_dead_letter() -> None:
    rules = Rules(contiguous_ids=False, dedup_horizon_us=100 * SECOND)
    log = [traded(5, 200), traded(6, 99.999999), traded(7, 100), frame(trade(8, at(600)), trade(9, at(110)))]
    for cuts in ([], [1, 2, 3]):
        store = run(log, rules=rules, cuts=cuts, reloads=bool(cuts))
        assert [(row["reason"], row["source_offset"]) for row in store.rows["dead_letters"]] == [("too_old_to_deduplicate", 1)]
        assert [row["trade_id"] for row in store.rows["silver_trades"]] == ["5", "7", "8", "9"]


def test_forgotten_id_may_come_again_with_a_new_time() -> None:
    rules = Rules(contiguous_ids=False, dedup_horizon_us=100 * SECOND)
    store = run([traded(5, 1), traded(6, 200), traded(5, 150), traded(5, 150)], rules=rules)
    assert [row["source_offset"] for row in store.rows["silver_trades"]] == [0, 1, 2]


def test_marker_of_a_stretch_that_is_covered_already_changes_nothing() -> None:
    log = [traded(1, 1), covered(-10, 20), covered(40, 70), covered(-5, 10), covered(-10, 20)]
    assert status(run(log)) == (True, False, 0, 2)


def test_ids_of_many_trades_are_forgotten_in_time() -> None:
    rules = Rules(contiguous_ids=False, dedup_horizon_us=100 * SECOND)
    shard = new_shard(rules)
    for k in range(60):
        shard.apply(*batch_of([frame(*(trade(k * 1000 + n, at(k * 60 + n / 100)) for n in range(1000)))], k))
    assert len(shard.dump()) < 400_000
