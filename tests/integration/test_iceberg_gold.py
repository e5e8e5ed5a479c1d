"""Candles in Iceberg: one row per closed window, whatever comes in which order, against the naive merge."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog

from market.errors import Fenced
from market.schema import OHLCV, Change
from sinks.iceberg import ColdReader, open_catalog
from sinks.iceberg.table import ColdTable
from tests.gold_rows import GOLD, MINUTE, changes_of, gold_row, key_of, naive_merge, status_row
from tests.integration.cold_outputs import at, batch, store, writing

TABLE = OHLCV["1m"]
PARTITION = 3
Changes = list[tuple[Change, dict[str, Any]]]


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return store(tmp_path, (TABLE,))


def give(writer: ColdTable, first: int, end: int, changes: Changes) -> None:
    writer.write(batch(first, end - first, table=TABLE, partition=PARTITION, rows_of=changes_of(changes)))


def commit(writer: ColdTable, first: int, end: int, changes: Changes) -> bytes:
    give(writer, first, end, changes)
    state = writer.snapshot()
    writer.drain(30)
    return state


def candle(offset: int, window: int, symbol: str = "BTC/USDT", **other: Any) -> dict[str, Any]:
    return gold_row(offset, symbol=symbol, window=window * MINUTE, trades=[(window * MINUTE + 5, offset + 1, "100.5", "0.25")], **other)


def stored(catalog: Catalog) -> dict[tuple[Any, ...], dict[str, Any]]:
    found = ColdReader(catalog).read(TABLE)
    assert found.schema.equals(GOLD)
    rows = found.to_pylist()
    assert len({key_of(row) for row in rows}) == len(rows), "a window is stored twice"
    return {key_of(row): row for row in rows}


def live_files(catalog: Catalog) -> list[Any]:
    return [task.file for task in catalog.load_table("cold.gold_ohlcv_1m").scan().plan_files()]


def test_closed_candles_are_stored_and_open_ones_are_not(catalog: Catalog) -> None:
    with writing(catalog, TABLE) as writer:
        commit(
            writer, 0, 10, [(Change.ROW, candle(1, 0)), (Change.ROW, candle(2, 1, is_closed=False)), (Change.ROW, candle(3, 0, "ETH/USDT"))]
        )
    assert {(row["canonical_symbol"], row["source_offset"]) for row in stored(catalog).values()} == {("BTC/USDT", 1), ("ETH/USDT", 3)}
    assert ColdReader(catalog).status(TABLE).frontier == {("raw.trades.binance", PARTITION): at(10)}


def test_a_revision_swaps_exactly_its_row(catalog: Catalog) -> None:
    with writing(catalog, TABLE) as writer:
        commit(writer, 0, 10, [(Change.ROW, candle(w, w)) for w in range(5)])
        before = stored(catalog)
        commit(writer, 10, 20, [(Change.ROW, candle(12, 3, revision=1, is_complete=False))])
    after = stored(catalog)
    revised = {key for key in after if after[key] != before[key]}
    assert [after[key]["source_offset"] for key in revised] == [12]
    assert len(live_files(catalog)) == 1


def test_a_delta_merges_into_the_stored_row_or_becomes_it(catalog: Catalog) -> None:
    old = gold_row(1, window=0, trades=[(10, 5, "10", "2"), (20, 6, "11", "1")])
    delta = gold_row(12, window=0, trades=[(5, 4, "9", "3")], is_complete=False)
    fresh = gold_row(13, window=MINUTE, trades=[(MINUTE + 1, 1, "8", "1")])
    oracle: dict[tuple[Any, ...], dict[str, Any]] = {}
    steps: list[Changes] = [[(Change.ROW, old)], [(Change.DELTA, delta), (Change.DELTA, fresh)]]
    with writing(catalog, TABLE) as writer:
        for number, step in enumerate(steps):
            commit(writer, 10 * number, 10 * number + 10, step)
            naive_merge(oracle, changes_of(step).to_pylist())
    assert stored(catalog) == oracle
    merged = next(row for row in stored(catalog).values() if row["trade_count"] == 3)
    assert (merged["revision"], merged["first_trade_id"], merged["is_complete"]) == (1, "4", False)


def test_a_status_revises_the_stored_row_and_is_dropped_where_there_is_none(catalog: Catalog) -> None:
    with writing(catalog, TABLE) as writer:
        commit(writer, 0, 10, [(Change.ROW, candle(1, 0))])
        commit(
            writer,
            10,
            20,
            [
                (Change.STATUS, status_row(12, window=0, is_complete=False)),
                (Change.STATUS, status_row(12, window=7 * MINUTE, is_complete=False)),
            ],
        )
    (row,) = stored(catalog).values()
    assert (row["is_complete"], row["revision"], row["source_offset"], row["trade_count"]) == (False, 1, 12, 1)


def test_a_late_change_of_a_candle_that_is_not_committed_yet_is_merged_once(catalog: Catalog) -> None:
    with writing(catalog, TABLE, interval_s=3600) as writer:
        give(writer, 0, 10, [(Change.ROW, candle(1, 0))])
        writer.snapshot()
        give(writer, 10, 20, [(Change.DELTA, gold_row(12, window=0, trades=[(2, 1, "7", "1")]))])
        state = writer.snapshot()
    with writing(catalog, TABLE, state) as writer:
        give(writer, 10, 20, [(Change.DELTA, gold_row(12, window=0, trades=[(2, 1, "7", "1")]))])  # the replay is below the frontier
        writer.snapshot()
        writer.drain(20)
    (row,) = stored(catalog).values()
    assert (row["trade_count"], row["revision"]) == (2, 1)


def test_changes_that_another_execution_has_stored_are_left_out_on_resume(catalog: Catalog) -> None:
    changes: Changes = [
        (Change.ROW, candle(1, 0)),
        (Change.DELTA, gold_row(12, window=0, trades=[(2, 1, "7", "1")])),
        (Change.ROW, candle(25, 1)),
    ]
    with writing(catalog, TABLE, interval_s=3600) as writer:
        give(writer, 0, 30, changes)
        state = writer.snapshot()
    with writing(catalog, TABLE) as other:
        commit(other, 0, 20, changes[:2])
    with writing(catalog, TABLE, state) as writer:
        writer.drain(20)
    assert sorted((r["source_offset"], r["revision"], r["trade_count"]) for r in stored(catalog).values()) == [(12, 1, 2), (25, 0, 1)]


def test_a_replay_after_a_lost_state_changes_nothing(catalog: Catalog) -> None:
    changes: Changes = [(Change.ROW, candle(1, 0)), (Change.DELTA, gold_row(12, window=0, trades=[(2, 1, "7", "1")]))]
    with writing(catalog, TABLE) as writer:
        commit(writer, 0, 20, changes)
    before = stored(catalog)
    with writing(catalog, TABLE) as writer:
        commit(writer, 0, 20, changes)
        commit(writer, 20, 30, [])
    assert stored(catalog) == before


def test_a_late_row_for_a_day_long_past_rewrites_only_its_file(catalog: Catalog) -> None:
    with writing(catalog, TABLE) as writer:
        commit(writer, 0, 10, [(Change.ROW, candle(day, day * 1440 + m)) for day in range(10) for m in range(3)])
        before = {f.file_path for f in live_files(catalog)}
        commit(writer, 10, 20, [(Change.ROW, candle(11, 4 * 1440 + 1, revision=1))])
        after = {f.file_path for f in live_files(catalog)}
    assert (len(before), len(after), len(before & after)) == (10, 10, 9)
    assert len(stored(catalog)) == 30


def test_many_small_commits_leave_few_files_and_manifests(catalog: Catalog) -> None:
    with writing(catalog, TABLE) as writer:
        for minute in range(30):
            commit(writer, minute * 10, minute * 10 + 10, [(Change.ROW, candle(minute * 10, minute))])
    assert len(stored(catalog)) == 30
    assert len(live_files(catalog)) <= 14
    table = catalog.load_table("cold.gold_ohlcv_1m")
    assert len(table.current_snapshot().manifests(table.io)) <= 60
    assert int(table.current_snapshot().summary["total-records"]) == 30


def test_constant_revisions_leave_few_manifests(catalog: Catalog) -> None:
    with writing(catalog, TABLE) as writer:
        commit(writer, 0, 10, [(Change.ROW, candle(1, m)) for m in range(20)])
        for number in range(1, 45):
            commit(writer, number * 10, number * 10 + 10, [(Change.ROW, candle(number * 10, number % 20, revision=number))])
    table = catalog.load_table("cold.gold_ohlcv_1m")
    assert len(table.current_snapshot().manifests(table.io)) <= 40
    assert len(stored(catalog)) == 20
    assert int(table.current_snapshot().summary["total-data-files"]) == len(live_files(catalog))


def compact(catalog: Catalog) -> None:
    """Merge all files of the table into one, as a maintenance job does."""
    table = catalog.load_table("cold.gold_ohlcv_1m")
    files = [task.file for task in table.scan().plan_files()]
    rows = table.scan().to_arrow()
    with table.transaction() as change, change.update_snapshot(snapshot_properties={"maintenance": "compact"}).overwrite() as overwrite:
        for file in files:
            overwrite.delete_data_file(file)
        from pyiceberg.io.pyarrow import _dataframe_to_data_files

        for file in _dataframe_to_data_files(table_metadata=table.metadata, df=rows, io=table.io):
            overwrite.append_data_file(file)


def test_compaction_by_others_between_and_during_commits_is_built_upon(catalog: Catalog) -> None:
    other = open_catalog(str(catalog.properties["uri"]).partition("?")[0])
    real = catalog.commit_table
    interfering = False

    def raced(*args: object) -> object:
        nonlocal interfering
        if interfering:
            interfering = False
            compact(other)
        return real(*args)

    with writing(catalog, TABLE) as writer:
        for number in range(6):
            commit(writer, number * 10, number * 10 + 10, [(Change.ROW, candle(number * 10, number))])
        compact(other)
        commit(writer, 60, 70, [(Change.ROW, candle(61, 2, revision=1))])
        commit(writer, 70, 80, [(Change.ROW, candle(71, 9))])
        interfering = True
        catalog.commit_table = raced  # type: ignore[method-assign]
        commit(writer, 80, 90, [(Change.ROW, candle(81, 3, revision=1)), (Change.ROW, candle(82, 10))])
    assert not interfering
    assert sorted((r["source_offset"]) for r in stored(catalog).values()) == [0, 10, 40, 50, 61, 71, 81, 82]


def test_a_zombie_does_not_swap_rows(catalog: Catalog) -> None:
    with writing(catalog, TABLE, interval_s=3600) as zombie:
        give(zombie, 0, 10, [(Change.ROW, candle(1, 0))])
        zombie.snapshot()
        with writing(open_catalog(str(catalog.properties["uri"]).partition("?")[0]), TABLE) as successor:
            commit(successor, 0, 10, [(Change.ROW, candle(1, 0))])
            with pytest.raises(Fenced):
                zombie.drain(20)
            commit(successor, 10, 20, [(Change.ROW, candle(11, 0, revision=1))])
    assert [r["revision"] for r in stored(catalog).values()] == [1]


@pytest.mark.parametrize("seed", range(4))
def test_random_changes_commits_and_restarts_equal_the_naive_merge(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    catalog = store(tmp_path, (TABLE,))
    oracle: dict[tuple[Any, ...], dict[str, Any]] = {}
    state: bytes | None = None
    offset, trade, done = 0, 0, False
    while not done:
        with writing(catalog, TABLE, state, interval_s=rng.choice([0.0, 3600.0])) as writer:
            for _ in range(rng.randint(2, 6)):
                changes: Changes = []
                first = offset
                for _ in range(rng.randint(0, 12)):
                    offset += rng.randint(1, 3)
                    trade += 1
                    window = rng.choice([rng.randint(0, 8), rng.randint(0, 4000), offset // 20]) * MINUTE
                    symbol = rng.choice(["BTC/USDT", "ETH/USDT", "A/B"])
                    trades = [(window + rng.randint(0, 59_000_000), trade, str(rng.randint(1, 99)), "0.5")]
                    kind = rng.choice([Change.ROW, Change.ROW, Change.DELTA, Change.STATUS])
                    if kind is Change.STATUS:
                        row = status_row(offset, symbol=symbol, window=window, is_complete=rng.random() < 0.5)
                    else:
                        row = gold_row(offset, symbol=symbol, window=window, trades=trades, is_complete=rng.random() < 0.5)
                    changes.append((kind, row))
                offset += 1
                give(writer, first, offset, changes)
                naive_merge(oracle, changes_of(changes).to_pylist())
                if rng.random() < 0.7:
                    state = writer.snapshot()
                    kept = (offset, trade, dict(oracle))
                    if rng.random() < 0.5:
                        writer.drain(30)
            state = writer.snapshot()
            if rng.random() < 0.3:
                writer.drain(30)
            done = offset > 200
    with writing(catalog, TABLE, state) as writer:
        writer.drain(30)
        assert writer.frontiers() == {("raw.trades.binance", PARTITION): at(offset)}
    assert kept
    assert stored(catalog) == oracle


def test_the_state_carries_what_waits_and_nothing_else(catalog: Catalog) -> None:
    rows: Changes = [(Change.ROW, candle(1, m)) for m in range(200)]
    with writing(catalog, TABLE, interval_s=3600) as writer:
        empty = writer.snapshot()
        give(writer, 0, 10, rows)
        waiting = writer.snapshot()
        give(writer, 10, 20, [])
        still = writer.snapshot()
        writer.drain(30)
        after = writer.snapshot()
    assert len(waiting) > len(empty) + 5_000
    assert abs(len(still) - len(waiting)) < 200
    assert len(after) < len(empty) + 500
