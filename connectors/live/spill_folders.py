"""Who owns which spill: one locked folder a feed, and those that ended processes left behind.

<folder>/<feed name>/lock        held by the process while it lives; the system releases it
<folder>/<feed name>/*.spill     connectors.live.spill
<folder>/left-<id>/              what a process left behind that ended; moved there by the one that writes it now
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from connectors.live.spill import SUFFIX, Spill
from market.errors import ConfigError, Locked

_LOCK: Final = "lock"
_LEFT: Final = "left-"
_TRIES: Final = 20
_TRY_S: Final = 0.05


@dataclass(slots=True)
class SpillFolders:
    """The folder of one feed, and the queues it has taken over, oldest first; its own left-over one among them."""

    own: Spill
    older: list[Spill]
    _locks: list[int]
    _dead: set[Path] = field(default_factory=set)  # folders of no living process, at the last look

    def adopt(self) -> list[Spill]:
        """Take over what feeds left behind that were dead at the last call too: who starts again at once takes over its own.

        Raises:
            OSError: a folder cannot be used.
        """
        dead, taken = set(), []
        mine = {spill.folder for spill in self.older}
        for other in _with_segments(self.own.folder):
            if other in mine:
                continue
            lock = _locked(other)
            if lock is None:
                continue
            if other in self._dead:
                taken.append(Spill(_renamed(other)))
                self._locks.append(lock)
            else:
                dead.add(other)
                os.close(lock)
        self._dead = dead
        self.older += taken
        return taken

    def close(self) -> None:
        """Give the folders back; those that are empty are removed."""
        for spill in (self.own, *self.older):
            spill.close()
        for folder in {self.own.folder, *(s.folder for s in self.older)}:
            if not any(folder.glob(f"*{SUFFIX}")):
                _remove(folder)
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()


def open_spills(folder: Path, name: str) -> SpillFolders:
    """Return the spill of a feed, and what no living process owns.

    Raises:
        Locked: a feed of this name runs.
        ConfigError: the folder cannot be used.
    """
    own = folder / name
    try:
        own.mkdir(parents=True, exist_ok=True)
        mine = _patiently_locked(own)
        if mine is None:
            raise Locked(f"{own} is in use: a feed called {name!r} runs in this home; give another --name, or none")
        locks, found = [mine], []
        for other in sorted(folder.iterdir()):
            # One without a lock holds what was set aside, until somebody gives a segment its name back.
            if other == own or not ((other / _LOCK).exists() or any(other.glob(f"*{SUFFIX}"))):
                continue
            lock = _locked(other)
            if lock is None:
                continue
            if any(other.glob(f"*{SUFFIX}")):
                locks.append(lock)
                found.append(_renamed(other))
            else:
                _remove(other)
                os.close(lock)
        older = [Spill(other) for other in found]
        # What this name left behind comes as a queue of its own; new segments have higher numbers and are another queue.
        left = Spill(own)
        left.ack(0)  # removes what is empty
        if left.nbytes:
            older.append(left)
        return SpillFolders(Spill(own, after=left), sorted(older, key=_age), locks)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: {error.strerror}: a feed needs this folder for what its topics cannot take yet"
        ) from error


def _with_segments(own: Path) -> Iterator[Path]:
    yield from (other for other in sorted(own.parent.iterdir()) if other != own and any(other.glob(f"*{SUFFIX}")))


def _renamed(folder: Path) -> Path:
    # Under another name: a feed of the old one may start at any moment, and has nothing to do with this any more.
    return folder.rename(folder.with_name(f"{_LEFT}{uuid.uuid4().hex}"))


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        (folder / _LOCK).unlink(missing_ok=True)
        folder.rmdir()


def _age(spill: Spill) -> int:
    first = min(spill.folder.glob(f"*{SUFFIX}"), default=None)
    return 0 if first is None else first.stat().st_mtime_ns


def _patiently_locked(folder: Path) -> int | None:
    # Another feed that starts looks into every folder, and holds its lock meanwhile.
    for _ in range(_TRIES):
        lock = _locked(folder)
        if lock is not None:
            return lock
        time.sleep(_TRY_S)
    return None


def _locked(folder: Path) -> int | None:
    # None: a living process holds it. A lock file that its holder has just removed is made again.
    while True:
        path = folder / _LOCK
        folder.mkdir(exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(lock).st_ino:
                return lock
        os.close(lock)
