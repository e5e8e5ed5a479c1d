"""Creating the tables of the warm store on the real engine: once, by several, and over something else."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from market.errors import ConfigError, SchemaMismatch, SinkUnavailable
from market.schema import OHLCV, SILVER_TRADES, all_tables, bronze_table
from sinks import warm_store
from sinks.clickhouse import WarmReader, ddl, prepare
from sinks.endpoint import Endpoint, ask

TABLES = all_tables(("binance", "kraken"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("warm")
    yield folder
    warm_store.stop(folder)


@pytest.fixture
def endpoint(home: Path) -> Endpoint:
    found = warm_store.ensure(home)
    assert ask(found, "DROP DATABASE IF EXISTS k2 SYNC", 20) == ""
    return found


def described(endpoint: Endpoint) -> dict[str, str]:
    with WarmReader(endpoint) as reader:
        rows = reader.arrow("SELECT name, create_table_query AS made FROM system.tables WHERE database = 'k2'").to_pylist()
    return {row["name"]: row["made"] for row in rows}


def test_all_tables_and_views_are_made_once_and_stay_as_they_are(endpoint: Endpoint) -> None:
    prepare(endpoint, TABLES)
    made = described(endpoint)
    assert set(made) == {
        *(t.name for t in TABLES),
        *(f"{t.name}_view" for t in OHLCV.values()),
        *("trade_gaps_view", "frontiers", "writers", "schema_version"),
    }
    prepare(endpoint, TABLES)
    assert described(endpoint) == made
    assert ask(endpoint, "SELECT count(), max(version) FROM k2.schema_version") == f"1\t{ddl.SCHEMA_VERSION}"


def test_the_server_understood_engines_partitions_and_expiry(endpoint: Endpoint) -> None:
    prepare(endpoint, TABLES)
    made = described(endpoint)
    assert "TTL toDateTime(inserted_at) + toIntervalDay(7)" in made["bronze_trades_kraken"]
    assert "TTL toDateTime(inserted_at) + toIntervalDay(30)" in made["silver_trades"]
    assert "PARTITION BY toYYYYMMDD(inserted_at)" in made["silver_trades"]
    assert "ReplacingMergeTree(source_offset) PARTITION BY toYYYYMM(window_start)" in made["ohlcv_1d"]
    assert "TTL" not in made["ohlcv_1d"] + made["dead_letters"] + made["trade_gaps"] + made["feed_events"]


def test_an_exchange_added_later_gets_its_table(endpoint: Endpoint) -> None:
    prepare(endpoint, all_tables(("binance",)))
    assert "bronze_trades_kraken" not in described(endpoint)
    prepare(endpoint, TABLES)
    assert "bronze_trades_kraken" in described(endpoint)


def test_several_processes_may_prepare_at_once(endpoint: Endpoint) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(prepare, endpoint, TABLES) for _ in range(4)]:
            done.result()
    prepare(endpoint, TABLES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "ALTER TABLE k2.silver_trades MODIFY COLUMN source String",
            r"silver_trades.*source String stands where source LowCardinality\(String\)",
        ),
        ("ALTER TABLE k2.silver_trades DROP COLUMN vendor_data", r"silver_trades.*validation_errors .*stands where vendor_data"),
        ("ALTER TABLE k2.dead_letters ADD COLUMN more String", r"dead_letters.*10 columns instead of 9"),
        ("ALTER TABLE k2.frontiers ADD COLUMN more String", r"k2\.frontiers has columns .*more"),
    ],
)
def test_a_table_of_another_shape_is_refused_with_a_way_out(endpoint: Endpoint, change: str, said: str) -> None:
    prepare(endpoint, TABLES)
    assert ask(endpoint, change, 20) == ""
    with pytest.raises(SchemaMismatch, match=rf"{said}.*k2 recover"):
        prepare(endpoint, TABLES)


def test_tables_of_a_newer_version_are_refused(endpoint: Endpoint) -> None:
    prepare(endpoint, TABLES)
    ask(endpoint, "INSERT INTO k2.schema_version (version) VALUES (99)")
    with pytest.raises(SchemaMismatch, match=r"schema 99.*update this installation"):
        prepare(endpoint, TABLES)


def test_the_reading_user_sees_tables_and_views(endpoint: Endpoint) -> None:
    prepare(endpoint, TABLES)
    for name in described(endpoint):
        assert ask(endpoint.reader(), f"SELECT count() FROM k2.{name}") is not None, name


def test_the_reading_user_cannot_prepare(endpoint: Endpoint) -> None:
    with pytest.raises(ConfigError, match="ACCESS_DENIED"):
        prepare(endpoint.reader(), TABLES)


def test_a_wrong_password_and_an_absent_server_are_told_apart(endpoint: Endpoint) -> None:
    with pytest.raises(ConfigError, match="AUTHENTICATION_FAILED"):
        prepare(Endpoint(endpoint.url, endpoint.user, "wrong"), TABLES)
    with pytest.raises(SinkUnavailable):
        prepare(Endpoint("http://127.0.0.1:1", "u", "p"), TABLES)


def test_a_store_that_was_never_prepared_has_no_frontiers(endpoint: Endpoint) -> None:
    with WarmReader(endpoint) as reader:
        assert reader.frontiers() == []


def test_tables_read_in_the_projects_types_also_when_empty(endpoint: Endpoint) -> None:
    prepare(endpoint, TABLES)
    with WarmReader(endpoint) as reader:
        for table in TABLES:
            assert reader.read_table(table).schema == table.arrow_schema(warm=True)
        names = ["symbol", "price"]
        assert reader.read_table(bronze_table("kraken"), columns=names).schema.names == names
        where = "exchange = {e:String} AND timestamp >= {t:DateTime64(6)}"
        assert reader.read_table(SILVER_TRADES, where, {"e": "it's", "t": "2026-01-01 00:00:00"}, order_by=["timestamp"]).num_rows == 0
