"""Who may write: claims on the rows that a table takes from a topic partition, and the fence in every insert.

The newest claim owns. A process that starts puts its claim in the place of its predecessor's, ends what predecessors have in
flight, and only then looks at what is stored. Every insert carries a condition that holds only while its claims stand; the
server evaluates it when the insert begins, and from then on the insert can be ended by the next owner. So a process that was
frozen or cut off, and every request of it that is still under way, writes nothing once it has been replaced.

A process disowns its own lost inserts in the same way: each insert also names the writer's epoch of that table, and the
writer raises it before it looks what became of them. Nobody else touches that number, so this cannot undo a takeover.

Claims are in a key-value table: a lookup by key costs a third of a query over a MergeTree table, and every small insert pays it.
(Join tables are cheaper still, but after a restart of the server they forget which of two rows of a key came last.)
"""

from __future__ import annotations

import os
import platform
import threading
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


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose claim stands, and in which process."""

    claim: str
    process: str


class Claims:
    """The claims of one process. Topic partitions may be taken by several threads; else each table is used by one at a time."""

    def __init__(self) -> None:
        self.writer = uuid.uuid4().hex
        self.process = f"{platform.node()}:{os.getpid()}"
        self._held: dict[Shard, str] = {}
        self._epochs: dict[str, int] = {}
        self._first_epochs = threading.Lock()  # a table's first epoch is written once, and before any insert can need another

    def query_id(self) -> str:
        """Return a new id for an insert of this process."""
        return f"{QUERY_PREFIX}{self.writer}-{uuid.uuid4().hex}"

    def take(self, session: Session, shard: Shard, tables: Sequence[str]) -> None:
        """Become the owner of a topic partition in some tables and end what others have in flight for it.

        Raises:
            Fenced: another process claimed it at the same moment, and later.
            SinkUnavailable: the server cannot be reached, or a predecessor's insert does not end.
        """
        claim = uuid.uuid4().hex  # a new one at each try: an earlier one that arrives late must not be taken for this one
        with self._first_epochs:
            new = [table for table in tables if table not in self._epochs]
            self._put(session, {**{_key(table, shard): claim for table in tables}, **{self._epoch_key(table): "0" for table in new}})
            self._epochs.update(dict.fromkeys(new, 0))
        self._held[shard] = claim
        self._check_owner(session, shard, tables)
        self._end_inserts(session, "query_id NOT LIKE {mine:String} AND position(query, {mark:String}) > 0", {"mark": f" {shard}'"})

    def renew(self, session: Session, table: str, shards: Iterable[Shard], lost_query: str) -> None:
        """Disown one's own insert of unknown outcome: after this it has either happened or never will.

        Raises:
            Fenced: somebody else owns one of the topic partitions by now.
        """
        self._epochs[table] += 1
        self._put(session, {self._epoch_key(table): str(self._epochs[table])})
        for shard in shards:
            self._check_owner(session, shard, [table])
        self._end_inserts(session, "query_id = {lost:String}", {"lost": lost_query})

    def fence(self, wanted: Iterable[tuple[str, Shard]]) -> str:
        """Return a condition for SQL that holds while this process owns all of the (table, topic partition) pairs."""
        pairs = list(wanted)
        held = {_key(table, shard): self._held[shard] for table, shard in pairs}
        held.update({self._epoch_key(table): str(self._epochs[table]) for table, _ in pairs})
        keys, claims = (", ".join(f"'{value}'" for value in values) for values in (held, sorted(set(held.values()))))
        # Claims are made for one topic partition each, so no other key can hold one of them.
        return f"(SELECT count() FROM {DATABASE}.writers WHERE `key` IN ({keys}) AND `claim` IN ({claims})) = {len(held)}"

    def lost(self, session: Session, wanted: Iterable[tuple[str, Shard]]) -> Fenced:
        """Return the error for an insert that its fence kept out."""
        try:
            for table, shard in wanted:
                self._check_owner(session, shard, [table])
        except Fenced as error:
            return error
        return Fenced(f"this process ({self.process}) disowned an insert by mistake; it must stop and resume: what it wrote is safe")

    def _put(self, session: Session, claims: Mapping[str, str]) -> None:
        values = ", ".join(f"('{key}', '{claim}', {{process:String}})" for key, claim in claims.items())
        statement = f"INSERT INTO {DATABASE}.writers (`key`, `claim`, `process`) VALUES {values}"
        session.command(statement, {"process": self.process}, settings={"async_insert": 0})

    def _epoch_key(self, table: str) -> str:
        return f"{table} {self.writer}"

    def _check_owner(self, session: Session, shard: Shard, tables: Sequence[str]) -> None:
        keys = {_key(table, shard): table for table in tables}
        rows = session.arrow(
            f"SELECT `key`, `claim`, `process` FROM {DATABASE}.writers WHERE `key` IN {{keys:Array(String)}}", {"keys": list(keys)}
        )
        owners = {keys[row["key"]]: Owner(row["claim"], row["process"]) for row in rows.to_pylist()}
        for table in tables:
            owner = owners.get(table)
            if owner is None or owner.claim != self._held[shard]:
                who = f"process {owner.process} has" if owner is not None else "the claims in k2.writers are gone: somebody has"
                raise Fenced(
                    f"{who} taken over {DATABASE}.{table} for {shard}: this process ({self.process}) must stop; what it wrote is safe"
                )

    def _end_inserts(self, session: Session, which: str, parameters: Mapping[str, Any]) -> None:
        bound = {"ours": f"{QUERY_PREFIX}%", "mine": f"{QUERY_PREFIX}{self.writer}-%", **parameters}
        where = f"query_id LIKE {{ours:String}} AND {which}"
        deadline = time.monotonic() + KILL_SECONDS
        while session.arrow(f"SELECT query_id FROM system.processes WHERE {where}", bound).num_rows > 0:
            # SYNC waits for their end; one that waits for the rest of its body ends when the server's receive timeout does.
            session.command(f"KILL QUERY WHERE {where} SYNC FORMAT Null", bound)
            if time.monotonic() > deadline:
                raise SinkUnavailable("an insert of a previous writer does not end: see system.processes on the ClickHouse server")


def _key(table: str, shard: Shard) -> str:
    """Return the key of a claim; it stands in the text of every insert that carries rows of the topic partition."""
    return f"{table} {shard}"
