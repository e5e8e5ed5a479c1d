from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from market.schema import OHLCV, SILVER_TRADES, Table
from sinks.clickhouse import pending
from sinks.clickhouse.claims import Shard
from sinks.clickhouse.inserter import among
from sinks.clickhouse.pending import Item, Lane, Position, next_lane

A, B = Shard("binance", 0), Shard("binance", 1)


def lane(table: Table = SILVER_TRADES) -> Lane:
    return Lane(table, {A: Position(0, 0, 0), B: Position(0, 0, 0)})


def item(rows: int, end: int = 1, shard: Shard = A) -> Item:
    return Item(shard, pa.RecordBatch.from_arrays([pa.array(np.zeros(rows, np.int64))], names=["x"]), end)


def test_the_first_rows_after_a_pause_do_not_wait() -> None:
    fresh = lane()
    fresh.put(item(1), 0.0)
    assert next_lane([fresh], 100.0, quick_only=False, at_once=False) == (fresh, None)


def test_the_next_rows_wait_for_the_spacing_unless_somebody_waits_for_them() -> None:
    used = lane()
    used.put(item(1), 0.0)
    used.done(used.take(100.0), 100.0)
    used.put(item(1), 0.0)
    chosen, wait = next_lane([used], 100.01, quick_only=False, at_once=False)
    assert chosen is None
    assert wait == pytest.approx(pending.BULK_SPACING - 0.01)
    assert next_lane([used], 100.01, quick_only=False, at_once=True)[0] is used
    assert next_lane([used], 100.0 + pending.BULK_SPACING, quick_only=False, at_once=False)[0] is used


def test_much_bulk_does_not_wait() -> None:
    used = lane()
    used.put(item(1), 0.0)
    used.done(used.take(100.0), 100.0)
    used.put(item(pending.BULK_ROWS), 0.0)
    assert next_lane([used], 100.0, quick_only=False, at_once=False)[0] is used


def test_quick_tables_have_a_thread_of_their_own() -> None:
    bulk, quick = lane(), lane(OHLCV["1m"])
    bulk.put(item(1000), 0.0)
    quick.put(item(1), 1.0)
    assert next_lane([bulk, quick], 1.1, quick_only=True, at_once=False)[0] is quick
    quick.take(1.1)
    assert next_lane([bulk, quick], 1.1, quick_only=True, at_once=False) == (None, None)


def test_rows_of_one_instant_share_an_insert_of_a_quick_table() -> None:
    quick = lane(OHLCV["1m"])
    quick.put(item(1), 1.0)
    chosen, wait = next_lane([quick], 1.0, quick_only=False, at_once=False)
    assert chosen is None
    assert wait == pytest.approx(pending.GATHER_SECONDS)
    quick.put(item(1, shard=B), 1.001)
    assert next_lane([quick], 1.0 + pending.GATHER_SECONDS, quick_only=False, at_once=False)[0] is quick
    assert len(quick.take(1.01)) == 2


def test_rows_go_in_the_order_in_which_they_could_have_gone_so_that_no_table_starves() -> None:
    bulk, quick = lane(), lane(OHLCV["1m"])
    for table in (bulk, quick):
        table.put(item(1), 10.0)
        table.done(table.take(10.0), 10.0)
        table.put(item(1), 10.0)
    late = 10.0 + pending.BULK_SPACING + 0.01
    assert next_lane([bulk, quick], late, quick_only=False, at_once=False)[0] is quick
    quick.done(quick.take(late), late)
    quick.put(item(1), late)
    assert next_lane([bulk, quick], late + 1, quick_only=False, at_once=False)[0] is bulk


def test_a_slow_server_is_asked_less_often() -> None:
    quick = lane(OHLCV["1m"])
    quick.put(item(1), 10.0)
    quick.done(quick.take(10.0), 10.04)
    quick.put(item(1), 10.05)
    assert quick.ready_at() == pytest.approx(10.0 + pending.PAUSE_PER_INSERT * 0.04)
    quick.done(quick.take(11.0), 15.0)
    assert quick.ready_at() == pytest.approx(11.0 + pending.BUSY_SPACING)


def test_a_table_has_one_insert_at_a_time() -> None:
    busy = lane()
    busy.put(item(1), 0.0)
    busy.take(0.0)
    busy.put(item(1), 0.0)
    assert next_lane([busy], 9.0, quick_only=False, at_once=True) == (None, None)


def test_an_insert_takes_items_in_order_up_to_its_size() -> None:
    full = lane()
    for end in range(1, 5):
        full.put(item(pending.INSERT_ROWS // 3, end), 0.0)
    assert [i.next_offset for i in full.take(0.0)] == [1, 2, 3]
    assert full.rows == pending.INSERT_ROWS // 3


def test_an_insert_takes_items_in_order_up_to_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "INSERT_BYTES", 2 * item(10).rows.nbytes)
    full = lane()
    for end in range(1, 5):
        full.put(item(10, end), 0.0)
    assert [i.next_offset for i in full.take(0.0)] == [1, 2]
    assert full.nbytes == 2 * item(10).rows.nbytes
    full.take(0.0)
    assert (full.rows, full.nbytes) == (0, 0)


def test_an_item_larger_than_an_insert_goes_alone() -> None:
    full = lane()
    full.put(item(2 * pending.INSERT_ROWS), 0.0)
    full.put(item(1), 0.0)
    assert len(full.take(0.0)) == 1


def test_a_position_is_stored_when_nothing_of_it_waits() -> None:
    used = lane()
    used.put(item(1, 10), 0.0)
    used.put(item(1, 20), 0.0)
    used.put(item(1, 7, B), 0.0)
    used.positions[A].written = 25  # an output without rows came after
    taken = used.take(0.0)
    used.done(taken[:1], 0.0)
    assert (used.positions[A].stored, used.positions[B].stored) == (10, 0)
    used.done(taken[1:], 0.0)
    assert (used.positions[A].stored, used.positions[B].stored) == (25, 0)


def test_dropping_a_partition_keeps_the_others() -> None:
    used = lane()
    used.put(item(5, 10), 0.0)
    used.put(item(3, 7, B), 0.0)
    used.drop(A)
    assert (used.rows, [i.shard for i in used.items]) == (3, [B])
    used.done([item(1, 3, A)], 0.0)  # an insert that was under way
    assert A not in used.positions


def test_pairs_are_found_whatever_their_size() -> None:
    known = (np.array([5, 5, 2**40]), np.array([0, 2, 7]))
    wanted = (np.array([5, 5, 5, 6, 2**40, 2**40]), np.array([0, 1, 2, 0, 7, 8]))
    assert among(wanted, known).tolist() == [True, False, True, False, True, False]
    assert among(wanted, (np.array([], np.int64), np.array([], np.int64))).tolist() == [False] * 6


def test_quick_tables_are_inserted_less_often_while_bulk_tables_are_behind() -> None:
    quick, bulk = lane(OHLCV["1m"]), lane()
    quick.put(item(1), 0.0)
    quick.done(quick.take(100.0), 100.0)
    quick.put(item(1), 0.0)
    bulk.put(item(pending.BULK_ROWS), 0.0)
    bulk.busy = True  # its insert is under way
    soon, later = 100.0 + pending.QUICK_SPACING, 100.0 + pending.BUSY_SPACING
    assert next_lane([quick, bulk], soon, quick_only=False, at_once=False)[0] is None
    assert next_lane([quick, bulk], later, quick_only=False, at_once=False)[0] is quick
