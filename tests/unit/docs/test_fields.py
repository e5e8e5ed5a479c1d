"""docs/fields.md is what the field table says; write it anew with `python -m tests.unit.docs.test_fields`."""

from pathlib import Path

from market.schema import DEAD_LETTERS, FEED_EVENTS, OHLCV, SILVER_TRADES, TRADE_GAPS, Kind, Table, bronze_table

FIELDS = Path(__file__).parents[3] / "docs" / "fields.md"
TYPES = {
    Kind.TEXT: "text",
    Kind.CODE: "text",
    Kind.INT: "integer",
    Kind.DECIMAL: "Decimal(38,18)",
    Kind.TIME: "timestamp, µs UTC",
    Kind.BOOL: "boolean",
    Kind.LIST: "list of text",
    Kind.MAP: "map, text to text",
    Kind.BYTES: "bytes",
}


def section(title: str, table: Table) -> str:
    rows = [
        f"| `{c.name}` | {TYPES[c.kind]}{', nullable' if c.nullable else ''} | {c.meaning}{' (Iceberg only)' if c.cold_only else ''} |"
        for c in table.columns
    ]
    return "\n".join([f"## {title}", "", "| field | type | meaning |", "|---|---|---|", *rows, ""])


def rendered() -> str:
    sections = [
        section("Bronze: `bronze_trades_<exchange>`", bronze_table("<exchange>")),
        section("Silver: `silver_trades`", SILVER_TRADES),
        section("Gold: `ohlcv_<interval>` in ClickHouse, `gold_ohlcv_<interval>` in Iceberg", OHLCV["1m"]),
        section("Truth: `trade_gaps`", TRADE_GAPS),
        section("Truth: `dead_letters`", DEAD_LETTERS),
        section("Truth: `feed_events`", FEED_EVENTS),
    ]
    head = (
        "# Field reference\n\nDerived from `market/schema.py`; a test keeps it so. Prices and volumes are exact decimals, times are UTC.\n"
    )
    return "\n".join([head, *sections])


def test_field_reference_is_what_the_field_table_says() -> None:
    assert FIELDS.read_text() == rendered()


if __name__ == "__main__":
    FIELDS.write_text(rendered())
