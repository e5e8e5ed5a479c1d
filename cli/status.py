"""`k2 status`: how far every table has come, in both stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson
import typer

from cli.arguments import utc
from cli.formats import TIME_FORMAT
from cli.logs import configure_logs
from cli.reading import STORES, Reading
from cli.screen import print_table, say
from config.settings import load_settings
from maintenance.stored import WARM, Frontier, Stored, Wanted, census
from market.errors import PipelineError
from market.record import topic_name
from market.schema import Layer, Table, bronze_table

_HEADINGS: Final = (
    "topic", ">part", ">end", "table", ">warm frontier", ">lag", ">rows", "commit", ">cold frontier", ">lag", ">rows", "commit",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Position:
    """How far one table of one store has come in one topic partition; None: the store cannot be read, or never committed."""

    table: str
    store: str
    topic: str
    partition: int
    frontier: int | None
    end_offset: int
    lag: int
    rows: int | None
    last_commit: str | None


def status(*, as_json: bool) -> None:
    """Print all positions; starts nothing, and says what does not run."""
    configure_logs()
    with Reading(load_settings(), start=False) as reading:
        positions = read_positions(reading)
    if as_json:
        typer.echo(orjson.dumps([asdict(p) for p in positions], option=orjson.OPT_INDENT_2))
    elif positions:
        _print(positions)


def read_positions(reading: Reading) -> list[Position]:
    """Return the position of every table of both stores in every topic partition; a store that cannot be read has none.

    Raises:
        PipelineError: the topics cannot be read: no position means anything then.
    """
    ends = {exchange: reading.log.end_offsets(topic_name(exchange)) for exchange in reading.with_topics()}
    if not ends:
        say(f"no raw topic in {reading.settings.topics_url} yet: `k2 load` or `k2 run` creates them")
    positions: list[Position] = []
    for name in STORES:
        store, frontiers = _open(reading, name)
        counted = {table.name: _rows(store, table) for table in reading.tables()}
        for exchange, offsets in ends.items():
            for table in _tables(reading, exchange):
                rows = counted[table.name]
                for partition, end in enumerate(offsets):
                    frontier = frontiers.get((table.name, topic_name(exchange), partition))
                    count = None if rows is None else rows.get((exchange, partition), 0)
                    positions.append(_position(table, name, exchange, partition, end, frontier, count))
    return positions


def _tables(reading: Reading, exchange: str) -> list[Table]:
    own = bronze_table(exchange).name
    return [t for t in reading.tables() if t.layer is not Layer.BRONZE or t.name == own]


def _open(reading: Reading, name: str) -> tuple[Stored | None, Mapping[tuple[str, str, int], Frontier]]:
    try:
        store = reading.store(name)
        if store is not None:
            return store, store.frontiers()
    except PipelineError as error:
        say(f"{name} store: {error}")
        return None, {}
    say(f"{name} store: {'does not run: `k2 up` starts it' if name == WARM else 'not created yet: `k2 run` does'}")
    return None, {}


def _rows(store: Stored | None, table: Table) -> dict[tuple[str, int], int] | None:
    # By (exchange, partition). Reads two columns of the whole table: the stores do not count by partition.
    if store is None:
        return None
    partition, _ = table.cause_columns
    try:
        if table.layer is not Layer.BRONZE:
            return {(e, p): n for e, p, n in census(store, table, Wanted(), ["exchange", partition]).iter_rows()}
        exchange = table.name.removeprefix(bronze_table("").name)
        return {(exchange, p): n for p, n in census(store, table, Wanted(), [partition]).iter_rows()}
    except PipelineError as error:
        say(f"{store.name} store, {table.name}: {error}")
        return None


def _position(table: Table, store: str, exchange: str, partition: int, end: int, frontier: Frontier | None, rows: int | None) -> Position:
    # A store that can be read and has no frontier has taken nothing in.
    offset = frontier.offset if frontier is not None else None if rows is None else 0
    committed = frontier.committed_us if frontier is not None else None
    return Position(
        table=table.name,
        store=store,
        topic=topic_name(exchange),
        partition=partition,
        frontier=offset,
        end_offset=end,
        lag=max(0, end - (offset or 0)),  # the flow goes on between the two questions
        rows=rows,
        last_commit=None if committed is None else utc(committed).strftime(TIME_FORMAT.replace("%.6f", ".%f")),
    )


def _print(positions: list[Position]) -> None:
    # For people: both stores on one line, and nothing about partitions that never had a record.
    found = {(p.topic, p.partition, p.table, p.store): p for p in positions}
    lines: list[list[Any]] = []
    for topic, partition, table in dict.fromkeys((p.topic, p.partition, p.table) for p in positions if p.end_offset):
        pair = [found[topic, partition, table, store] for store in STORES]
        lines.append(
            [topic, partition, pair[0].end_offset, table, *(cell for p in pair for cell in (p.frontier, p.lag, p.rows, _commit(p)))]
        )
    lines.sort(key=lambda line: line[:2])
    if lines:
        print_table(_HEADINGS, lines)
    empty = {(p.topic, p.partition) for p in positions if not p.end_offset}
    if empty:
        say(f"{len(empty)} topic partitions without a record are not shown")


def _commit(position: Position) -> str:
    return (position.last_commit or "").replace("T", " ").split(".")[0]
