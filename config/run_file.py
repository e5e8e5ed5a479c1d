"""`run.json` of a home: where its stores are and which processes serve it, for scripts and for our own commands.

Shape: `{"warm": {"url", "user", "password", "reader_user", "reader_password"}, "topics": url, "cold": url,
"pids": {"flow": [...], "warm": n, "feed": [...]}, "feeds": {name: {"pid", "metrics"}},
"streams": {"exchange symbol": stream}}`. It holds passwords, so only its owner may read it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from market.errors import ConfigError

RUN_FILE: Final = "run.json"


def run_path(home: Path) -> Path:
    """Return where a home's run file is."""
    return home / RUN_FILE


def read_run(home: Path) -> dict[str, Any]:
    """Return the whole run file; empty when there is none.

    Raises:
        ConfigError: the file is not what we write.
    """
    path = run_path(home)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): stop what runs in this home, remove the file and start again") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a JSON object: stop what runs in this home, remove the file and start again")
    return content


def update_run(home: Path, **sections: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Merge sections into the run file, atomically and one process at a time.

    Args:
        home: folder of the platform; created when it is not there.
        sections: a mapping is merged into the stored one key by key (a key whose value is None is removed), anything else
            replaces what is stored; None removes the section.

    Returns:
        The whole content as written.
    """
    make_home(home)
    with exclusively(home / ".run.lock"):
        content = read_run(home)
        for name, value in sections.items():
            if isinstance(value, Mapping):
                kept = content.get(name)
                merged = {**(kept if isinstance(kept, dict) else {}), **value}
                content[name] = {k: v for k, v in merged.items() if v is not None}
            elif value is None:
                content.pop(name, None)
            else:
                content[name] = value
        write_private(run_path(home), json.dumps(content, indent=1) + "\n")
    return content


def make_home(home: Path) -> None:
    """Create the folder of a platform unless it is there.

    Raises:
        ConfigError: it cannot be made or written to.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        os.close(os.open(home / ".run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigError(f"the home {home} (K2_HOME) cannot be used: {error.strerror}") from error


def change_pids(home: Path, role: str, change: Callable[[list[int]], list[int]]) -> None:
    """Change the list of processes of a role (`feed`), one process at a time.

    Args:
        home: folder of the platform.
        role: a key of `pids` whose value is a list.
        change: gets the list that is stored and returns the new one.
    """
    make_home(home)
    with exclusively(home / ".run.lock"):
        content = read_run(home)
        pids = content.setdefault("pids", {})
        pids[role] = change([pid for pid in pids.get(role, []) if isinstance(pid, int)])
        write_private(run_path(home), json.dumps(content, indent=1) + "\n")


def write_private(path: Path, text: str) -> None:
    """Replace a file at once with one that only its owner may read."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made with mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; waits for other processes and threads. The system releases it when the holder dies."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
