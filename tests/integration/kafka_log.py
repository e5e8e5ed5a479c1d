"""Kafka topics for tests: fixtures, and what a broker is made to do."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pyarrow as pa
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from connectors.topics.kafka import KafkaTopics
from market.errors import ConfigError
from tests.servers.kafka import Broker

T = TypeVar("T")
DEADLINE_S = 60


@pytest.fixture
def log(kafka_broker: Broker) -> Iterator[KafkaTopics]:
    with opened(kafka_broker.url) as found:
        yield found


@pytest.fixture
def admin(kafka_broker: Broker) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka_broker.address})


@pytest.fixture
def topic(log: KafkaTopics) -> str:
    name = new_name()
    log.create(name, 2)
    return name


def new_name() -> str:
    return f"k2_test.{uuid.uuid4().hex[:12]}"


@contextlib.contextmanager
def opened(url: str, **options: Any) -> Iterator[KafkaTopics]:
    log = KafkaTopics(url, **options)
    try:
        yield log
    finally:
        log.close()


def eventually(attempt: Callable[[], T | None]) -> T:
    """The first result that is not None."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        result = attempt()
        if result is not None:
            return result
        time.sleep(0.01)
    raise AssertionError("did not happen in time")


def read_some(log: KafkaTopics, topic: str, partition: int, offset: int, max_records: int = 1_000) -> pa.RecordBatch:
    return eventually(lambda: log.read(topic, partition, offset, max_records))


def delete(admin: AdminClient, topic: str) -> None:
    admin.delete_topics([topic])[topic].result()


def recreate(log: KafkaTopics, admin: AdminClient, topic: str, partitions: int) -> None:
    first = log.generation(topic)
    delete(admin, topic)

    def created() -> bool | None:
        try:
            admin.create_topics([NewTopic(topic, partitions)])[topic].result()
        except KafkaException:
            return None
        return True

    def known() -> bool | None:
        with contextlib.suppress(ConfigError):
            return log.generation(topic) != first or None
        return None

    eventually(created)
    eventually(known)


def configure(admin: AdminClient, topic: str, **settings: str) -> None:
    entries = [ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()
