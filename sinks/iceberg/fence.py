"""One writer per table, enforced: every commit of a writer asserts the head it was planned on and that the table is still its own.

pyiceberg's own retry throws the assertion on the head away and rebuilds it, so by itself it fences nothing. `FencedTransaction`
stops there instead; the table keeps retries enabled, since without them pyiceberg deletes manifests that may be live.
Private names of pyiceberg 0.12.0 are used (pinned): `Transaction._rebuild_snapshot_updates`, `_OverwriteFiles`, `_ManifestMergeManager`.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.manifest import DataFile, ManifestContent, ManifestFile
from pyiceberg.table import Transaction
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import ExpireSnapshots, _ManifestMergeManager, _OverwriteFiles

from market.errors import CommitConflict, Fenced
from sinks.iceberg.errors import translate
from sinks.iceberg.frontier import (
    COMMIT_KEY,
    EPOCH_KEY,
    FRONTIER_KEY,
    Frontier,
    Position,
    TopicPartition,
    committed_frontier,
    newest_value,
    to_json,
)
from sinks.iceberg.layout import MANIFEST_BYTES, MANIFESTS_MERGED_AT, SNAPSHOTS_KEPT

MAX_CONFLICTS: Final = 12
CONFLICT_PAUSE_S: Final = 0.05


class _Moved(Exception):
    """The head moved; nothing of ours landed and nothing was deleted."""


class FencedTransaction(Transaction):
    """A transaction that lands on the head it was planned on, or not at all."""

    def _rebuild_snapshot_updates(self) -> None:
        # Called only after a refused attempt and a refresh that did not show our snapshot.
        raise _Moved

    @property
    def table_metadata(self) -> Any:
        # pyiceberg copies all metadata on each of ~23 accesses per commit: most of a commit's processor time.
        if not self._updates:
            return self._table.metadata
        seen = (self._table.metadata, self._updates)
        cached = self.__dict__.get("_cached")
        if cached is None or cached[0][0] is not seen[0] or cached[0][1] is not seen[1]:
            cached = (seen, super().table_metadata)
            self.__dict__["_cached"] = cached
        return cached[1]


class _Rewrite(_OverwriteFiles):
    """Replaces files, merging manifests as appends do (pyiceberg's own overwrite lets them pile up)."""

    def _process_manifests(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        live = [m for m in manifests if m.content == ManifestContent.DATA and _is_live(m, self._snapshot_id)]
        manager = _ManifestMergeManager(MANIFEST_BYTES, MANIFESTS_MERGED_AT, merge_enabled=True, snapshot_producer=self)
        return list(manager.merge_manifests(live))


def _is_live(manifest: ManifestFile, snapshot_id: int) -> bool:
    # A manifest of nothing but deletions is needed only in the snapshot that deletes.
    return bool(manifest.has_added_files() or manifest.has_existing_files() or manifest.added_snapshot_id == snapshot_id)


@dataclass(frozen=True, slots=True)
class Change:
    """What one commit does to the files of a table."""

    added: Sequence[DataFile] = ()
    removed: Sequence[DataFile] = ()


@dataclass(slots=True)
class FencedTable:
    """A catalog table that this object has claimed. Not thread-safe: one committer.

    Attributes:
        table: pyiceberg table; its metadata is the head as last seen.
        epoch: of this writer; a higher one in the table means another has taken it.
        stale: look at the head again before the next commit. Not so for a table that was loaded just now: a commit asserts its head.
    """

    table: Any
    epoch: int = 0
    stale: bool = field(default=True)

    @property
    def name(self) -> str:
        """Name for messages: `cold.silver_trades`."""
        return ".".join(self.table.name())

    def claim(self) -> dict[TopicPartition, Position]:
        """Take the table: from now on every commit of an earlier writer is refused.

        Returns:
            The table's frontier, which only this writer moves from now on.

        Raises:
            Refused: the table has rows and no frontier.
            CommitConflict: others kept on committing.
            SinkUnavailable: the catalog cannot be reached.
        """
        key = uuid.uuid4().hex
        for _ in range(MAX_CONFLICTS):
            if self.stale:
                self._refresh()
            if self._landed(key):
                return committed_frontier(self.table.metadata, self.name)
            frontier = committed_frontier(self.table.metadata, self.name)
            self.stale = True
            self.epoch = int(newest_value(self.table.metadata, EPOCH_KEY) or 0) + 1
            if self._attempt(Change(), frontier, key, f"claim {self.name}"):
                return frontier
            time.sleep(CONFLICT_PAUSE_S)
        raise CommitConflict(f"claim {self.name}: {MAX_CONFLICTS} other commits came first")

    def commit(self, plan: Callable[[Any], Change], frontier: Frontier, key: str) -> None:
        """Land one batch exactly once, however often this is called with its key.

        Args:
            plan: from the pyiceberg table at its head to what to change; called again on each new head.
            frontier: the whole frontier of the table once this has landed.
            key: unique to the batch.

        Raises:
            Fenced: another writer has claimed the table.
            CommitConflict, SinkUnavailable: call again later, with the same key.
        """
        for _ in range(MAX_CONFLICTS):
            if self.stale:
                self._refresh()
                if self._landed(key):
                    return
            self._check_owner()
            self.stale = True  # whatever fails from here on, look at the head again
            if self._attempt(plan(self.table), frontier, key, f"commit {self.name}"):
                return
            time.sleep(CONFLICT_PAUSE_S)
        raise CommitConflict(f"commit {self.name}: {MAX_CONFLICTS} other commits came first")

    def _attempt(self, change: Change, frontier: Frontier, key: str, doing: str) -> bool:
        # True: landed. False: another commit was first. Raises when the outcome is unknown or nothing could be tried.
        summary = {EPOCH_KEY: str(self.epoch), FRONTIER_KEY: json.dumps(to_json(frontier)), COMMIT_KEY: key}
        try:
            with FencedTransaction(self.table) as transaction:
                _stage(transaction, change, summary)
                _expire(transaction, self.table)
        except (_Moved, CommitFailedException, ValidationException):
            return False
        except ValueError as error:
            # pyiceberg reports a snapshot that maintenance expired meanwhile as a ValueError.
            self._refresh()
            if self._landed(key):
                return True
            raise translate(CommitFailedException(str(error)), doing) from error
        except Exception as error:
            raise translate(error, doing) from error
        self.stale = False
        return True

    def _check_owner(self) -> None:
        owner = int(newest_value(self.table.metadata, EPOCH_KEY) or 0)
        if owner != self.epoch:
            raise Fenced(
                f"{self.name} was taken over by another writer (epoch {owner}, ours was {self.epoch}): only one flow may write a table"
            )

    def _landed(self, key: str) -> bool:
        return any(s.summary is not None and s.summary[COMMIT_KEY] == key for s in self.table.metadata.snapshots)

    def _refresh(self) -> None:
        try:
            self.table.refresh()
        except Exception as error:
            raise translate(error, f"read the head of {self.name}") from error
        self.stale = False


def _stage(transaction: FencedTransaction, change: Change, summary: dict[str, str]) -> None:
    if not change.removed:
        producer: Any = transaction.update_snapshot(snapshot_properties=summary).merge_append()
    else:
        producer = _Rewrite(Operation.OVERWRITE, transaction, transaction._table.io, snapshot_properties=summary)  # noqa: SLF001
    with producer as files:
        for file in change.removed:
            files.delete_data_file(file)
        for file in change.added:
            files.append_data_file(file)


def _expire(transaction: FencedTransaction, table: Any) -> None:
    # In the commit itself, where it costs nothing: a commit's price grows with the snapshots kept. Heads and tags stay.
    protected = {ref.snapshot_id for ref in table.metadata.refs.values()}
    old = [s.snapshot_id for s in table.metadata.snapshots if s.snapshot_id not in protected][: -(SNAPSHOTS_KEPT - 1) or None]
    if old:
        ExpireSnapshots(transaction).by_ids(old).commit()
