"""Stores rows of one table exactly once, whatever happens to the connection or the server on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from market.errors import PipelineError, SinkUnavailable
from market.schema import CHANGE, Layer, Table
from sinks.clickhouse.claims import Claims, Shard
from sinks.clickhouse.gold import newest_rows
from sinks.clickhouse.session import DATABASE, Session
from sinks.endpoint import Endpoint

log = structlog.get_logger()
RETRY_SECONDS: Final = 60.0
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 3.0

Provider = Callable[[], Endpoint]
Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]  # offsets and ordinals


class Connection:
    """A session of one thread that is opened when needed and again after a failure."""

    def __init__(self, provider: Provider, ending: threading.Event) -> None:
        self._provider = provider
        self.ending = ending  # set: do not try again
        self._session: Session | None = None

    def get(self) -> Session:
        """Return the open session; asks for the endpoint anew, which starts an embedded store that is down."""
        if self._session is None:
            self._session = Session(self._provider())
        return self._session

    def drop(self) -> None:
        """Forget the session after a failure."""
        session, self._session = self._session, None
        if session is not None:
            session.close()


def retried(connection: Connection, attempt: Callable[[Session], Any], what: str) -> Any:
    """Call until it succeeds, with growing pauses, over a new connection each time.

    Args:
        connection: of this thread.
        attempt: gets the session.
        what: for the error.

    Raises:
        SinkUnavailable: it kept failing for a minute; the process should stop and resume later.
        PipelineError: whatever cannot be helped by trying again, at once.
    """
    started = time.monotonic()
    pause = FIRST_PAUSE
    while True:
        try:
            return attempt(connection.get())
        except SinkUnavailable as error:
            connection.drop()
            if time.monotonic() - started > RETRY_SECONDS:
                raise SinkUnavailable(f"{what}: ClickHouse did not take it within {RETRY_SECONDS:.0f} s; last: {error}") from error
            log.warning("warm_store_retried", doing=what, error=str(error), pause_s=pause)
            if connection.ending.wait(pause):
                raise
            pause = min(2 * pause, LONGEST_PAUSE)
        except PipelineError:
            connection.drop()
            raise


def insert_statement(table: Table, fence: str) -> str:
    """Return the fenced insert of a table's rows; the server takes the types of the body's columns from the table."""
    names = ", ".join(f"`{c.name}`" for c in table.warm_columns)
    return f"INSERT INTO {DATABASE}.`{table.name}` ({names}) SELECT * FROM input() WHERE {fence} FORMAT ArrowStream"


def to_stream(rows: pa.Table) -> pa.Buffer:
    """Return rows as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue()


def store(connection: Connection, claims: Claims, table: Table, batches: Sequence[tuple[Shard, pa.RecordBatch]]) -> None:
    """Insert rows of some topic partitions; returns when all are stored, each once.

    Raises:
        Fenced: another process owns one of the topic partitions now.
        SinkUnavailable: the store stayed away for a minute.
    """
    shards = sorted({shard for shard, _ in batches})
    rows = pa.Table.from_batches([batch for _, batch in batches])
    lost = ""  # id of an insert whose outcome is unknown

    def attempt(session: Session) -> None:
        nonlocal rows, lost
        if table.layer is Layer.GOLD:
            # Computed once: the rows of a repeated insert must be the same ones, for then it does not matter which arrived.
            if CHANGE in rows.schema.names:
                rows = newest_rows(session, table, rows)
        elif lost:
            claims.renew(session, table.name, shards, lost)
            rows = _without_stored(session, table, batches)
            lost = ""  # not before: should the question fail, it has to be asked again
        if rows.num_rows == 0:
            return
        pairs = [(table.name, shard) for shard in shards]
        lost = claims.query_id()
        written = session.insert(insert_statement(table, claims.fence(pairs)), to_stream(rows), query_id=lost)
        if written != rows.num_rows:
            raise claims.lost(session, pairs)

    retried(connection, attempt, f"storing {rows.num_rows} rows in {DATABASE}.{table.name}")


def _without_stored(session: Session, table: Table, batches: Sequence[tuple[Shard, pa.RecordBatch]]) -> pa.Table:
    """Return the rows that a half-done insert did not store."""
    _, offset_column = table.cause_columns
    firsts: dict[Shard, int] = {}
    for shard, batch in batches:
        first = pc.min(batch[offset_column]).as_py()
        firsts[shard] = min(first, firsts.get(shard, first))
    stored = {shard: stored_pairs(session, {table: first}, shard)[table.name] for shard, first in firsts.items()}
    return pa.Table.from_batches([batch.filter(pa.array(~among(causes(table, batch), stored[shard]))) for shard, batch in batches])


def causes(table: Table, batch: pa.RecordBatch) -> Pairs:
    """Return offsets and ordinals of the causes of some rows."""
    return batch[table.cause_columns[1]].to_numpy(), batch["source_index"].to_numpy()


def stored_pairs(session: Session, firsts: Mapping[Table, int], shard: Shard) -> dict[str, Pairs]:
    """Return, by table, the causes at or past an offset whose rows are in the table."""
    parts = []
    for table, first in firsts.items():
        partition, offset = table.cause_columns
        exchange = "" if table.layer is Layer.BRONZE else "`exchange` = {exchange:String} AND "
        parts.append(
            f"SELECT '{table.name}' AS t, `{offset}` AS o, `source_index` AS i FROM {DATABASE}.`{table.name}` "
            f"WHERE {exchange}`{partition}` = {{partition:Int64}} AND `{offset}` >= {first}"
        )
    rows = session.arrow(" UNION ALL ".join(parts), {"exchange": shard.exchange, "partition": shard.partition})
    return {table.name: _pairs(rows.filter(pc.equal(rows["t"], table.name))) for table in firsts}


def _pairs(rows: pa.Table) -> Pairs:
    return rows["o"].to_numpy().astype(np.int64), rows["i"].to_numpy().astype(np.int64)


def among(wanted: Pairs, known: Pairs) -> npt.NDArray[np.bool_]:
    """Return which of the wanted pairs are known."""
    if len(known[0]) == 0 or len(wanted[0]) == 0:
        return np.zeros(len(wanted[0]), dtype=np.bool_)
    width = int(max(wanted[1].max(), known[1].max())) + 1
    base = int(min(wanted[0].min(), known[0].min()))
    return np.isin((wanted[0] - base) * width + wanted[1], (known[0] - base) * width + known[1])
