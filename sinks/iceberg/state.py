"""What waits to be committed, and its bytes in the engine's saved state.

Layout of the bytes: `K2IC`, version (1 byte), length of the header (4 bytes, little endian), header (JSON), then the
Arrow IPC streams of gold changes one after the other (lengths in the header).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from market.errors import SchemaMismatch
from sinks.iceberg.frontier import Frontier, Position, TopicPartition, from_json, to_json
from sinks.iceberg.parquet import FileNote

_MAGIC: Final = b"K2IC"
_VERSION: Final = 1
_HEAD: Final = struct.Struct("<4sBI")


@dataclass(frozen=True, slots=True)
class Pending:
    """Epochs that are not committed, as one.

    Attributes:
        frontier: the table's once they are.
        files: closed data files, of an append table.
        changes: Arrow IPC streams of ordered gold changes.
        rows: how many rows they hold.
        epochs: how many epochs they are.
    """

    frontier: Frontier
    files: tuple[FileNote, ...] = ()
    changes: tuple[bytes, ...] = ()
    rows: int = 0
    epochs: int = 1

    @property
    def size(self) -> int:
        """Bytes of changes: what the saved state has to carry."""
        return sum(len(c) for c in self.changes)

    def then(self, later: Pending) -> Pending:
        """Return both as one, in order. Epochs without rows only move the frontier."""
        epochs = self.epochs + later.epochs if self.rows and later.rows else max(self.epochs, later.epochs)
        return Pending(later.frontier, self.files + later.files, self.changes + later.changes, self.rows + later.rows, epochs)


@dataclass(frozen=True, slots=True)
class SavedState:
    """State of one table at an engine barrier.

    Attributes:
        table: name in the catalog.
        uuid: of the Iceberg table.
        base: frontier of the table when the state was saved: a table that has less was set back.
        pending: what was not committed then, oldest first.
    """

    table: str
    uuid: str
    base: dict[TopicPartition, Position] = field(default_factory=dict)
    pending: Sequence[Pending] = ()

    def encode(self) -> bytes:
        """Return the bytes."""
        header = {
            "table": self.table,
            "uuid": self.uuid,
            "base": to_json(self.base),
            "pending": [
                {
                    "frontier": to_json(p.frontier), "files": [f.to_json() for f in p.files], "changes": [len(c) for c in p.changes],
                    "rows": p.rows, "epochs": p.epochs,
                }
                for p in self.pending
            ],
        }  # fmt: skip
        body = json.dumps(header, separators=(",", ":")).encode()
        return b"".join((_HEAD.pack(_MAGIC, _VERSION, len(body)), body, *(c for p in self.pending for c in p.changes)))

    @classmethod
    def decode(cls, data: bytes) -> SavedState:
        """Return what `encode` wrote.

        Raises:
            SchemaMismatch: the bytes are not ours or of another version.
        """
        magic, version, length = _HEAD.unpack_from(data) if len(data) >= _HEAD.size else (b"", 0, 0)
        if magic != _MAGIC or version != _VERSION:
            raise SchemaMismatch(f"saved state of an Iceberg table has version {version}, this program reads {_VERSION}: run `k2 recover`")
        start = _HEAD.size + length
        header = json.loads(data[_HEAD.size : start])
        pending = []
        for entry in header["pending"]:
            changes = []
            for size in entry["changes"]:
                changes.append(data[start : start + size])
                start += size
            files = tuple(FileNote.from_json(f) for f in entry["files"])
            pending.append(Pending(from_json(entry["frontier"]), files, tuple(changes), entry["rows"], entry["epochs"]))
        return cls(header["table"], header["uuid"], from_json(header["base"]), pending)
