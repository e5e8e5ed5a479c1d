from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from market.gold import keys_of_deltas, merge_changes
from market.schema import Change
from tests.gold_rows import GOLD, MINUTE, changes_of, gold_row, key_of, naive_merge, status_row, stored_of, time_of

ROW, DELTA, STATUS = Change.ROW, Change.DELTA, Change.STATUS
OLD = [(5, 7, "10", "2"), (9, 8, "12", "1")]


def only(batch: pa.RecordBatch) -> dict[str, Any]:
    assert len(batch) == 1
    row: dict[str, Any] = batch.to_pylist()[0]
    return row


def test_row_is_taken_where_nothing_is_stored() -> None:
    row = gold_row(4, trades=OLD)
    assert only(merge_changes(changes_of([(ROW, row)]), None)) == row


def test_row_replaces_an_older_row() -> None:
    row = gold_row(9, trades=OLD, revision=3)
    assert only(merge_changes(changes_of([(ROW, row)]), stored_of([gold_row(4, trades=OLD[:1])]))) == row


def test_row_of_a_lower_offset_changes_nothing() -> None:
    assert len(merge_changes(changes_of([(ROW, gold_row(3, trades=OLD[:1]))]), stored_of([gold_row(4, trades=OLD)]))) == 0


def test_newest_of_several_rows_wins() -> None:
    rows = [(ROW, gold_row(offset, trades=OLD, revision=offset)) for offset in (4, 6, 5)]
    assert only(merge_changes(changes_of(rows), None))["revision"] == 6


def test_delta_becomes_the_row_where_nothing_is_stored() -> None:
    delta = gold_row(4, trades=OLD)
    assert only(merge_changes(changes_of([(DELTA, delta)]), stored_of([]))) == delta


def test_delta_merges_every_column() -> None:
    stored = gold_row(4, trades=OLD, revision=2)
    delta = gold_row(9, trades=[(4, 6, "11.5", "0.25"), (9, 9, "3", "1")], is_complete=False)
    expected = gold_row(9, trades=[*OLD, (4, 6, "11.5", "0.25"), (9, 9, "3", "1")], is_complete=False, revision=3)
    assert only(merge_changes(changes_of([(DELTA, delta)]), stored_of([stored]))) == expected


def test_equal_times_are_decided_by_the_number_of_the_id() -> None:
    stored = gold_row(4, trades=[(5, 10, "10", "1")])
    merged = only(merge_changes(changes_of([(DELTA, gold_row(9, trades=[(5, 9, "20", "1")]))]), stored_of([stored])))
    assert (merged["open_price"], merged["close_price"]) == (Decimal(20), Decimal(10))
    assert (merged["first_trade_id"], merged["last_trade_id"]) == ("9", "10")


def test_delta_that_is_already_in_the_row_changes_nothing() -> None:
    stored = stored_of([gold_row(4, trades=OLD)])
    assert len(merge_changes(changes_of([(DELTA, gold_row(4, trades=OLD[:1]))]), stored)) == 0


def test_status_changes_only_completeness_and_cause() -> None:
    stored = gold_row(4, trades=OLD)
    row = only(merge_changes(changes_of([(STATUS, status_row(8, is_complete=False))]), stored_of([stored])))
    assert row == {**stored, "is_complete": False, "revision": 1, "source_offset": 8, "updated_at": time_of(8)}


def test_status_is_dropped_where_nothing_is_stored() -> None:
    assert len(merge_changes(changes_of([(STATUS, status_row(8, is_complete=False))]), None)) == 0


def test_later_changes_of_a_batch_see_earlier_ones() -> None:
    changes = [
        (STATUS, status_row(3, is_complete=False)),
        (DELTA, gold_row(4, trades=OLD[:1])),
        (STATUS, status_row(5, is_complete=False)),
        (DELTA, gold_row(6, trades=OLD[1:])),
    ]
    assert only(merge_changes(changes_of(changes), None)) == gold_row(6, trades=OLD, revision=2)


