"""The topic log on Apache Kafka, or a broker that speaks its protocol.

    kafka://[user@]host:9092[,host2:9092][?option=value&…]      options: docs/kafka.md

A topic's generation is its id in the cluster. Offsets may have holes: transactions and compaction leave them. Retention is
the broker's; append times are its clock.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final

import pyarrow as pa

from connectors.topics import kafka_tail
from connectors.topics.checks import check_partitions, check_records
from connectors.topics.kafka_client import Cluster
from connectors.topics.kafka_reader import Reader
from connectors.topics.kafka_settings import parse_url
from connectors.topics.kafka_writer import Writer


class KafkaTopics:
    """`TopicLog` on a cluster. Connects when first used; calls from several threads take turns.

    Args:
        url: brokers, user and options.
        password: of the URL's user; never part of the URL.

    Raises (all calls): as `TopicLog`; a broker that goes away while a partition is read is waited for, `patience` seconds.
    """

    atomic_appends: Final = False

    def __init__(self, url: str, *, password: str | None = None) -> None:
        self._settings = parse_url(url, password)
        self._cluster = Cluster(self._settings)
        self._reader = Reader(self._settings, self._cluster)
        self._writer = Writer(self._settings)
        self._lock = threading.RLock()

    def create(self, topic: str, partitions: int) -> None:
        """Create the topic with the URL's retention, compression and replication, unless it exists."""
        check_partitions(topic, partitions)
        with self._lock:
            if self._cluster.create(topic, partitions):
                self._reader.forget(topic)

    def topics(self) -> list[str]:
        """Return the names of all topics that are not the broker's own, sorted."""
        with self._lock:
            return self._cluster.names()

    def partitions(self, topic: str) -> int:
        """Return the partition count."""
        with self._lock:
            return self._cluster.identity(topic).partitions

    def generation(self, topic: str) -> str:
        """Return the topic's id in the cluster."""
        with self._lock:
            return self._cluster.identity(topic).generation

    def start_offsets(self, topic: str) -> list[int]:
        """Return the first offset still held, by partition."""
        with self._lock:
            return self._cluster.bounds(topic, range(self.partitions(topic)), last=False)

    def end_offsets(self, topic: str) -> list[int]:
        """Return the offset after the last record, by partition; what is not committed or was taken back does not count."""
        with self._lock:
            every = range(self.partitions(topic))
            bounds = zip(self._cluster.bounds(topic, every, last=False), self._cluster.bounds(topic, every, last=True), strict=True)
            return kafka_tail.ends(self._settings.connection(), topic, list(bounds), self._settings.timeout_s)

    def read(self, topic: str, partition: int, offset: int, max_records: int) -> pa.RecordBatch | None:
        """Return records as `TopicLog.read` says.

        The first read of a partition, or one that does not go on where the last one ended, asks the broker about offsets first.
        """
        with self._lock:
            return self._reader.read(topic, partition, offset, max_records)

    def append(self, topic: str, records: Mapping[int, pa.RecordBatch]) -> None:
        """Append records; returns when all replicas in sync have all of them, raises when not, and then some may be there."""
        with self._lock:
            check_records(topic, records, self._cluster.first_identity(topic).partitions)
            self._writer.append(topic, records)

    def append_all(self, records: Mapping[str, Mapping[int, pa.RecordBatch]]) -> None:
        """Append to one topic after the other."""
        for topic, batches in records.items():
            self.append(topic, batches)

    def expire(self, topic: str, before: Mapping[int, int], older_than_us: int) -> int:
        """Do nothing and return 0: the broker expires records by the topic's `retention.ms`."""
        del topic, before, older_than_us
        return 0

    def close(self) -> None:
        """Release connections; the object connects again when it is used again."""
        with self._lock:
            self._reader.close()
            self._writer.discard()
            self._cluster.close()
