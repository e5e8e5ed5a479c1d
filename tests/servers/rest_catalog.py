"""A real Iceberg REST catalog for tests: the reference implementation, loopback only, warehouse in a folder or an object store.

Maven fetches its jars once. Tests skip with the reason where Java or the jars are missing.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.servers.fetched import dies_with_parent, fetched_jars, free_ports, or_skip

HERE: Final = Path(__file__).parent / "rest"
READY_SECONDS: Final = 60


@dataclass(frozen=True)
class RestServer:
    """A running catalog."""

    port: int

    @property
    def url(self) -> str:
        """The URL a user would write."""
        return f"rest+http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def running_catalog(folder: Path, **properties: str) -> Iterator[RestServer]:
    """Give a catalog for as long as the block runs; raises `Unavailable`.

    Args:
        folder: where its database and, unless the properties say otherwise, its warehouse lie.
        properties: of the catalog, `__` for a dot and `_` for a dash: `s3__endpoint`.
    """
    jars = fetched_jars("rest", HERE / "pom.xml")
    (port,) = free_ports(1)
    (folder / "warehouse").mkdir(parents=True, exist_ok=True)
    named = {name.replace("__", ".").replace("_", "-"): value for name, value in properties.items()}
    options = [
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        f"{jars}/*",
    ]
    settings = {
        "uri": f"jdbc:sqlite:{folder}/catalog.db?busy_timeout=10000&journal_mode=WAL",
        "warehouse": f"file://{folder}/warehouse",
        **named,
    }
    arguments = [str(HERE / "RestCatalogServer.java"), str(port), *(f"{name}={value}" for name, value in settings.items())]
    with (folder / "rest.log").open("ab") as log:
        process = subprocess.Popen(
            [*dies_with_parent(), "java", *options, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_ready(port, process, folder / "rest.log")
        yield RestServer(port)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/config", timeout=2),
        ):
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    said = log.read_text(errors="replace").splitlines()[-10:]
    raise RuntimeError("\n".join(["the Iceberg REST catalog did not start", *said]))


@pytest.fixture(scope="session")
def rest_catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestServer]:
    """A catalog for all tests of the run; skips with the reason where there is none."""
    with or_skip(running_catalog(tmp_path_factory.mktemp("rest"))) as server:
        yield server
