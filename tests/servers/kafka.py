"""A real Apache Kafka broker for tests: one node, loopback only, started from jars that Maven fetches once.

`K2_TEST_KAFKA=host:port` names a broker of your own instead; tests that stop the broker or log in to it then skip, as do all
without Java, Maven and broker.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.servers.fetched import dies_with_parent, fetched_jars, free_ports, or_skip, run

HERE: Final = Path(__file__).parent / "kafka_node"
CLUSTER_ID: Final = "azItdGVzdHMtY2x1c3Rlcg"  # 16 bytes in base64, as the formatter wants it
USER: Final = "k2"
TEST_TOPICS: Final = "k2_test."  # not named like raw topics: a flow on the same broker would take them for exchanges
READY_SECONDS: Final = 180  # a busy machine takes its time


class DidNotStart(Exception):
    """A broker that should be there is not. Tests fail."""


class Broker:
    """A broker by address; `owned` if the tests started it and may stop it."""

    owned = False

    def __init__(self, address: str) -> None:
        self.address = address

    @property
    def url(self) -> str:
        """The URL a user would write."""
        return f"kafka://{self.address}"

    def wait_ready(self, alive: subprocess.Popen[bytes] | None = None) -> None:
        """Return once the broker answers; raises `DidNotStart` when it does not, or its process has ended."""
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0, "reconnect.backoff.max.ms": 200})
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(KafkaException):
                admin.list_topics(timeout=1)
                return
            if alive is not None and alive.poll() is not None:
                raise DidNotStart(f"the broker ended with {alive.returncode}")
        raise DidNotStart(f"no broker answered at {self.address} within {READY_SECONDS} s")


class OwnBroker(Broker):
    """A broker process of ours, in a folder of its own; it keeps its ports over restarts."""

    owned = True

    def __init__(self, folder: Path, jars: Path) -> None:
        port, self.controller_port, self.login_port, self.secure_port = free_ports(4)
        super().__init__(f"127.0.0.1:{port}")
        self.port = port
        self.folder = folder
        self.jars = jars
        self.password = secrets.token_hex(8)
        self.certificate = folder / "broker.pem"
        self.process: subprocess.Popen[bytes] | None = None

    def format(self) -> None:
        """Write the configuration, a certificate and an empty storage folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        values = {
            "PORT": self.port,
            "CONTROLLER_PORT": self.controller_port,
            "LOGIN_PORT": self.login_port,
            "SECURE_PORT": self.secure_port,
            "DIR": self.folder,
            "USER": USER,
            "PASSWORD": self.password,
        }
        text = (HERE / "server.properties.template").read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        (self.folder / "server.properties").write_text(text)
        store = ["-keystore", str(self.folder / "broker.p12"), "-storepass", self.password, "-alias", "broker"]
        subject = ["-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1", "-validity", "30", "-keyalg", "EC", "-groupname", "secp256r1"]
        run(DidNotStart, ["keytool", "-genkeypair", "-storetype", "PKCS12", *store, *subject])
        run(DidNotStart, ["keytool", "-exportcert", "-rfc", *store, "-file", str(self.certificate)])
        settings = str(self.folder / "server.properties")
        run(DidNotStart, [*self._java("128m"), "kafka.tools.StorageTool", "format", "--standalone", "-t", CLUSTER_ID, "-c", settings])

    def start(self) -> None:
        """Start the process and wait until it answers."""
        with (self.folder / "broker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*dies_with_parent(), *self._java("256m"), "kafka.Kafka", str(self.folder / "server.properties")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self.wait_ready(self.process)
        except DidNotStart as error:
            self.kill()
            lines = (self.folder / "broker.log").read_text(errors="replace").splitlines()[-15:]
            raise DidNotStart("\n".join([str(error), *lines])) from None

    def forget_raw_topics(self) -> None:
        """Delete what another test has left under the names that feeds and flows use."""
        admin = AdminClient({"bootstrap.servers": self.address})
        left = [name for name in admin.list_topics(timeout=30).topics if name.startswith("raw.trades.")]
        for done in admin.delete_topics(left).values() if left else ():
            done.result()

    def kill(self) -> None:
        """End the process as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the process in order; it writes a clean-shutdown mark."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _java(self, heap: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"
        return ["java", f"-Xmx{heap}", "-XX:+UseSerialGC", "-Djava.awt.headless=true", logging, "-cp", f"{self.jars}/*"]


@contextlib.contextmanager
def running_broker(folder: Path) -> Iterator[Broker]:
    """Give the user's broker, or one of our own for as long as the block runs; raises `Unavailable`."""
    named = os.environ.get("K2_TEST_KAFKA")
    if named:
        broker = Broker(named)
        broker.wait_ready()
        with _tidied(named):
            yield broker
        return
    own = OwnBroker(folder, fetched_jars("kafka", HERE / "pom.xml", tools=("java", "keytool")))
    own.format()
    try:
        own.start()
        yield own
    finally:
        own.stop()


@contextlib.contextmanager
def _tidied(address: str) -> Iterator[None]:
    # On a broker that is not ours, the topics that tests made meanwhile go again.
    admin = AdminClient({"bootstrap.servers": address})

    def test_topics() -> set[str]:
        return {name for name in admin.list_topics(timeout=10).topics if name.startswith(TEST_TOPICS)}

    before = test_topics()
    yield
    made = sorted(test_topics() - before)
    for future in admin.delete_topics(made).values() if made else ():
        with contextlib.suppress(KafkaException):
            future.result()


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker for all tests of the run; skips with the reason where there is none."""
    folder = tmp_path_factory.mktemp("kafka")
    with or_skip(running_broker(folder)) as broker:
        yield broker
        if isinstance(broker, OwnBroker):
            broker.stop()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own_kafka_broker(kafka_broker: Broker) -> OwnBroker:
    """The broker, if tests may stop it and log in to it."""
    if not isinstance(kafka_broker, OwnBroker):  # only where the user named one: without K2_TEST_KAFKA it is ours
        pytest.skip("K2_TEST_KAFKA names a broker that tests must not stop")
    return kafka_broker
