"""The Kafka log's connections: logins, encryption, brokers that die or stay away."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from market.errors import ConfigError, SourceDisconnected
from tests.integration.kafka_log import (
    DEADLINE_S,
    eventually,
    new_name,
    opened,
    read_some,
)
from tests.records import numbered, payloads, read_all
from tests.servers.fetched import free_ports
from tests.servers.kafka import USER, OwnBroker

# ------------------------------------------------------------------------------------------------------------ connections


def test_no_broker_is_told_with_its_address_and_reason() -> None:
    (port,) = free_ports(1)
    with opened(f"kafka://127.0.0.1:{port}?timeout=1") as log, pytest.raises(SourceDisconnected, match=rf"127\.0\.0\.1:{port}.*refused"):
        log.topics()


def test_a_login_reads_and_writes(own_kafka_broker: OwnBroker) -> None:
    url = f"kafka://{USER}@127.0.0.1:{own_kafka_broker.login_port}?security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN"
    reads_and_writes(url, own_kafka_broker.password)


def test_an_encrypted_login_reads_and_writes(own_kafka_broker: OwnBroker) -> None:
    reads_and_writes(encrypted(own_kafka_broker), own_kafka_broker.password)


def reads_and_writes(url: str, password: str) -> None:
    name = new_name()
    with opened(url, password=password) as log:
        log.create(name, 1)
        log.append(name, {0: numbered(0, 10)})
        assert payloads(read_all(log, name, 0)) == [b"%d" % i for i in range(10)]


def encrypted(broker: OwnBroker) -> str:
    return f"kafka://{USER}@127.0.0.1:{broker.secure_port}?sasl.mechanism=PLAIN&ssl.ca.location={broker.certificate}"


def test_a_wrong_password_is_a_config_error_at_once(own_kafka_broker: OwnBroker, topic: str) -> None:
    url = f"kafka://{USER}@127.0.0.1:{own_kafka_broker.login_port}?security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN&timeout=60"
    with opened(url, password="wrong") as log, pytest.raises(ConfigError, match=r"refuses the connection.*user and password") as caught:
        log.topics()
    assert "wrong" not in str(caught.value)


def test_an_unknown_certificate_is_a_config_error(own_kafka_broker: OwnBroker) -> None:
    url = encrypted(own_kafka_broker).partition("&ssl.ca")[0]
    with opened(f"{url}&timeout=60", password="x") as log, pytest.raises(ConfigError, match="certificate"):
        log.topics()


def test_a_certificate_file_that_is_not_there_is_a_config_error(own_kafka_broker: OwnBroker) -> None:
    url = f"kafka://127.0.0.1:{own_kafka_broker.secure_port}?security.protocol=SSL&ssl.ca.location=/nowhere.pem"
    with opened(url) as log, pytest.raises(ConfigError, match=r"nowhere\.pem"):
        log.topics()


def test_a_killed_broker_loses_and_doubles_nothing_for_reader_and_writer(own_kafka_broker: OwnBroker) -> None:
    broker, name = own_kafka_broker, new_name()
    total, step = 30_000, 100
    seen: list[bytes] = []
    failures: list[BaseException] = []
    progress = threading.Event()

    def write() -> None:
        with opened(broker.url) as log:
            for first in range(0, total, step):
                log.append(name, {0: numbered(first, step)})
                if first > total // 10:
                    progress.set()

    def read() -> None:
        with opened(broker.url) as log:
            at = 0
            while len(seen) < total and not failures:
                batch = read_some(log, name, 0, at)
                at = batch.column("offset")[-1].as_py() + 1
                seen.extend(payloads([batch]))

    def guarded(work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)
                progress.set()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    with opened(broker.url) as log:
        log.create(name, 1)
    threads = [guarded(write), guarded(read)]
    progress.wait(DEADLINE_S)
    broker.kill()
    broker.start()
    for thread in threads:
        thread.join(2 * DEADLINE_S)
    assert failures == []
    assert seen == [b"%d" % i for i in range(total)]


def test_a_broker_that_stays_away_ends_reading_and_appending(own_kafka_broker: OwnBroker) -> None:
    broker, name = own_kafka_broker, new_name()
    with opened(f"{broker.url}?patience=1&timeout=1&delivery.timeout=4") as log:
        log.create(name, 1)
        log.append(name, {0: numbered(0, 10)})
        assert read_some(log, name, 0, 0).num_rows == 10
        broker.stop()
        try:
            with pytest.raises(SourceDisconnected, match=r"127\.0\.0\.1"):
                eventually(lambda: log.read(name, 0, 10, 10))
            with pytest.raises(SourceDisconnected, match=r"127\.0\.0\.1"):
                log.append(name, {0: numbered(10, 10)})
        finally:
            broker.start()
        log.append(name, {0: numbered(20, 1)})
        assert payloads([read_some(log, name, 0, 10)]) == [b"20"], "what an append gave up is not written later"
