"""Appending: an idempotent producer, and an append that returns when all replicas in sync have everything."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from connectors.topics.kafka_client import Trouble, cannot_connect, connect
from connectors.topics.kafka_errors import translated
from connectors.topics.kafka_records import to_messages
from connectors.topics.kafka_settings import KafkaSettings

_LOOK_S: Final = 0.2  # how often a wait looks for what went wrong
_PURGE_S: Final = 2.0
_LOGIN_S: Final = 5.0  # a broker that starts may refuse a login that it soon takes


class _Reports:
    """What a producer reports while it sends: its first failed delivery, and trouble on the side."""

    def __init__(self) -> None:
        self.trouble = Trouble()
        self.failure: KafkaError | None = None

    def delivered(self, error: KafkaError | None, _: Message) -> None:
        """Take a delivery report; only failed deliveries are reported."""
        if error is not None and self.failure is None:
            self.failure = error


class Writer:
    """One producer for all topics. An append that failed leaves nothing behind that is still to be sent."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._producer: Producer | None = None
        self._reports = _Reports()

    def append(self, topic: str, records: Mapping[int, pa.RecordBatch]) -> None:
        """Append records as `TopicLog.append` promises.

        Raises:
            SourceDisconnected: no acknowledgement in `delivery.timeout`; some may have been written.
            ConfigError: the broker does not take them, and says why: too large, not allowed.
        """
        producer = self._client()
        try:
            for partition, batch in records.items():
                self._produce(producer, topic, partition, batch)
            while producer.flush(_LOOK_S):
                self._look(topic)
            self._look(topic)
        except KafkaException as error:
            self.discard()
            raise translated(error.args[0], f"{topic} cannot be written") from error
        except BaseException:  # an interrupt too: nothing may be written after this call has ended
            self.discard()
            raise
        self._reports.trouble.clear()

    def discard(self) -> None:
        """Drop what was not sent, and the producer with its sequence numbers."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaException):
                producer.purge()
                producer.flush(_PURGE_S)

    def _produce(self, producer: Producer, topic: str, partition: int, batch: pa.RecordBatch) -> None:
        produce = producer.produce
        for key, payload, headers in to_messages(batch):
            while True:
                try:
                    produce(topic, payload, key, partition, headers=headers)
                except BufferError:
                    producer.poll(_LOOK_S)
                    self._look(topic)
                else:
                    break

    def _client(self) -> Producer:
        if self._producer is None:
            self._reports = _Reports()  # an older producer may still report
            config: dict[str, Any] = {
                **self._settings.connection(),
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": self._settings.compression,
                "compression.level": 1 if self._settings.compression == "zstd" else -1,
                "linger.ms": 2,
                "batch.size": 1 << 20,
                "message.max.bytes": self._settings.max_message_bytes,
                "delivery.timeout.ms": self._settings.delivery_timeout_s * 1_000,
                "delivery.report.only.error": True,
                "on_delivery": self._reports.delivered,
                "error_cb": self._reports.trouble.report,
            }
            self._producer = connect(Producer, config)
        return self._producer

    def _look(self, topic: str) -> None:
        trouble, failure = self._reports.trouble, self._reports.failure
        if trouble.login is not None and trouble.down_for() > _LOGIN_S:
            raise cannot_connect(self._settings, trouble)
        if failure is None:
            return
        if failure.code() == KafkaError._MSG_TIMED_OUT and trouble.last is not None:  # noqa: SLF001 it says why
            raise cannot_connect(self._settings, trouble)
        raise translated(failure, f"{topic} cannot be written")
