"""The Iceberg sink on a real SQLite catalog and local files."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog

from market.errors import ConfigError, Fenced, SchemaMismatch, SinkUnavailable
from market.schema import CHANGE, OHLCV, SILVER_TRADES, TRADE_GAPS, Layer, Table, all_tables, bronze_table
from sinks.iceberg import ColdReader, open_catalog, prepare
from sinks.iceberg.append import GROUP_ROWS, MAX_OPEN_FILES
from sinks.iceberg.fence import Change, FencedTable
from sinks.iceberg.table import ColdTable
from sinks.iceberg.workers import Workers
from tests.integration.cold_outputs import DAY_US, at, batch, causes, expected, store, url_of, wait_until, writing
from tests.integration.warm_outputs import EXCHANGE, TABLES, TOPIC, rows

APPEND_TABLES = [t for t in TABLES if t.layer is not Layer.GOLD]
BRONZE = bronze_table(EXCHANGE)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return store(tmp_path, (SILVER_TRADES, TRADE_GAPS, OHLCV["1m"]))


# ------------------------------------------------------------------------------------------------------------- layout


def test_prepare_makes_every_table_and_may_be_repeated(tmp_path: Path) -> None:
    catalog = store(tmp_path, all_tables(("binance", "kraken")))
    prepare(catalog, all_tables(("binance", "kraken")))
    names = {name for _, name in catalog.list_tables("cold")}
    assert names == {t.cold_name for t in all_tables(("binance", "kraken"))}
    assert str(catalog.load_table("cold.silver_trades").spec()).count("day") >= 1
    assert "month" in str(catalog.load_table("cold.gold_ohlcv_1d").spec())


def test_a_table_of_another_shape_is_refused(catalog: Catalog) -> None:
    with catalog.load_table("cold.trade_gaps").update_schema() as change:
        change.delete_column("reason")
    with pytest.raises(SchemaMismatch, match=r"cold.trade_gaps has other columns .*\(reason\)"):
        prepare(catalog, [TRADE_GAPS])
    with pytest.raises(SchemaMismatch, match="reason"):
        ColdTable(catalog, TRADE_GAPS).open(None)


def test_a_table_of_another_layout_version_is_refused(catalog: Catalog) -> None:
    with catalog.load_table("cold.trade_gaps").transaction() as change:
        change.set_properties({"k2.layout-version": "99"})
    with pytest.raises(SchemaMismatch, match="layout version 99"):
        prepare(catalog, [TRADE_GAPS])


def test_a_missing_table_is_a_clear_error(tmp_path: Path) -> None:
    catalog = open_catalog(url_of(tmp_path))
    with pytest.raises(SchemaMismatch, match=r"cold\.silver_trades"):
        ColdTable(catalog, SILVER_TRADES).open(None)


def test_a_table_claimed_by_another_since_it_was_loaded_is_claimed_from_the_new_head(catalog: Catalog) -> None:
    late, early = (FencedTable(catalog.load_table("cold.trade_gaps"), stale=False) for _ in range(2))
    early.claim()
    late.claim()
    assert late.epoch == early.epoch + 1
    with pytest.raises(Fenced, match="taken over"):
        early.commit(lambda _table: Change(), {}, "late")


# -------------------------------------------------------------------------------------------------------------- write


@pytest.mark.parametrize("table", APPEND_TABLES, ids=lambda t: t.name)
def test_rows_come_back_as_they_were_written(catalog: Catalog, table: Table) -> None:
    prepare(catalog, [table])
    written = rows(table, 0, 500, 1)
    with writing(catalog, table) as writer:
        writer.write(batch(0, 500, table=table, partition=1, rows_of=written))
        writer.snapshot()
        writer.drain(20)
    found = ColdReader(catalog).read(table)
    assert found.schema.equals(table.arrow_schema())
    offset = "kafka_offset" if table.layer is Layer.BRONZE else "source_offset"
    assert found.sort_by([(offset, "ascending"), ("source_index", "ascending")]).equals(pa.Table.from_batches([written]))


def test_rows_are_partitioned_by_day_and_exchange_and_sorted_by_symbol_and_time(catalog: Catalog) -> None:
    made = rows(SILVER_TRADES, 0, 300, 0)
    times = made.column("timestamp").cast(pa.int64()).to_numpy() + np.arange(900) % 3 * DAY_US
    symbols = [f"S{i % 7}/USDT" for i in range(900)]
    made = made.set_column(0, made.schema.field(0), pa.array(times).cast(made.schema.field(0).type))
    made = made.set_column(3, made.schema.field(3), pa.array(symbols))
    kraken = made.set_column(1, made.schema.field(1), pa.array(["kraken"] * 900))
    with writing(catalog) as writer:
        writer.write(batch(0, 300, rows_of=made))
        writer.write(batch(0, 300, rows_of=kraken, exchange="kraken", topic="raw.trades.kraken"))
        writer.snapshot()
        writer.drain(20)
    table = catalog.load_table("cold.silver_trades")
    files = [task.file for task in table.scan().plan_files()]
    assert sorted((f.partition[1], f.record_count) for f in files) == [("binance", 300)] * 3 + [("kraken", 300)] * 3
    for task in table.scan().plan_files():
        frame = pl.read_parquet(task.file.file_path)
        assert frame.equals(frame.sort("canonical_symbol", "timestamp", maintain_order=True))
    one_day = table.scan(
        row_filter="exchange == 'kraken' and timestamp >= '2023-11-15T00:00:00+00:00' and timestamp < '2023-11-16T00:00:00+00:00'"
    )
    assert len(list(one_day.plan_files())) == 1
    assert one_day.to_arrow().num_rows == 300


def test_an_epoch_larger_than_a_row_group_comes_back_whole(catalog: Catalog) -> None:
    prepare(catalog, [BRONZE])
    with writing(catalog, BRONZE) as writer:
        for first in range(0, 40_000, 4_000):
            writer.write(batch(first, 4_000, table=BRONZE))
        writer.snapshot()
        writer.drain(30)
    assert causes(catalog, BRONZE) == expected(40_000)
    (task,) = catalog.load_table("cold.bronze_trades_binance").scan().plan_files()
    footer = pq.read_metadata(task.file.file_path.removeprefix("file://"))
    groups = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
    assert sum(groups) == 120_000
    assert max(groups) <= GROUP_ROWS
    assert len(task.file.split_offsets) == len(groups)


def test_an_epoch_of_old_rows_over_many_days_comes_back_whole(catalog: Catalog) -> None:
    days = MAX_OPEN_FILES + 15
    with writing(catalog) as writer:
        for first in range(0, 100, 50):
            made = rows(SILVER_TRADES, first, 50, 0)
            times = made.column("timestamp").cast(pa.int64()).to_numpy() + np.arange(150) % days * DAY_US
            writer.write(
                batch(first, 50, rows_of=made.set_column(0, made.schema.field(0), pa.array(times).cast(made.schema.field(0).type)))
            )
        writer.snapshot()
        writer.drain(30)
    assert causes(catalog) == expected(100)
    assert ColdReader(catalog).status(SILVER_TRADES).files >= days


def test_missing_sequence_numbers_stay_missing(catalog: Catalog) -> None:
    made = rows(SILVER_TRADES, 0, 10, 0)
    number = made.schema.get_field_index("sequence_number")
    made = made.set_column(number, made.schema.field(number), pa.array([None, 5, None] * 10, pa.int64()))
    with writing(catalog) as writer:
        writer.write(batch(0, 10, rows_of=made))
        writer.snapshot()
        writer.drain(30)
    assert ColdReader(catalog).read(SILVER_TRADES, "sequence_number is null").num_rows == 20
    assert ColdReader(catalog).read(SILVER_TRADES, "sequence_number >= 5").num_rows == 10


def test_every_file_is_on_the_disk_before_the_catalog_names_it(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(catalog, TABLES)
    synced: set[str] = set()
    real = os.fsync

    def watched(handle: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(os, "fsync", watched)
    real_commit = catalog.commit_table

    def commit(table: object, requirements: object, updates: tuple[object, ...]) -> object:
        for update in updates:
            snapshot = getattr(update, "snapshot", None)
            if snapshot is not None:  # manifests and data files come before the swap; the new metadata file is made within it
                written = {snapshot.manifest_list, *(m.manifest_path for m in snapshot.manifests(catalog._load_file_io()))}
                assert {w.removeprefix("file://") for w in written if str(snapshot.snapshot_id) in w or "-m0" in w} <= synced
        return real_commit(table, requirements, updates)

    catalog.commit_table = commit  # type: ignore[method-assign]
    with writing(catalog) as writer:
        for first in range(0, 60, 20):
            writer.write(batch(first, 20))
            writer.snapshot()
            writer.drain(30)
    table = catalog.load_table("cold.silver_trades")
    named = {table.metadata_location, *(task.file.file_path for task in table.scan().plan_files())}
    for path in (n.removeprefix("file://") for n in named):
        assert path in synced
        assert str(Path(path).parent) in synced
        assert str(Path(path).parents[1]) in synced  # where a new partition's folder is entered


def test_other_engines_read_what_was_committed(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")
    duckdb = pytest.importorskip("duckdb")
    with writing(catalog) as writer:
        writer.write(batch(0, 1000))
        writer.snapshot()
        writer.drain(20)
    location = ColdReader(catalog).metadata_location(SILVER_TRADES)
    expected_sum = 3000 + sum(range(3000)) / 10**18
    frame = (
        pl.scan_iceberg(location)
        .filter(pl.col("exchange") == EXCHANGE)
        .select(pl.len(), pl.col("price").sum(), pl.col("vendor_data"))
        .collect()
    )
    assert frame["len"][0] == 3000
    assert float(frame["price"][0]) == pytest.approx(expected_sum)
    with duckdb.connect() as connection:
        load_iceberg_extension(connection)
        found = connection.execute(
            "SELECT count(*), sum(price), sum(cardinality(vendor_data)), sum(len(trade_conditions)), max(source_offset) "
            f"FROM iceberg_scan('{location}') WHERE exchange = 'binance'"
        ).fetchone()
    assert found is not None
    assert (found[0], found[2], found[3], found[4]) == (3000, 1500, 3000, 999)
    assert float(found[1]) == pytest.approx(expected_sum)


def load_iceberg_extension(connection: object) -> None:
    import duckdb_extension_avro
    import duckdb_extension_iceberg

    for module in (duckdb_extension_avro, duckdb_extension_iceberg):
        for file in Path(module.__file__).parent.rglob("*.duckdb_extension"):
            connection.execute(f"LOAD '{file}'")  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------------------ catalog


def test_the_barrier_does_not_wait_for_a_locked_catalog(catalog: Catalog, tmp_path: Path) -> None:
    with writing(catalog) as writer:
        writer.write(batch(0, 10))
        writer.snapshot()
        writer.drain(20)
        lock = sqlite3.connect(tmp_path / "cold/catalog.db", isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        for first in range(10, 60, 10):
            writer.write(batch(first, 10))
            writer.snapshot()  # would hang here
        assert writer.frontiers() == {(TOPIC, 0): at(10)}
        with pytest.raises(SinkUnavailable, match=r"within 0\.2 s"):
            writer.drain(0.2)
        lock.execute("ROLLBACK")
        lock.close()
        writer.drain(40)
    assert causes(catalog) == expected(60)


def test_commits_wait_out_a_catalog_that_fails_and_take_several_epochs_at_once(catalog: Catalog) -> None:
    real = catalog.commit_table
    broken = True

    def failing(*args: object) -> object:
        if broken:
            raise OSError("connection refused")
        return real(*args)

    with writing(catalog) as writer:
        catalog.commit_table = failing  # type: ignore[method-assign]
        for first in range(0, 50, 10):
            writer.write(batch(first, 10))
            writer.snapshot()
        wait_until(lambda: writer.pressure() > 0)
        before = len(catalog.load_table("cold.silver_trades").snapshots())
        broken = False
        writer.drain(20)
        assert len(catalog.load_table("cold.silver_trades").snapshots()) - before <= 2
    assert causes(catalog) == expected(50)


@pytest.mark.parametrize("landed", [True, False])
def test_a_commit_of_unknown_outcome_is_stored_once(catalog: Catalog, *, landed: bool) -> None:
    from pyiceberg.exceptions import CommitStateUnknownException

    real = catalog.commit_table
    calls = []

    def unsure(*args: object) -> object:
        calls.append(args)
        if len(calls) > 1:
            return real(*args)
        if landed:
            real(*args)
        raise CommitStateUnknownException("500")

    with writing(catalog) as writer:
        catalog.commit_table = unsure  # type: ignore[method-assign]
        writer.write(batch(0, 100))
        writer.snapshot()
        writer.drain(20)
        assert writer.frontiers() == {(TOPIC, 0): at(100)}
    assert causes(catalog) == expected(100)
    assert len(calls) == (1 if landed else 2)


def test_a_frontier_alone_is_not_worth_a_commit_before_its_time(catalog: Catalog) -> None:
    with writing(catalog) as writer:
        before = len(catalog.load_table("cold.silver_trades").snapshots())
        for first in range(0, 100, 10):
            writer.write(batch(first, 10, rows_of=rows(SILVER_TRADES, 0, 0, 0)))
            writer.snapshot()
        writer.drain(20)
        assert len(catalog.load_table("cold.silver_trades").snapshots()) - before == 1


def test_a_full_disk_reaches_the_engine(catalog: Catalog, tmp_path: Path) -> None:
    with writing(catalog) as writer:
        data = tmp_path / "cold/warehouse/cold/silver_trades/data"
        data.parent.mkdir(parents=True, exist_ok=True)
        data.write_text("no folder can be made here")
        writer.write(batch(0, 10))
        with pytest.raises(SinkUnavailable, match="write a data file of silver_trades"):
            writer.snapshot()


def test_close_never_raises_and_leaves_no_thread(catalog: Catalog) -> None:
    import threading

    before = set(threading.enumerate())
    unopened = ColdTable(catalog, SILVER_TRADES)
    unopened.close()
    writer = ColdTable(catalog, SILVER_TRADES, workers=Workers())
    writer.open(None)
    writer.write(batch(0, 10))
    writer.close()
    writer.close()
    wait_until(lambda: not [t for t in set(threading.enumerate()) - before if t.name.startswith("iceberg")])


def test_a_catalog_url_with_a_secret_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(ConfigError, match="PYICEBERG_CATALOG__K2__S3__SECRET_ACCESS_KEY"):
        open_catalog("rest+https://localhost:1?s3.secret-access-key=hunter2")


def test_gold_outputs_without_a_change_column_are_our_bug(catalog: Catalog) -> None:
    with writing(catalog, OHLCV["1m"]) as writer, pytest.raises(ValueError, match=CHANGE):
        writer.write(batch(0, 1, table=OHLCV["1m"], rows_of=rows(OHLCV["1m"], 0, 1, 0)))
