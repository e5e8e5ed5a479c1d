"""A real Iceberg REST catalog for tests: the reference implementation, loopback only, warehouse in a folder.

The jars lie in `K2_TEST_CACHE` (default `~/.cache/k2-tests`), outside the repository; Maven fetches them once. Tests skip with
the reason where Java or the jars are missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.servers.kafka import Unavailable, free_ports

HERE: Final = Path(__file__).parent / "rest"
READY_SECONDS: Final = 60
FETCH_SECONDS: Final = 280


@dataclass(frozen=True)
class RestServer:
    """A running catalog."""

    port: int

    @property
    def url(self) -> str:
        """The URL a user would write."""
        return f"rest+http://127.0.0.1:{self.port}"


def cached_jars() -> Path:
    """Return the folder with the jars, fetching them once; raises `Unavailable`. Complete or absent, also when aborted."""
    pom = HERE / "pom.xml"
    cache = Path(os.environ.get("K2_TEST_CACHE") or Path.home() / ".cache" / "k2-tests")
    jars = cache / f"rest-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    needed = ["java"] if jars.is_dir() else ["java", "mvn"]
    missing = [tool for tool in needed if shutil.which(tool) is None]
    if missing:
        raise Unavailable(f"no {' and no '.join(missing)} on this machine to start an Iceberg REST catalog with")
    if jars.is_dir():
        return jars
    cache.mkdir(parents=True, exist_ok=True)
    fetched = Path(tempfile.mkdtemp(prefix=f"{jars.name}.", dir=cache))
    command = ["mvn", "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={fetched}", "-DincludeScope=runtime"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=FETCH_SECONDS)
        with contextlib.suppress(OSError):  # somebody else was first
            fetched.rename(jars)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = ((error.stdout or b"") + (error.stderr or b"")).decode(errors="replace").strip().splitlines()[-3:]
        raise Unavailable("\n".join(["the jars of the Iceberg REST catalog could not be fetched", *said])) from None
    finally:
        shutil.rmtree(fetched, ignore_errors=True)
    return jars


@contextlib.contextmanager
def running_catalog(folder: Path) -> Iterator[RestServer]:
    """Give a catalog for as long as the block runs; raises `Unavailable`."""
    jars = cached_jars()
    (port,) = free_ports(1)
    (folder / "warehouse").mkdir(parents=True, exist_ok=True)
    dies_with_parent = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    options = [
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        f"{jars}/*",
    ]
    arguments = [str(HERE / "RestCatalogServer.java"), str(port), str(folder / "catalog.db"), str(folder / "warehouse")]
    with (folder / "rest.log").open("ab") as log:
        process = subprocess.Popen(
            [*dies_with_parent, "java", *options, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
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
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(running_catalog(tmp_path_factory.mktemp("rest")))
        except Unavailable as error:
            pytest.skip(str(error))
        yield server
