"""The connection to a cluster: requests that somebody waits for, and what the clients report on the side.

Requests are tried again until a deadline, in short pieces: a client that cannot log in reports that on the side while its
requests only time out, and the reason is what a person needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from connectors.topics.checks import check_partitions, unknown_topic
from connectors.topics.kafka_errors import LOGIN_FAILED, reaction, translated
from connectors.topics.kafka_settings import KafkaSettings
from market.errors import ConfigError, PipelineError, SourceDisconnected

_FIRST_TRY_S: Final = 1.0  # a login that fails shows after the first
_TRY_S: Final = 3.0
_PAUSE_S: Final = 0.05
_ZERO_ID: Final = "A" * 22  # sixteen zero bytes in base64
NO_ID: Final = "without-id"
"""Generation of a topic on a broker that gives topics no ids: that it was created again then shows in its offsets only."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a topic this topic: it never changes in a topic's life."""

    generation: str
    partitions: int


class Trouble:
    """What a client last reported on the side; `down_since` is a monotonic time, None while brokers answer."""

    def __init__(self) -> None:
        self.last: KafkaError | None = None
        self.login: KafkaError | None = None
        self.down_since: float | None = None

    def report(self, error: KafkaError, *, down: bool = False) -> None:
        """Take an error from the client's callback; `down`: it says that no broker answers."""
        all_down = error.code() == KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001
        if error.code() in LOGIN_FAILED:
            self.login = error
        if not all_down or self.last is None:  # its text has no reason in it
            self.last = error
        if self.down_since is None and (down or all_down or self.login is not None):
            self.down_since = time.monotonic()

    def down_for(self) -> float:
        """Return for how many seconds no broker has answered, 0 while they do."""
        return 0.0 if self.down_since is None else time.monotonic() - self.down_since

    def clear(self) -> None:
        """Brokers answer."""
        self.last = self.login = self.down_since = None


