"""`k2 gaps`: the ledger of now."""

from __future__ import annotations

import orjson
import typer

from cli.formats import json_rows
from cli.logs import configure_logs
from cli.reading import Reading, store_name
from cli.screen import print_table, say
from config.settings import load_settings
from market.schema import TRADE_GAPS


def gaps(exchange: str | None, symbol: str | None, store: str, *, as_json: bool) -> None:
    """Print the gaps of now, ascending by exchange, symbol and first id."""
    configure_logs()
    name = store_name(store)
    with Reading(load_settings()) as reading:
        found = reading.gaps_now(name, reading.wanted(exchange, symbol))
    if as_json:
        schema = TRADE_GAPS.arrow_schema()
        rows = [row for batch in found.to_arrow().cast(schema).to_batches() for row in json_rows(batch)]
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return
    if found.is_empty():
        say("no trade is known to be missing")
        return
    headings = ["exchange", "symbol", ">first id", ">last id", ">missing", "state", "after", "before", "reason"]
    lines = [
        [
            row["exchange"],
            row["canonical_symbol"],
            str(row["first_id"]),
            str(row["last_id"]),
            row["last_id"] - row["first_id"] + 1,
            row["state"],
            f"{row['after_time']:%Y-%m-%d %H:%M:%S.%f}",
            f"{row['before_time']:%H:%M:%S.%f}",
            row["reason"],
        ]
        for row in found.to_dicts()
    ]
    print_table(headings, lines)
