"""The file under the embedded topic log: opening it safely, transactions, and what SQLite's errors mean."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from market.errors import ConfigError, FatalError, InvariantViolation, PipelineError, Refused, SchemaMismatch, SourceDisconnected

_APPLICATION_ID: Final = 0x4B32_5450  # "K2TP"
_VERSION: Final = 1
_DDL: Final = (
    "CREATE TABLE topics (topic_id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, generation TEXT NOT NULL, partitions INTEGER NOT NULL)",
    """CREATE TABLE partitions (topic_id INTEGER NOT NULL, partition INTEGER NOT NULL, start_offset INTEGER NOT NULL,
       end_offset INTEGER NOT NULL, PRIMARY KEY (topic_id, partition)) WITHOUT ROWID""",
    """CREATE TABLE blocks (block_id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, partition INTEGER NOT NULL,
       first_offset INTEGER NOT NULL, next_offset INTEGER NOT NULL, last_append_us INTEGER NOT NULL, level INTEGER NOT NULL,
       body BLOB NOT NULL)""",
    "CREATE INDEX blocks_by_position ON blocks (topic_id, partition, next_offset, level)",
)
WAY_OUT: Final = "restore the file from a backup, or start a new home and load the recordings again"

# What the caller must do, by SQLite's primary result code; any other code is a bug of ours.
ERRORS: Final[Mapping[int, type[PipelineError]]] = {
    sqlite3.SQLITE_BUSY: SourceDisconnected,
    sqlite3.SQLITE_LOCKED: SourceDisconnected,
    sqlite3.SQLITE_PROTOCOL: SourceDisconnected,
    sqlite3.SQLITE_INTERRUPT: SourceDisconnected,
    sqlite3.SQLITE_NOMEM: SourceDisconnected,
    sqlite3.SQLITE_IOERR: SourceDisconnected,
    sqlite3.SQLITE_FULL: SourceDisconnected,
    sqlite3.SQLITE_PERM: ConfigError,
    sqlite3.SQLITE_READONLY: ConfigError,
    sqlite3.SQLITE_CANTOPEN: ConfigError,
    sqlite3.SQLITE_AUTH: ConfigError,
    sqlite3.SQLITE_NOTADB: ConfigError,
    sqlite3.SQLITE_CORRUPT: FatalError,
    sqlite3.SQLITE_FORMAT: FatalError,
}


class SqliteFile:
    """One connection to the log file, made when first needed; threads take turns, a transaction each.

    Raises (all calls): `SourceDisconnected`, `ConfigError` or `FatalError` by `ERRORS`; `Refused` when the file was replaced.
    """

    def __init__(self, url: str) -> None:
        self.path, self._timeout_s, self._synchronous = _parse(url)
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._inode = (0, 0)

    def close(self) -> None:
        """Disconnect; the next `open` connects again."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def open(self, *, create: bool) -> bool:
        """Connect unless connected; return False when there is no log yet and none is to be created."""
        with self._lock:
            return self._db is not None or self._connect(create=create)

    def _connect(self, *, create: bool) -> bool:
        if not create and _inode(self.path) == (0, 0):
            return False
        with self._mapped():
            if create:
                _make_folder(self.path)
            mode = "rwc" if create else "rw"
            uri = f"{self.path.absolute().as_uri()}?mode={mode}"
            db = sqlite3.connect(uri, uri=True, timeout=self._timeout_s, isolation_level=None, check_same_thread=False)
            try:
                ready = self._prepare(db, create=create)
            except BaseException:
                db.close()
                raise
        if not ready:
            db.close()
            return False
        self._db = db
        self._inode = _inode(self.path)
        return True

    def _prepare(self, db: sqlite3.Connection, *, create: bool) -> bool:
        db.execute("BEGIN")  # one view of both: another process may be creating the log right now
        (application_id,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        db.execute("COMMIT")
        if application_id != _APPLICATION_ID and (tables or application_id):
            raise ConfigError(f"{self.path} is an SQLite file but no K2 topic log: give another path in K2_TOPICS_URL")
        if not application_id:
            if not create:
                return False
            self._initialise(db)
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            raise SchemaMismatch(
                f"{self.path} has version {version} of the topic log, this program reads {_VERSION}: use the one that wrote it"
            )
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        db.execute("PRAGMA wal_autocheckpoint = 4000")
        db.execute("PRAGMA journal_size_limit = 67108864")
        return True

    def _initialise(self, db: sqlite3.Connection) -> None:
        # Changing the journal mode does not wait for another process that is doing the same, so it is tried again.
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                db.execute("PRAGMA journal_mode = wal")
                break
            except sqlite3.OperationalError as error:
                if _primary(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        db.execute("BEGIN IMMEDIATE")
        (application_id,) = db.execute("PRAGMA application_id").fetchone()
        if not application_id:
            for statement in _DDL:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {_VERSION}")
            db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        db.execute("COMMIT")

    @contextlib.contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Run a block in one transaction: committed at its end, rolled back on any exception."""
        with self._lock, self._mapped():
            db = self._current()
            db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        db.execute("ROLLBACK")
                raise

    def _current(self) -> sqlite3.Connection:
        if self._db is None:
            raise InvariantViolation(f"{self.path} is used before it was opened")
        if _inode(self.path) != self._inode:
            raise Refused(f"{self.path} was removed or replaced while it was in use; start again")
        return self._db

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            kind = ERRORS.get(_primary(error), InvariantViolation)
            damaged = kind is FatalError
            advice = f"; {WAY_OUT}" if damaged else "; give a topic log's path in K2_TOPICS_URL" if kind is ConfigError else ""
            raise kind(f"{self.path}: {error}{advice}") from error


def _primary(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def _inode(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return status.st_dev, status.st_ino


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path.parent} cannot be created for the topic log: {error.strerror}") from error


def _parse(url: str) -> tuple[Path, float, str]:
    """Return path, timeout in seconds and synchronous mode."""
    prefix = "sqlite:///"
    location, _, query = url.removeprefix(prefix).partition("?")
    options: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    synchronous = options.pop("synchronous", "full").upper()
    timeout = options.pop("timeout", "30")
    if not url.startswith(prefix) or not location:
        raise ConfigError(f"{url!r} names no file: write sqlite:///relative.db or sqlite:////absolute.db")
    if options or synchronous not in {"FULL", "NORMAL"} or not timeout.replace(".", "", 1).isdigit():
        raise ConfigError(f"{url!r}: a SQLite topic log takes timeout=<seconds> and synchronous=full|normal, nothing else")
    return Path(location), float(timeout), synchronous
