"""What tests start servers from: fetched once, kept outside the repository, complete or absent.

It lies in `K2_TEST_CACHE` (default `~/.cache/k2-tests`). Tests skip with the reason where it cannot be had.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, TypeVar

import pytest

Server = TypeVar("Server")

FETCH_SECONDS: Final = 280


class Unavailable(Exception):
    """There is nothing to start a server from; the text is the reason. Tests skip."""


@contextlib.contextmanager
def or_skip(starting: AbstractContextManager[Server]) -> Iterator[Server]:
    """Give a server for as long as the block runs."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(starting)
        except Unavailable as error:  # the text names the tool or download that is missing; a mock would prove nothing
            pytest.skip(str(error))
        yield server


def fetched_jars(name: str, pom: Path, *, tools: Sequence[str] = ("java",)) -> Path:
    """Return the folder with the jars that a pom names; raises `Unavailable`."""
    require(name, tools)
    command = ["mvn", "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    return fetched(name, pom.read_bytes(), [*command, "-DoutputDirectory={folder}"])


def fetched(name: str, recipe: bytes, command: Sequence[str], *, seconds: float = FETCH_SECONDS) -> Path:
    """Return the folder that a command fills, run once per recipe; `{folder}` in it stands for the folder. Raises `Unavailable`.

    A fetch goes into a folder of its own which is renamed when it is complete: an aborted one leaves nothing that looks
    complete, and of two at the same time one wins.
    """
    cache = Path(os.environ.get("K2_TEST_CACHE") or Path.home() / ".cache" / "k2-tests")
    kept = cache / f"{name}-{hashlib.sha256(recipe).hexdigest()[:12]}"
    if kept.is_dir():
        return kept
    require(name, command[:1])
    cache.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{kept.name}.", dir=cache))
    try:
        run(Unavailable, [part.replace("{folder}", str(folder)) for part in command], seconds)
        with contextlib.suppress(OSError):  # somebody else was first
            folder.rename(kept)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return kept


def require(name: str, tools: Sequence[str]) -> None:
    """Raise `Unavailable` unless the tools are on this machine."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise Unavailable(f"no {' and no '.join(missing)} on this machine for the test server {name}")


def run(failure: type[Exception], command: Sequence[str], seconds: float = FETCH_SECONDS) -> None:
    """Run a command to its end; raises `failure` with the end of what it said."""
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=seconds)
    except subprocess.CalledProcessError as error:
        said = (error.stdout + error.stderr).decode(errors="replace").strip().splitlines()[-5:]
        raise failure("\n".join([f"{command[0]} ended with {error.returncode}", *said])) from None
    except subprocess.TimeoutExpired:
        raise failure(f"{command[0]} did not end within {seconds:g} s") from None


def dies_with_parent() -> list[str]:
    """Return what to put before a server's command, so that a test run that is killed leaves no server behind."""
    return ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