def test_keys_come_in_the_order_of_their_first_change() -> None:
    changes = [
        (DELTA, gold_row(4, symbol="ETH/USDT", trades=OLD)),
        (DELTA, gold_row(5, symbol="ADA/USDT", trades=OLD)),
        (ROW, gold_row(6, window=MINUTE, trades=OLD)),
        (DELTA, gold_row(7, symbol="ETH/USDT", trades=OLD)),
    ]
    stored = stored_of([gold_row(1, symbol="ADA/USDT", trades=OLD), gold_row(1, symbol="XRP/USDT", trades=OLD)])
    merged = merge_changes(changes_of(changes), stored)
    assert merged.column("canonical_symbol").to_pylist() == ["ETH/USDT", "ADA/USDT", "BTC/USDT"]
    assert merged.schema == GOLD


def test_sum_that_would_reach_the_limit_is_left_out() -> None:
    large = [(5, 7, "1", "60000000000000000000")]
    stored = gold_row(4, trades=large)
    row = only(merge_changes(changes_of([(DELTA, gold_row(5, trades=large))]), stored_of([stored])))
    assert row == {**stored, "is_complete": False, "revision": 1, "source_offset": 5, "updated_at": time_of(5)}


def test_ids_that_are_no_numbers_compare_as_text() -> None:
    stored = gold_row(4, trades=OLD[:1], first_trade_id="b", last_trade_id="b")
    delta = gold_row(5, trades=[(5, 1, "99", "1")], first_trade_id="a", last_trade_id="a")
    row = only(merge_changes(changes_of([(DELTA, delta)]), stored_of([stored])))
    assert (row["first_trade_id"], row["last_trade_id"]) == ("a", "b")


def test_numbers_compare_as_numbers_beside_ids_that_are_none() -> None:
    uuids = {"first_trade_id": "a9188a0a-82bc-50de-be60-03eedbe3cdd7", "last_trade_id": "a9188a0a-82bc-50de-be60-03eedbe3cdd7"}
    stored = [gold_row(4, trades=[(5, 10, "10", "1")]), gold_row(4, exchange="bybit_linear", trades=OLD[:1], **uuids)]
    deltas = [gold_row(9, trades=[(5, 9, "20", "1")]), gold_row(9, exchange="bybit_linear", trades=OLD[1:], **uuids)]
    merged = merge_changes(changes_of([(DELTA, delta) for delta in deltas]), stored_of(stored)).to_pylist()[0]
    assert (merged["open_price"], merged["close_price"]) == (Decimal(20), Decimal(10))


def test_only_deltas_and_status_changes_need_stored_rows() -> None:
    changes = [
        (ROW, gold_row(4, symbol="ETH/USDT", trades=OLD)),
        (DELTA, gold_row(5, trades=OLD)),
        (STATUS, status_row(6, window=MINUTE, is_complete=True)),
        (DELTA, gold_row(7, trades=OLD)),
    ]
    keys = keys_of_deltas(changes_of(changes))
    assert [(r["exchange"], r["canonical_symbol"], r["window_start"]) for r in keys.to_pylist()] == [
        key_of(changes[1][1]),
        key_of(changes[2][1]),
    ]
    assert len(keys_of_deltas(changes_of(changes[:1]))) == 0


@pytest.mark.parametrize("seed", range(30))
def test_merge_equals_the_rules_applied_one_by_one(seed: int) -> None:
    dice = random.Random(seed)
    store: dict[Any, dict[str, Any]] = {}
    naive: dict[Any, dict[str, Any]] = {}
    offset = 0
    for _ in range(6):
        changes = []
        for _ in range(dice.randrange(25)):
            offset += dice.randrange(-1, 3)
            key = {"symbol": dice.choice(["BTC/USDT", "ETH/USDT"]), "window": dice.randrange(3) * MINUTE}
            trades = [(dice.randrange(4), dice.randrange(20), str(dice.randrange(1, 99)), f"0.{dice.randrange(1, 999)}") for _ in range(3)]
            kind, done = dice.choice(list(Change)), dice.random() < 0.5
            row = (
                status_row(offset, **key, is_complete=done) if kind is STATUS else gold_row(offset, **key, trades=trades, is_complete=done)
            )
            changes.append((kind, row))
        batch = changes_of(changes)
        needed = [store[key] for key in map(key_of, batch.to_pylist()) if key in store]
        stored = stored_of([row for k, row in enumerate(needed) if row not in needed[:k]])
        store |= {key_of(row): row for row in merge_changes(batch, stored).to_pylist()}
        naive_merge(naive, batch.to_pylist())
        assert store == naive
