"""How our tables look in Iceberg: schema, partitions, properties and Parquet settings, all derived from `market.schema`.

Format version 2; partitioned by day of the time column (1h and 1d candles: month) and, where there is such a column, exchange.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError, TableAlreadyExistsError
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform, IdentityTransform, MonthTransform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DecimalType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    TimestamptzType,
)

from market.errors import SchemaMismatch
from market.schema import ARROW_TYPES, Column, Kind, Table
from sinks.iceberg.catalog import NAMESPACE
from sinks.iceberg.errors import translate

LAYOUT_VERSION: Final = "1"
VERSION_PROPERTY: Final = "k2.layout-version"
FIRST_PARTITION_FIELD: Final = 1000

# Level 1 costs as much as no compression on these rows and packs as well as level 3 (measured: 0.55 µs a bronze row).
ZSTD_LEVEL: Final = 1
SNAPSHOTS_KEPT: Final = 20
# Small manifests keep merging and revising cheap however many files there are: a merge reads and writes about 1,500 entries.
MANIFEST_BYTES: Final = 256 << 10
MANIFESTS_MERGED_AT: Final = 30

_PROPERTIES: Final = {
    "format-version": "2",
    VERSION_PROPERTY: LAYOUT_VERSION,
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": str(MANIFESTS_MERGED_AT),
    "commit.manifest.target-size-bytes": str(MANIFEST_BYTES),
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "write.delete.isolation-level": "snapshot",
    "write.update.isolation-level": "snapshot",
    "write.parquet.compression-codec": "zstd",
    "write.parquet.compression-level": str(ZSTD_LEVEL),
}
# Columns by which people and the audit look for rows. Statistics of the others would cost time and help nobody.
_STATISTICS: Final = frozenset({
    "exchange_timestamp", "timestamp", "event_time", "receive_time", "from_time", "to_time", "window_start", "window_end",
    "exchange", "symbol", "canonical_symbol", "sequence_number", "first_id", "last_id",
    "kafka_partition", "kafka_offset", "source_partition", "source_offset", "reason", "kind", "state", "is_complete", "revision",
})  # fmt: skip
_SORTED_BY: Final = ("canonical_symbol", "symbol")
_MONTHLY: Final = frozenset({"ohlcv_1h", "ohlcv_1d"})
US_PER_DAY: Final = 86_400_000_000
_PLAIN_TYPES: Final = {
    Kind.TEXT: StringType(),
    Kind.CODE: StringType(),
    Kind.INT: LongType(),
    Kind.DECIMAL: DecimalType(ARROW_TYPES[Kind.DECIMAL].precision, ARROW_TYPES[Kind.DECIMAL].scale),
    Kind.TIME: TimestamptzType(),
    Kind.BOOL: BooleanType(),
    Kind.BYTES: BinaryType(),
}
_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Layout:
    """How to write rows of one table.

    Attributes:
        table: the market table.
        schema: Arrow schema with Iceberg field ids.
        offset_column, partition_column: the cause of a row.
        symbol_column: rows are sorted by (symbol, time) within a row group; None: by time.
        by_month: partitions are months, not days.
        by_exchange: partitions also go by exchange.
        writer_options: of `pyarrow.parquet.ParquetWriter`.
    """

    table: Table
    schema: pa.Schema
    offset_column: str
    partition_column: str
    symbol_column: str | None
    by_month: bool
    by_exchange: bool
    writer_options: dict[str, Any]

    @classmethod
    def of(cls, table: Table, iceberg_schema: Schema) -> Layout:
        """Build from the table's own field ids."""
        names = [c.name for c in table.columns]
        partition_column, offset_column = table.cause_columns
        integers = {c.name: "DELTA_BINARY_PACKED" for c in table.columns if c.kind in (Kind.INT, Kind.TIME)}
        return cls(
            table=table,
            schema=_arrow_schema(table, iceberg_schema),
            offset_column=offset_column,
            partition_column=partition_column,
            symbol_column=next((name for name in _SORTED_BY if name in names), None),
            by_month=table.name in _MONTHLY,
            by_exchange="exchange" in names,
            writer_options={
                "compression": "zstd",
                "compression_level": ZSTD_LEVEL,
                "use_dictionary": [c.name for c in table.columns if c.kind is Kind.CODE],
                "column_encoding": integers,
                "write_statistics": [name for name in names if name in _STATISTICS],
                "store_decimal_as_integer": False,
                "store_schema": False,
            },
        )

    @property
    def identifier(self) -> tuple[str, str]:
        """Name in the catalog."""
        return identifier_of(self.table)

    def partition_ordinal(self, time_us: int) -> int:
        """Return the partition's time value: days or months since 1970."""
        day = time_us // US_PER_DAY
        if not self.by_month:
            return day
        month = _EPOCH + timedelta(days=day)
        return (month.year - _EPOCH.year) * 12 + month.month - 1


def identifier_of(table: Table) -> tuple[str, str]:
    """Return a table's name in the catalog."""
    return NAMESPACE, table.cold_name


def iceberg_schema(table: Table) -> Schema:
    """Return the Iceberg schema; ids count columns first, then the parts of lists and maps."""
    nested = len(table.columns)
    fields = []
    for number, column in enumerate(table.columns, start=1):
        kind, nested = _iceberg_type(column, nested)
        fields.append(NestedField(number, column.name, kind, required=not column.nullable, doc=column.meaning))
    return Schema(*fields)


