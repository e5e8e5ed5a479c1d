"""The Iceberg sink's frontier, resumption and fence, on a real SQLite catalog and local files."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from market.errors import Fenced, Refused, SchemaMismatch
from market.schema import OHLCV, SILVER_TRADES, TRADE_GAPS, Layer, bronze_table
from sinks.iceberg import ColdReader, open_catalog, prepare
from sinks.iceberg.layout import SNAPSHOTS_KEPT
from sinks.iceberg.table import ColdTable
from tests.integration.cold_outputs import at, batch, causes, expected, store, url_of, writing
from tests.integration.warm_outputs import EXCHANGE, TABLES, TOPIC, rows

APPEND_TABLES = [t for t in TABLES if t.layer is not Layer.GOLD]
BRONZE = bronze_table(EXCHANGE)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return store(tmp_path, (SILVER_TRADES, TRADE_GAPS, OHLCV["1m"]))


# ----------------------------------------------------------------------------------------------------------- frontier


def test_a_batch_without_rows_moves_only_the_frontier(catalog: Catalog) -> None:
    with writing(catalog, TRADE_GAPS) as writer:
        writer.write(batch(0, 700, table=TRADE_GAPS, rows_of=rows(TRADE_GAPS, 0, 0, 0)))
        writer.snapshot()
        writer.drain(20)
        assert writer.frontiers() == {(TOPIC, 0): at(700)}
    status = ColdReader(catalog).status(TRADE_GAPS)
    assert (status.rows, status.files, status.frontier) == (0, 0, {(TOPIC, 0): at(700)})
    assert status.last_commit is not None
    assert abs((datetime.now(UTC) - status.last_commit).total_seconds()) < 60


def test_every_commit_repeats_the_whole_frontier_and_few_snapshots_are_kept(catalog: Catalog) -> None:
    with writing(catalog) as writer:
        writer.write(batch(0, 10, partition=3))
        for first in range(0, 300, 10):
            writer.write(batch(first, 10))
            writer.snapshot()
            writer.drain(20)
    table = catalog.load_table("cold.silver_trades")
    assert len(table.snapshots()) <= SNAPSHOTS_KEPT + 1
    for snapshot in table.snapshots():
        assert json.loads(snapshot.summary["stream.frontier"])["raw.trades.binance/3"]["offset"] == 10
    assert ColdReader(catalog).status(SILVER_TRADES).frontier == {(TOPIC, 0): at(300), (TOPIC, 3): at(10)}
    assert causes(catalog) == expected(300) + expected(10, partition=3)
    assert [(f.table, f.partition, f.offset) for f in ColdReader(catalog).frontiers()] == [
        ("silver_trades", 0, 300),
        ("silver_trades", 3, 10),
    ]


def test_replayed_rows_are_dropped_whatever_the_cut_of_batches(catalog: Catalog) -> None:
    with writing(catalog) as writer:
        writer.write(batch(0, 100))
        writer.write(batch(0, 100))
        writer.write(batch(50, 100))
        writer.snapshot()
        writer.drain(20)
    with writing(catalog) as writer:
        writer.write(batch(0, 40))
        writer.write(batch(40, 200))
        writer.snapshot()
        writer.drain(20)
    assert causes(catalog) == expected(240)


def test_the_topic_of_another_generation_is_refused(catalog: Catalog) -> None:
    with writing(catalog) as writer:
        writer.write(batch(0, 10))
        with pytest.raises(Refused, match="deleted and created again"):
            writer.write(batch(10, 10, generation="g2"))


def test_rows_without_a_frontier_are_refused(catalog: Catalog) -> None:
    # Somebody appended with another tool: taking offset 0 for granted would store everything twice.
    table = catalog.load_table("cold.silver_trades")
    table.append(pa.Table.from_batches([rows(SILVER_TRADES, 0, 5, 0)]))
    with pytest.raises(Refused, match="none of its snapshots says how far"):
        ColdTable(catalog, SILVER_TRADES).open(None)


# ------------------------------------------------------------------------------------------------------------- resume


def test_what_was_snapshotted_and_not_committed_is_committed_on_resume(catalog: Catalog) -> None:
    with writing(catalog, interval_s=3600) as writer:
        writer.write(batch(0, 100))
        writer.snapshot()
        writer.write(batch(100, 100))
        state = writer.snapshot()
        writer.write(batch(200, 100))
    assert causes(catalog) == []
    with writing(catalog, state=state) as writer:
        writer.drain(20)
        assert causes(catalog) == expected(200)
        writer.write(batch(200, 100))
        writer.snapshot()
        writer.drain(20)
    assert causes(catalog) == expected(300)


def test_what_was_committed_after_the_saved_state_is_not_committed_again(catalog: Catalog) -> None:
    with writing(catalog, interval_s=3600) as writer:
        writer.write(batch(0, 100))
        state = writer.snapshot()
        writer.write(batch(100, 100))
        writer.snapshot()
        writer.drain(20)
    with writing(catalog, state=state) as writer:
        writer.write(batch(100, 150))  # the engine reads from its saved position, with another cut
        writer.snapshot()
        writer.drain(20)
    assert causes(catalog) == expected(250)


def test_of_a_pending_file_only_the_rows_are_taken_that_another_execution_has_not_stored(catalog: Catalog) -> None:
    with writing(catalog, interval_s=3600) as writer:
        writer.write(batch(0, 100))
        writer.write(batch(0, 60, partition=1))
        state = writer.snapshot()
    with writing(catalog) as other:  # another recovery folder: from the log's start, with its own epochs
        other.write(batch(0, 70))
        other.snapshot()
        other.drain(20)
    with writing(catalog, state=state) as writer:
        writer.drain(20)
        assert writer.frontiers() == {(TOPIC, 0): at(100), (TOPIC, 1): at(60)}
    assert causes(catalog) == expected(100) + expected(60, partition=1)


def test_a_pending_file_that_is_gone_is_refused_only_while_it_is_needed(catalog: Catalog, tmp_path: Path) -> None:
    with writing(catalog, interval_s=3600) as writer:
        writer.write(batch(0, 100))
        state = writer.snapshot()
    for file in tmp_path.rglob("*.parquet"):
        file.unlink()
    with pytest.raises(Refused, match=r"is gone.*k2 recover"):
        ColdTable(catalog, SILVER_TRADES).open(state)
    with writing(catalog) as other:
        other.write(batch(0, 100))
        other.snapshot()
        other.drain(20)
    with writing(catalog, state=state) as writer:
        writer.drain(20)
    assert causes(catalog) == expected(100)


def test_a_pending_file_that_was_cut_short_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    with writing(catalog, interval_s=3600) as writer:
        writer.write(batch(0, 100))
        state = writer.snapshot()
    (file,) = tmp_path.rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(Refused, match=r"bytes instead of.*k2 recover"):
        ColdTable(catalog, SILVER_TRADES).open(state)


def test_a_table_that_was_set_back_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    with writing(catalog) as writer:
        writer.write(batch(0, 100))
        writer.snapshot()
        writer.drain(20)
        early = (tmp_path / "cold/catalog.db").read_bytes()
        writer.write(batch(100, 100))
        writer.snapshot()
        writer.drain(20)
        state = writer.snapshot()
    (tmp_path / "cold/catalog.db").write_bytes(early)
    with pytest.raises(Refused, match=r"up to offset 100, and had it up to 200.*k2 recover"):
        ColdTable(open_catalog(url_of(tmp_path)), SILVER_TRADES).open(state)


def test_the_state_of_a_dropped_table_is_refused(catalog: Catalog) -> None:
    with writing(catalog) as writer:
        writer.write(batch(0, 100))
        state = writer.snapshot()
    catalog.drop_table("cold.silver_trades")
    prepare(catalog, [SILVER_TRADES])
    with pytest.raises(Refused, match="k2 recover"):
        ColdTable(catalog, SILVER_TRADES).open(state)


def test_saved_state_of_an_unknown_version_names_the_way_out(catalog: Catalog) -> None:
    with pytest.raises(SchemaMismatch, match="k2 recover"):
        ColdTable(catalog, SILVER_TRADES).open(b"K2IC\x63\x00\x00\x00\x00{}")


# -------------------------------------------------------------------------------------------------------------- fence


def test_a_writer_whose_table_was_taken_over_commits_nothing_more(catalog: Catalog) -> None:
    with writing(catalog, interval_s=3600) as zombie:
        zombie.write(batch(0, 100))
        zombie.snapshot()
        with writing(open_catalog(f"{catalog.properties['uri'].partition('?')[0]}")) as successor:
            successor.write(batch(0, 30))
            successor.snapshot()
            successor.drain(20)
            with pytest.raises(Fenced, match="taken over"):
                zombie.drain(20)
            with pytest.raises(Fenced):
                zombie.write(batch(100, 10))
            with pytest.raises(Fenced):
                zombie.snapshot()
            successor.write(batch(30, 30))
            successor.snapshot()
            successor.drain(20)
    assert causes(catalog) == expected(60)


def test_a_commit_that_raced_with_maintenance_lands_once_on_the_new_head(catalog: Catalog) -> None:
    with writing(catalog, interval_s=3600) as writer:
        writer.write(batch(0, 50))
        writer.snapshot()
        writer.drain(20)
        table = catalog.load_table("cold.silver_trades")
        with table.transaction() as change:  # any foreign commit that moves the head
            change.update_snapshot(snapshot_properties={"maintenance": "compact"}).fast_append().commit()
        writer.write(batch(50, 50))
        writer.snapshot()
        writer.drain(20)
    assert causes(catalog) == expected(100)
    assert ColdReader(catalog).status(SILVER_TRADES).frontier == {(TOPIC, 0): at(100)}
