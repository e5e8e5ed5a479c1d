"""Tables and views of database `k2`, derived from the field table (`market.schema`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from market.errors import SchemaMismatch
from market.schema import Column, Kind, Layer, Table
from sinks.clickhouse.session import DATABASE, Session
from sinks.endpoint import Endpoint

SCHEMA_VERSION: Final = 1
_WAY_OUT: Final = "rename it and start again; what it held is loaded anew from the raw topics (`k2 recover`)"
KEPT_DAYS: Final = {Layer.BRONZE: 7, Layer.SILVER: 30}  # counted from insertion: loading an old recording keeps it as long
# Of bronze and silver: rows are rewritten once where the default, a few parts at a time, rewrites them two or three times.
MERGED_AT_ONCE: Final = 12
TYPES: Final = {
    Kind.TEXT: "String",
    Kind.CODE: "LowCardinality(String)",
    Kind.INT: "Int64",
    Kind.DECIMAL: "Decimal(38, 18)",
    Kind.TIME: "DateTime64(6, 'UTC')",
    Kind.BOOL: "Bool",
    Kind.LIST: "Array(String)",
    Kind.MAP: "Map(String, String)",
    Kind.BYTES: "String",
}
# Delta codecs take at most 8 bytes a value, so decimals have none.
CODECS: Final = {Kind.INT: "CODEC(Delta, ZSTD(1))", Kind.TIME: "CODEC(Delta, ZSTD(1))", Kind.CODE: "", Kind.BOOL: ""}
DEFAULT_CODEC: Final = "CODEC(ZSTD(1))"
INSERTED_AT: Final = "`inserted_at` DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') CODEC(Delta, ZSTD(1))"

CONTROL_TABLES: Final = {
    # The first offset a table has not yet taken in; facts, so the highest one is the one that counts.
    "frontiers": """(
        `table` LowCardinality(String), `exchange` LowCardinality(String), `topic` LowCardinality(String), `partition` Int64,
        `generation` String, `offset` UInt64, `committed_at` DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
    ) ENGINE = ReplacingMergeTree(`offset`) ORDER BY (`table`, `topic`, `partition`)""",
    # Who may write the rows that a table takes from a topic partition (key `silver_trades binance/03`: the claim put here last),
    # and how often a writer has disowned its lost inserts into a table (key: table and writer).
    "writers": """(
        `key` String, `claim` String, `process` String, `claimed_at` DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
    ) ENGINE = EmbeddedRocksDB PRIMARY KEY `key`""",
    "schema_version": """(
        `version` UInt32, `applied_at` DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
    ) ENGINE = ReplacingMergeTree ORDER BY `version`""",
}


def column_type(column: Column) -> str:
    """Return the ClickHouse type of a column."""
    return f"Nullable({TYPES[column.kind]})" if column.nullable else TYPES[column.kind]


def create_table(table: Table) -> str:
    """Return the statement that creates a table unless it is there."""
    columns = [" ".join(filter(None, (f"`{c.name}`", column_type(c), CODECS.get(c.kind, DEFAULT_CODEC)))) for c in table.warm_columns]
    order = ", ".join(f"`{name}`" for name in table.key)
    if table.layer is Layer.GOLD:
        engine = f"ENGINE = ReplacingMergeTree(`source_offset`) PARTITION BY toYYYYMM(`window_start`) ORDER BY ({order})"
    else:
        # The resume check asks by offset: with this index it reads a few granules.
        columns.append(f"INDEX by_offset `{table.cause_columns[1]}` TYPE minmax GRANULARITY 1")
        engine = f"ENGINE = MergeTree ORDER BY ({order})"
    if table.layer in KEPT_DAYS:
        # Partitioned by insertion day: an insert touches one part, so it is whole or absent (two parts around midnight).
        columns.insert(len(table.warm_columns), INSERTED_AT)
        engine = (
            f"ENGINE = MergeTree PARTITION BY toYYYYMMDD(`inserted_at`) ORDER BY ({order}) "
            f"TTL toDateTime(`inserted_at`) + INTERVAL {KEPT_DAYS[table.layer]} DAY DELETE "
            f"SETTINGS ttl_only_drop_parts = 1, min_parts_to_merge_at_once = {MERGED_AT_ONCE}"
        )
    body = ",\n  ".join(columns)
    return f"CREATE TABLE IF NOT EXISTS {DATABASE}.`{table.name}` (\n  {body}\n) {engine}"


def create_view(table: Table) -> str | None:
    """Return the statement that creates the view people query; None for tables without one."""
    if table.layer is Layer.GOLD:
        return (
            f"CREATE OR REPLACE VIEW {DATABASE}.`{table.name}_view` AS SELECT * FROM {DATABASE}.`{table.name}` FINAL "
            "SETTINGS do_not_merge_across_partitions_select_final = 1"
        )
    if table.name == "trade_gaps":
        key = ", ".join(f"`{name}`" for name in table.key)
        return (
            f"CREATE OR REPLACE VIEW {DATABASE}.`trade_gaps_view` AS SELECT * FROM (SELECT * FROM {DATABASE}.`trade_gaps` "
            f"ORDER BY `source_offset` DESC, `source_index` DESC LIMIT 1 BY {key}) WHERE `state` != 'filled' ORDER BY {key}"
        )
    return None


def prepare(endpoint: Endpoint, tables: Sequence[Table]) -> None:
    """Create database, tables and views that are not there; may be called by several processes at once.

    Raises:
        SchemaMismatch: a table has other columns than this version writes, or a newer version has been here.
        ConfigError: the user may not do this.
        SinkUnavailable: the server cannot be reached.
    """
    session = Session(endpoint)
    try:
        session.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
        stored = _stored_version(session)
        if stored > SCHEMA_VERSION:
            raise SchemaMismatch(
                f"database {DATABASE} was made by a newer version (schema {stored}, this one writes {SCHEMA_VERSION}): update this installation"
            )
        found = _columns(session)
        for name, definition in CONTROL_TABLES.items():
            if name not in found:
                session.command(f"CREATE TABLE IF NOT EXISTS {DATABASE}.`{name}` {definition}")
            elif (names := [column for column, _ in found[name]]) != re.findall(r"`(\w+)` [A-Z]", definition):
                raise SchemaMismatch(f"table {DATABASE}.{name} has columns {', '.join(names)}, which another version made: {_WAY_OUT}")
        for table in tables:
            if table.name not in found:
                session.command(create_table(table))
            else:
                _check(table, found[table.name])
            view = create_view(table)
            if view is not None and (f"{table.name}_view" not in found or stored < SCHEMA_VERSION):
                session.command(view)
        if stored < SCHEMA_VERSION:
            session.command(f"INSERT INTO {DATABASE}.schema_version (version) VALUES ({SCHEMA_VERSION})")
    finally:
        session.close()


def expected_columns(table: Table) -> list[tuple[str, str]]:
    """Return names and types of a table's columns as the server reports them."""
    columns = [(c.name, column_type(c)) for c in table.warm_columns]
    return [*columns, ("inserted_at", TYPES[Kind.TIME])] if table.layer in KEPT_DAYS else columns


def _check(table: Table, found: list[tuple[str, str]]) -> None:
    expected = expected_columns(table)
    if found == expected:
        return
    wrong = next((pair for pair in zip(found, expected, strict=False) if pair[0] != pair[1]), None)
    detail = (
        f"column {wrong[0][0]} {wrong[0][1]} stands where {wrong[1][0]} {wrong[1][1]} belongs"
        if wrong
        else f"it has {len(found)} columns instead of {len(expected)}"
    )
    raise SchemaMismatch(
        f"table {DATABASE}.{table.name} has another shape than this version writes: {detail}. "
        f"It was made or altered by something else: {_WAY_OUT}"
    )


def _stored_version(session: Session) -> int:
    if "schema_version" not in _columns(session):
        return 0
    return int(session.arrow(f"SELECT max(version) AS v FROM {DATABASE}.schema_version")["v"][0].as_py())


def _columns(session: Session) -> dict[str, list[tuple[str, str]]]:
    rows = session.arrow(
        "SELECT table, name, type FROM system.columns WHERE database = {db:String} ORDER BY table, position", {"db": DATABASE}
    )
    found: dict[str, list[tuple[str, str]]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["table"], []).append((row["name"], row["type"]))
    return found