def partition_spec(table: Table, schema: Schema) -> PartitionSpec:
    """Return the partitioning: day or month of the time column, then exchange where there is one."""
    monthly = table.name in _MONTHLY
    transform, name = (MonthTransform(), "month") if monthly else (DayTransform(), "day")
    time_field = schema.find_field(table.time_column).field_id
    fields = [PartitionField(time_field, FIRST_PARTITION_FIELD, transform, f"{table.time_column}_{name}")]
    if any(c.name == "exchange" for c in table.columns):
        exchange_field = schema.find_field("exchange").field_id
        fields.append(PartitionField(exchange_field, FIRST_PARTITION_FIELD + 1, IdentityTransform(), "exchange"))
    return PartitionSpec(*fields)


def table_properties(table: Table) -> dict[str, str]:
    """Return the table properties that our writer relies on."""
    metrics = {"write.metadata.metrics.default": "none"}
    metrics |= {f"write.metadata.metrics.column.{c.name}": "truncate(32)" for c in table.columns if c.name in _STATISTICS}
    return {**_PROPERTIES, **metrics}


def prepare(catalog: Catalog, tables: Sequence[Table]) -> None:
    """Create the namespace and the tables that are missing, and check those that are there. Idempotent.

    Raises:
        SchemaMismatch: a table has other columns, partitions or another layout version than this program writes.
        SinkUnavailable: the catalog cannot be reached.
    """
    try:
        catalog.create_namespace_if_not_exists(NAMESPACE)
        for table in tables:
            _prepare_table(catalog, table)
    except Exception as error:
        raise translate(error, "prepare the cold store") from error


def _prepare_table(catalog: Catalog, table: Table) -> None:
    try:
        found = catalog.load_table(identifier_of(table))
    except NoSuchTableError:
        schema = iceberg_schema(table)
        try:
            found = catalog.create_table(
                identifier_of(table), schema, partition_spec=partition_spec(table, schema), properties=table_properties(table)
            )
        except TableAlreadyExistsError:  # another process prepares too
            found = catalog.load_table(identifier_of(table))
    check_layout(found, table)


def check_layout(found: Any, table: Table) -> None:
    """Raise SchemaMismatch unless a catalog table has the shape that this program writes."""
    name = ".".join(identifier_of(table))
    version = found.metadata.properties.get(VERSION_PROPERTY)
    way_out = "move it aside in the catalog (rename it), then `k2 recover` fills a new one from the raw topics"
    if version != LAYOUT_VERSION:
        raise SchemaMismatch(f"{name} has layout version {version}, this program writes {LAYOUT_VERSION}: {way_out}")
    want = {c.name: (_describe(_iceberg_type(c, 0)[0]), not c.nullable) for c in table.columns}
    have = {f.name: (_describe(f.field_type), f.required) for f in found.schema().fields}
    if want != have:
        differing = sorted(c for c in want.keys() | have.keys() if want.get(c) != have.get(c))
        raise SchemaMismatch(f"{name} has other columns than this program writes ({', '.join(differing)}): {way_out}")
    spec = [(f.name, str(f.transform)) for f in found.spec().fields]
    wanted = [(f.name, str(f.transform)) for f in partition_spec(table, found.schema()).fields]
    if spec != wanted:
        raise SchemaMismatch(f"{name} is partitioned by {spec}, this program writes {wanted}: {way_out}")


def _describe(kind: Any) -> str:
    # Nested types print their field ids, which the catalog assigns.
    if isinstance(kind, ListType):
        return f"list<{_describe(kind.element_type)} {kind.element_required}>"
    if isinstance(kind, MapType):
        return f"map<{_describe(kind.key_type)}, {_describe(kind.value_type)} {kind.value_required}>"
    return str(kind)


def _iceberg_type(column: Column, nested: int) -> tuple[Any, int]:
    # `nested`: the highest field id in use; lists and maps take the next ones for their parts.
    if column.kind is Kind.LIST:
        return ListType(nested + 1, StringType(), element_required=True), nested + 1
    if column.kind is Kind.MAP:
        return MapType(nested + 1, StringType(), nested + 2, StringType(), value_required=True), nested + 2
    return _PLAIN_TYPES[column.kind], nested


def _arrow_schema(table: Table, schema: Schema) -> pa.Schema:
    return pa.schema([_arrow_field(c, schema.find_field(c.name)) for c in table.columns])


def _arrow_field(column: Column, field: Any) -> pa.Field:
    kind = ARROW_TYPES[column.kind]
    if column.kind is Kind.LIST:
        kind = pa.list_(kind.value_field.with_metadata(_field_id(field.field_type.element_id)))
    elif column.kind is Kind.MAP:
        key = kind.key_field.with_metadata(_field_id(field.field_type.key_id))
        kind = pa.map_(key, kind.item_field.with_metadata(_field_id(field.field_type.value_id)))
    return pa.field(column.name, kind, nullable=column.nullable, metadata=_field_id(field.field_id))


def _field_id(number: int) -> dict[str, str]:
    return {"PARQUET:field_id": str(number)}
