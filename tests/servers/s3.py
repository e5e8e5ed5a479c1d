"""A real S3 API for tests: an object store over a folder, loopback only, built once from its sources by Go.

Building takes minutes, so only long proofs ask for it. They skip with the reason where there is no Go.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.servers.fetched import dies_with_parent, fetched, free_ports, or_skip, require

MODULE: Final = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
BUCKET: Final = "k2-tests"
BUILD_SECONDS: Final = 900
READY_SECONDS: Final = 20


@dataclass(frozen=True)
class S3Server:
    """A running object store with one bucket."""

    port: int
    folder: Path
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    secret: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    @property
    def endpoint(self) -> str:
        """The URL clients are told."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def objects(self) -> list[Path]:
        """What lies in the bucket, as files."""
        return [path for path in (self.folder / BUCKET).rglob("*") if path.is_file()]


@contextlib.contextmanager
def running_store(folder: Path) -> Iterator[S3Server]:
    """Give an object store for as long as the block runs; raises `Unavailable`."""
    require("s3", ["go"])
    build = ["env", "GOBIN={folder}", "go", "install", "-ldflags", "-s -w", MODULE]
    program = fetched("s3", MODULE.encode(), build, seconds=BUILD_SECONDS) / "versitygw"
    (port,) = free_ports(1)
    server = S3Server(port, folder / "root")
    (server.folder / BUCKET).mkdir(parents=True)
    keys = {"ROOT_ACCESS_KEY": server.key, "ROOT_SECRET_KEY": server.secret}
    with (folder / "s3.log").open("ab") as log:
        process = subprocess.Popen(
            [*dies_with_parent(), str(program), "--port", f"127.0.0.1:{port}", "--quiet", "posix", str(server.folder)],
            env={**os.environ, **keys},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    try:
        _wait_ready(server, process, folder / "s3.log")
        yield server
    finally:
        process.kill()
        process.wait()


def _wait_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(server.endpoint, timeout=2).close()
        except urllib.error.HTTPError as error:
            error.close()
            return  # it answers: refusing a stranger is right
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("\n".join(["the object store did not start", *log.read_text(errors="replace").splitlines()[-10:]]))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An object store for all tests of the run; skips with the reason where there is none."""
    with or_skip(running_store(tmp_path_factory.mktemp("s3"))) as server:
        yield server
