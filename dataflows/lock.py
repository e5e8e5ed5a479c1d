"""One execution per recovery folder: an advisory lock that says who holds it, and takes over from a holder that hangs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog

from market.errors import ConfigError, Locked, Refused

log = structlog.get_logger()
DRAIN_SECONDS: Final = 15.0  # an epoch plus its commits; a frozen process is killed after that
KILL_SECONDS: Final = 10.0


class ExecutionLock:
    """Exclusive lock on a folder, released by the operating system when its holder dies."""

    def __init__(self, folder: Path) -> None:
        self.path = folder.parent / f"{folder.name}.lock"  # beside the folder: `k2 recover` moves the folder itself
        self._file: int | None = None

    def acquire(self, *, take_over: bool = False) -> None:
        """Lock the folder.

        Args:
            take_over: end the process that holds the lock first: asked to drain, then killed, frozen or not.

        Raises:
            ConfigError: there is no place for it.
            Locked: another process holds it.
            Refused: the holder could not be ended.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"the lock {self.path} of the recovery folder cannot be made: {error.strerror}") from error
        try:
            if not _try_lock(file):
                self._make_way(file, take_over=take_over)
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def _make_way(self, file: int, *, take_over: bool) -> None:
        holder = _holder(file)
        if not take_over:
            raise Locked(
                f"{self.path} is held by process {holder or 'unknown'}: a flow is running here. Stop it, or use `k2 run --take-over`"
            )
        _end(file, holder)

    def release(self) -> None:
        """Unlock; the file stays, since removing it would let two processes lock two files of one name."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: int) -> int | None:
    text = os.pread(file, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _end(file: int, holder: int | None) -> None:
    if holder is None:
        raise Refused("the lock is held by a process that did not leave its id: find it with `fuser` and stop it")
    for name, seconds in ((signal.SIGTERM, DRAIN_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        log.warning("taking_over", holder=holder, signal=name.name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder, name)
        if _locked_within(file, 0.5 if name is signal.SIGTERM and _is_stopped(holder) else seconds):
            return
    raise Refused(f"process {holder} still holds the lock after SIGKILL")


def _locked_within(file: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not _try_lock(file):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def _is_stopped(pid: int) -> bool:
    # A stopped process (state T) does not see SIGTERM: no use in waiting for its drain.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in {"T", "t"}
    except (OSError, IndexError):
        return False
