"""The one field table: every column of every table, its type, unit and meaning.

Arrow schemas are built here; ClickHouse DDL, Iceberg schemas and `docs/fields.md` are derived from the same rows by the
sinks and the documentation test. Nothing else in the project spells out a column list.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

import pyarrow as pa

from market.interval import INTERVAL_NAMES

DECIMAL_SCALE: Final = 18
DECIMAL: Final = pa.decimal128(38, DECIMAL_SCALE)
TIMESTAMP: Final = pa.timestamp("us", tz="UTC")


class Kind(Enum):
    """What a column holds; each store maps a kind to one type of its own."""

    TEXT = "text"
    CODE = "code"  # text with few distinct values
    INT = "int"
    DECIMAL = "decimal"
    TIME = "time"
    BOOL = "bool"
    LIST = "list"  # of text
    MAP = "map"  # text to text
    BYTES = "bytes"


ARROW_TYPES: Final = {
    Kind.TEXT: pa.string(),
    Kind.CODE: pa.string(),
    Kind.INT: pa.int64(),
    Kind.DECIMAL: DECIMAL,
    Kind.TIME: TIMESTAMP,
    Kind.BOOL: pa.bool_(),
    Kind.LIST: pa.list_(pa.field("element", pa.string(), nullable=False)),
    Kind.MAP: pa.map_(pa.string(), pa.field("value", pa.string(), nullable=False)),
    Kind.BYTES: pa.binary(),
}


class Layer(Enum):
    """The layers of the platform; a layer decides retention, partitioning and how a table is written."""

    BRONZE = "bronze"
    SILVER = "silver"
    GOLD = "gold"
    TRUTH = "truth"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `cold_only` columns are not in ClickHouse."""

    name: str
    kind: Kind
    meaning: str
    nullable: bool = False
    cold_only: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table of both stores. `key` is its sort key in ClickHouse; `time_column` partitions it in Iceberg."""

    name: str
    layer: Layer
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    time_column: str

    @property
    def warm_columns(self) -> tuple[Column, ...]:
        """Columns that ClickHouse keeps."""
        return tuple(c for c in self.columns if not c.cold_only)

    @property
    def cold_name(self) -> str:
        """Name in the Iceberg namespace `cold`."""
        return f"gold_{self.name}" if self.layer is Layer.GOLD else self.name

    @property
    def cause_columns(self) -> tuple[str, str]:
        """Names of the columns that hold topic partition and offset of a row's cause."""
        return ("kafka_partition", "kafka_offset") if self.layer is Layer.BRONZE else ("source_partition", "source_offset")

    def arrow_schema(self, *, warm: bool = False) -> pa.Schema:
        """Return the Arrow schema of all columns, or of those that ClickHouse keeps."""
        columns = self.warm_columns if warm else self.columns
        return pa.schema([pa.field(c.name, ARROW_TYPES[c.kind], nullable=c.nullable) for c in columns])


_T, _C, _I, _D, _U, _B = Kind.TEXT, Kind.CODE, Kind.INT, Kind.DECIMAL, Kind.TIME, Kind.BOOL

EXCHANGE = Column("exchange", _C, "exchange id, e.g. binance")
CANONICAL = Column("canonical_symbol", _C, "instrument, e.g. BTC/USDT")
CAUSE = (
    Column("source_partition", _I, "raw topic partition of the record this row comes from"),
    Column("source_offset", _I, "offset of that record"),
    Column("source_index", _I, "ordinal among the rows that record caused in this table"),
)

_BRONZE = (
    Column("exchange_timestamp", _U, "when the venue says it traded"),
    Column("sequence_number", _I, "trade id as a number; null where the venue's id is none", nullable=True),
    Column("symbol", _C, "the venue's spelling"),
    Column("price", _D, "quote per base"),
    Column("quantity", _D, "base units"),
    Column("quote_volume", _D, "price x quantity in quote units, rounded half-even at scale 18"),
    Column("event_time", _U, "when the venue pushed the frame; the trade time where frames carry none"),
    Column("kafka_offset", _I, "offset of the raw record"),
    Column("kafka_partition", _I, "raw topic partition"),
    Column("ingestion_timestamp", _U, "when the feed received the frame"),
    Column("trade_id", _T, "the venue's own trade id"),
    Column("side", _C, "buy or sell as the venue gives it (on Coinbase the maker's side)"),
    Column("source", _C, "live, snapshot, refill or import"),
    Column("source_index", _I, "ordinal among the rows that record caused in this table"),
    Column("payload", Kind.BYTES, "the verbatim frame; of more than 1 KiB only where `source_index` is 0, else empty", cold_only=True),
)

_SILVER = (
    Column("timestamp", _U, "when the venue says it traded (event time)"),
    EXCHANGE,
    Column("symbol", _C, "the venue's spelling"),
    CANONICAL,
    Column("trade_id", _T, "the venue's own trade id; unique per exchange and canonical symbol"),
    Column("sequence_number", _I, "trade id as a number; null where the venue's id is none", nullable=True),
    Column("price", _D, "quote per base"),
    Column("quantity", _D, "base units"),
    Column("quote_volume", _D, "price x quantity in quote units, rounded half-even at scale 18"),
    Column("side", _C, "side of the taker: buy or sell"),
    Column("trade_conditions", Kind.LIST, "venue conditions of the trade"),
    Column("vendor_data", Kind.MAP, "further venue fields by name"),
    Column("validation_errors", Kind.LIST, "what was questionable about an accepted trade"),
    Column("receive_time", _U, "when the feed received the frame"),
    Column("source", _C, "live, snapshot, refill or import"),
    *CAUSE,
)

