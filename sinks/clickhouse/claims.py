"""Who may write: claims on the rows that a table takes from a topic partition, and the fence in every insert.

The highest claim owns. A process that starts claims higher than anybody before it, ends what its predecessors have in
flight, and only then looks at what is stored. Every insert carries a condition that holds only while its claims are the
highest ones; the server evaluates it when the insert begins, and from then on the insert can be ended by the next owner. So a
process that was frozen or cut off, and every request of it that is still under way, writes nothing once it has been replaced.

A claim number is generation * 2^32 + chance * 2^16 + renewal: a newcomer raises the generation and so beats every renewal of the
one before; `chance` tells two newcomers of the same moment apart; renewing an own claim disowns one's own lost requests.
"""

from __future__ import annotations

import os
import platform
import secrets
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from market.errors import Fenced, SinkUnavailable
from market.record import shard_key
from sinks.clickhouse.session import DATABASE, Session

QUERY_PREFIX: Final = "k2w-"
KILL_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """A topic partition as rows name it."""

    exchange: str
    partition: int

    def __str__(self) -> str:
        return shard_key(self.exchange, self.partition)


class Claims:
    """The claims of one process. Not thread-safe as a whole: each table is used by one thread at a time."""

    def __init__(self) -> None:
        self.writer = uuid.uuid4().hex
        self.process = f"{platform.node()}:{os.getpid()}"
        self._held: dict[tuple[str, Shard], int] = {}
        self._tried: dict[Shard, int] = {}

    def query_id(self) -> str:
        """Return a new id for an insert of this process."""
        return f"{QUERY_PREFIX}{self.writer}-{uuid.uuid4().hex}"

    def take(self, session: Session, shard: Shard, tables: Sequence[str]) -> None:
        """Become the owner of a topic partition in some tables and end what others have in flight for it.

        Raises:
            SinkUnavailable: the server cannot be reached, or a predecessor's insert does not end.
        """
        while True:
            # Above our own earlier tries as well: one of them may still be under way and arrive after this one.
            highest = max((claim for claim, _, _ in self._newest(session, shard, tables).values()), default=0)
            highest = max(highest, self._tried.get(shard, 0))
            claim = ((highest >> 32) + 1 << 32) + (secrets.randbits(16) << 16)
            self._tried[shard] = claim
            self._record(session, [(table, shard, claim) for table in tables])
            now = self._newest(session, shard, tables)
            if all(now.get(table, (0, "", ""))[:2] == (claim, self.writer) for table in tables):
                break
        for table in tables:
            self._held[table, shard] = claim
        self._end_inserts(session, "position(query, {marks:String}) > 0", {"marks": _mark(shard)})

    def renew(self, session: Session, table: str, shards: Iterable[Shard], lost_query: str) -> None:
        """Disown one's own insert of unknown outcome: after this it has either happened or never will.

        Raises:
            Fenced: somebody else owns one of the topic partitions by now.
        """
        renewed = []
        for shard in shards:
            owner = self._newest(session, shard, [table]).get(table)
            if owner is None or owner[1] != self.writer:
                raise self._fenced(table, shard, owner)
            renewed.append((table, shard, owner[0] + 1))
        self._record(session, renewed)
        self._held.update({(name, shard): claim for name, shard, claim in renewed})
        self._end_inserts(session, "query_id = {lost:String}", {"lost": lost_query})

    def fence(self, wanted: Iterable[tuple[str, Shard]]) -> str:
        """Return a condition for SQL that holds while this process owns all of the (table, topic partition) pairs.

        It is one scalar, computed once when the statement begins.
        """
        pairs = list(wanted)
        tables = ", ".join(sorted({f"'{table}'" for table, _ in pairs}))
        claims = ", ".join(f"('{table}', {_mark(shard)}, {self._held[table, shard]})" for table, shard in pairs)
        return (
            f"(SELECT count() FROM (SELECT `table`, (`exchange`, `partition`) AS shard, max(`claim`) AS newest FROM {DATABASE}.writers "
            f"WHERE `table` IN ({tables}) GROUP BY `table`, shard HAVING argMax(`writer`, `claim`) = '{self.writer}' "
            f"AND (`table`, shard, newest) IN ({claims}))) = {len(pairs)}"
        )

    def lost(self, session: Session, wanted: Iterable[tuple[str, Shard]]) -> Fenced:
        """Return the error for an insert that its fence kept out."""
        for table, shard in wanted:
            owner = self._newest(session, shard, [table]).get(table)
            if owner is None or owner[1] != self.writer:
                return self._fenced(table, shard, owner)
        return Fenced("ClickHouse took fewer rows than were sent while this process still owned them; it has to start again")

    def _fenced(self, table: str, shard: Shard, owner: tuple[int, str, str] | None) -> Fenced:
        who = f"process {owner[2]} has" if owner is not None else "the claims in k2.writers are gone: somebody has"
        return Fenced(f"{who} taken over {DATABASE}.{table} for {shard}: this process ({self.process}) must stop; what it wrote is safe")

    def _newest(self, session: Session, shard: Shard, tables: Sequence[str]) -> dict[str, tuple[int, str, str]]:
        """Return (claim, writer, process) by table."""
        rows = session.arrow(
            f"SELECT `table`, max(`claim`) AS newest, argMax(`writer`, `claim`) AS owner, argMax(`process`, `claim`) AS at FROM {DATABASE}.writers "
            "WHERE `table` IN {tables:Array(String)} AND `exchange` = {exchange:String} AND `partition` = {partition:Int64} GROUP BY `table`",
            {"tables": list(tables), "exchange": shard.exchange, "partition": shard.partition},
        )
        return {row["table"]: (row["newest"], row["owner"], row["at"]) for row in rows.to_pylist()}

    def _record(self, session: Session, claims: Sequence[tuple[str, Shard, int]]) -> None:
        values = ", ".join(
            f"('{table}', '{s.exchange}', {s.partition}, {claim}, '{self.writer}', {{process:String}})" for table, s, claim in claims
        )
        columns = "`table`, `exchange`, `partition`, `claim`, `writer`, `process`"
        session.command(
            f"INSERT INTO {DATABASE}.writers ({columns}) VALUES {values}", {"process": self.process}, settings={"async_insert": 0}
        )

    def _end_inserts(self, session: Session, which: str, parameters: Mapping[str, Any]) -> None:
        mine = {"prefix": f"{QUERY_PREFIX}%", "mine": f"{QUERY_PREFIX}{self.writer}-%", **parameters}
        others = "" if "lost" in parameters else " AND query_id NOT LIKE {mine:String}"
        where = f"query_id LIKE {{prefix:String}}{others} AND {which}"
        deadline = time.monotonic() + KILL_SECONDS
        while session.arrow(f"SELECT query_id FROM system.processes WHERE {where}", mine).num_rows > 0:
            # SYNC waits for their end; one that waits for the rest of its body ends when the server's receive timeout does.
            session.command(f"KILL QUERY WHERE {where} SYNC FORMAT Null", mine)
            if time.monotonic() > deadline:
                raise SinkUnavailable("an insert of a previous writer does not end: see system.processes on the ClickHouse server")


def _mark(shard: Shard) -> str:
    """Return how a topic partition stands in the text of every insert that carries rows of it."""
    return f"('{shard.exchange}', {shard.partition})"