class Cluster:
    """Requests about topics and offsets. Connects when first used."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self._admin: AdminClient | None = None
        self._trouble = Trouble()
        self._first: dict[str, Identity] = {}

    def names(self) -> list[str]:
        """Return the topics that are not the broker's own, sorted."""
        listed = self._ask(lambda admin, timeout: admin.list_topics(timeout=timeout).topics, "topics cannot be listed")
        return sorted(name for name in listed if not name.startswith("__"))

    def identity(self, topic: str) -> Identity:
        """Return id and partition count; `ConfigError` when there is no such topic."""
        found = self.find(topic)
        if found is None:
            raise unknown_topic(topic, self.names(), f"the Kafka cluster {self.settings.servers}")
        self._first.setdefault(topic, found)
        return found

    def first_identity(self, topic: str) -> Identity:
        """Return what `identity` found first, since then this object has spoken of that topic and no other."""
        return self._first.get(topic) or self.identity(topic)

    def find(self, topic: str) -> Identity | None:
        """Return id and partition count, or None when there is no such topic."""
        return self._ask(lambda admin, timeout: _described(admin, [topic], timeout)[topic], f"{topic} cannot be described")

    def identities(self, topics: Sequence[str], timeout_s: float) -> dict[str, Identity | None]:
        """Return id and partition count of topics, None for one that does not exist; one request, tried once.

        Raises:
            KafkaException: no answer within `timeout_s`, or an error of the driver.
        """
        return _described(self._client(), topics, timeout_s)

    def create(self, topic: str, partitions: int) -> bool:
        """Create a topic and wait until it can be used; return False when it was there already."""
        new = NewTopic(topic, partitions, self.settings.replication_factor, config=self.settings.topic())

        def request(admin: AdminClient, timeout: float) -> bool:
            try:
                admin.create_topics([new], request_timeout=timeout, operation_timeout=timeout)[topic].result()
            except KafkaException as error:
                if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                    return False
                raise
            return True

        created = self._ask(request, f"{topic} cannot be created")
        if created:
            self._first.pop(topic, None)
        deadline = time.monotonic() + self.settings.timeout_s
        while (found := self.find(topic)) is None:
            if time.monotonic() > deadline:
                raise SourceDisconnected(f"{topic} was created and is not known to the broker after {self.settings.timeout_s} s")
            time.sleep(_PAUSE_S)
        check_partitions(topic, partitions, found.partitions)
        return created

    def bounds(self, topic: str, partitions: Sequence[int], *, last: bool) -> list[int]:
        """Return the first offsets, or those after the last record or transaction mark, of some partitions."""
        spec = OffsetSpec.latest() if last else OffsetSpec.earliest()
        wanted = [TopicPartition(topic, p) for p in partitions]

        def request(admin: AdminClient, timeout: float) -> list[int]:
            futures = admin.list_offsets(
                dict.fromkeys(wanted, spec), request_timeout=timeout, isolation_level=ck.IsolationLevel.READ_COMMITTED
            )
            return [int(futures[tp].result().offset) for tp in wanted]

        return self._ask(request, f"offsets of {topic} cannot be read") if wanted else []

    def close(self) -> None:
        """Let go of the connection."""
        self._admin = None

    def _client(self) -> AdminClient:
        if self._admin is None:
            self._admin = connect(AdminClient, {**self.settings.connection(), "error_cb": self._trouble.report})
        return self._admin

    def _ask(self, request: Callable[[AdminClient, float], _T], doing: str) -> _T:
        admin = self._client()
        deadline = time.monotonic() + self.settings.timeout_s
        patience = _FIRST_TRY_S
        while True:
            left = deadline - time.monotonic()
            try:
                answer = request(admin, max(0.5, min(patience, left)))
            except KafkaException as error:
                admin.poll(0)  # brings what the client reports on the side
                if self._trouble.login is not None:
                    raise cannot_connect(self.settings, self._trouble) from error
                kind = reaction(error.args[0])
                if kind is not SourceDisconnected:
                    raise translated(error.args[0], doing) from error
                if left <= _PAUSE_S:
                    raise cannot_connect(self.settings, self._trouble, f"{doing}: {error.args[0].str()}") from error
                patience = _TRY_S
                time.sleep(_PAUSE_S)
            else:
                self._trouble.clear()
                return answer


def _described(admin: AdminClient, topics: Sequence[str], timeout_s: float) -> dict[str, Identity | None]:
    found: dict[str, Identity | None] = {}
    for topic, future in admin.describe_topics(ck.TopicCollection(list(topics)), request_timeout=timeout_s).items():
        try:
            description = future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            found[topic] = None
        else:
            generation = str(description.topic_id)
            found[topic] = Identity(NO_ID if generation == _ZERO_ID else generation, len(description.partitions))
    return found


def connect(client: Callable[[Mapping[str, Any]], _T], config: Mapping[str, Any]) -> _T:
    """Build a client; nothing is sent yet.

    Raises:
        ConfigError: the driver does not take the settings: a file that is not there, say.
    """
    try:
        return client(config)
    except (KafkaException, ValueError, TypeError) as error:
        reason = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        raise ConfigError(f"the Kafka client does not take these settings: {reason}") from error


def cannot_connect(settings: KafkaSettings, trouble: Trouble, else_text: str = "no broker answers") -> PipelineError:
    """Return the error for a cluster that does not answer, with the reason the client gave."""
    known = trouble.login or trouble.last
    where = f"Kafka at {settings.servers}"
    if known is None:
        return SourceDisconnected(f"{where}: {else_text}")
    if trouble.login is not None:
        protocol = settings.client.get("security.protocol")
        return ConfigError(
            f"{where} refuses the connection ({known.str()}); check the URL's security.protocol={protocol}, user and password"
        )
    return (
        translated(known, f"{where} cannot be reached")
        if reaction(known) is SourceDisconnected
        else SourceDisconnected(f"{where}: {known.str()}")
    )