_GOLD = (
    EXCHANGE,
    CANONICAL,
    Column("window_start", _U, "first instant of the window"),
    Column("window_end", _U, "end of the window, exclusive"),
    Column("open_price", _D, "price of the first trade by (timestamp, trade id)"),
    Column("high_price", _D, "highest price"),
    Column("low_price", _D, "lowest price"),
    Column("close_price", _D, "price of the last trade by (timestamp, trade id)"),
    Column("volume", _D, "sum of quantities, base units"),
    Column("quote_volume", _D, "sum of the trades' rounded quote volumes"),
    Column("trade_count", _I, "number of trades"),
    Column("vwap", _D, "quote_volume / volume, rounded once, half-even at scale 18"),
    Column("taker_buy_volume", _D, "sum of quantities whose taker bought"),
    Column("taker_buy_quote_volume", _D, "sum of quote volumes whose taker bought"),
    Column("first_trade_id", _T, "id of the opening trade"),
    Column("last_trade_id", _T, "id of the closing trade"),
    Column("first_trade_time", _U, "time of the opening trade"),
    Column("last_trade_time", _U, "time of the closing trade"),
    Column("is_closed", _B, "the watermark has passed window_end"),
    Column("is_complete", _B, "closed, and proven that no trade is missing"),
    Column("revision", _I, "how many records have changed the row since it closed"),
    Column("source_partition", _I, "raw topic partition of the last record that changed the row"),
    Column("source_offset", _I, "offset of that record; the version of the row"),
    Column("updated_at", _U, "when the feed received that record"),
)

_GAPS = (
    EXCHANGE,
    CANONICAL,
    Column("first_id", _I, "first missing id"),
    Column("last_id", _I, "last missing id"),
    Column("state", _C, "open, filled or unfillable"),
    Column("after_time", _U, "time of the accepted trade before the range"),
    Column("before_time", _U, "time of the accepted trade after the range"),
    Column("reason", _T, "why it cannot be filled, as the feed gives it; else empty"),
    Column("event_time", _U, "receive time of the record that changed the gap"),
    *CAUSE,
)

_DEAD_LETTERS = (
    EXCHANGE,
    Column("topic", _C, "raw topic"),
    Column("reason", _C, "snake_case code"),
    Column("detail", _T, "the value and the place"),
    Column("payload", Kind.BYTES, "the verbatim record"),
    Column("receive_time", _U, "when the feed received it"),
    *CAUSE,
)

_FEED_EVENTS = (
    EXCHANGE,
    Column("feed", _C, "feed id"),
    Column("kind", _C, "uncovered or covered (coverage holes found and closed), or what the feed reports: connect, disconnect, …"),
    Column("symbols", Kind.LIST, "canonical symbols concerned"),
    Column("from_time", _U, "start of the stretch"),
    Column("to_time", _U, "end of the stretch"),
    Column("detail", _T, "for a person"),
    *CAUSE,
)

SILVER_TRADES: Final = Table("silver_trades", Layer.SILVER, _SILVER, ("exchange", "canonical_symbol", "timestamp", "trade_id"), "timestamp")
TRADE_GAPS: Final = Table("trade_gaps", Layer.TRUTH, _GAPS, ("exchange", "canonical_symbol", "first_id", "last_id"), "event_time")
DEAD_LETTERS: Final = Table("dead_letters", Layer.TRUTH, _DEAD_LETTERS, ("exchange", "receive_time"), "receive_time")
FEED_EVENTS: Final = Table("feed_events", Layer.TRUTH, _FEED_EVENTS, ("exchange", "from_time"), "from_time")
OHLCV: Final = {
    name: Table(f"ohlcv_{name}", Layer.GOLD, _GOLD, ("exchange", "canonical_symbol", "window_start"), "window_start")
    for name in INTERVAL_NAMES
}


def bronze_table(exchange: str) -> Table:
    """Return the bronze table of an exchange."""
    return Table(f"bronze_trades_{exchange}", Layer.BRONZE, _BRONZE, ("symbol", "exchange_timestamp", "trade_id"), "exchange_timestamp")


def all_tables(exchanges: tuple[str, ...]) -> tuple[Table, ...]:
    """Return every table of a platform that runs these exchanges."""
    return (*(bronze_table(e) for e in exchanges), SILVER_TRADES, *OHLCV.values(), TRADE_GAPS, DEAD_LETTERS, FEED_EVENTS)


CHANGE: Final = "change"


class Change(Enum):
    """What a row of a gold output does to the stored candle."""

    ROW = 0  # the whole newest row
    DELTA = 1  # a partial candle to merge into the stored row (design: late beyond memory)
    STATUS = 2  # only `is_complete` of the stored row changes; dropped where no row is stored


def gold_output_schema() -> pa.Schema:
    """Return the schema of gold rows on their way to a sink: the gold columns and what to do with the row."""
    return OHLCV["1m"].arrow_schema().append(pa.field(CHANGE, pa.int8(), nullable=False))
