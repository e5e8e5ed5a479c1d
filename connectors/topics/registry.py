"""Topic logs by URL scheme."""

from __future__ import annotations

from typing import Any

from config.settings import Settings
from connectors.topics.base import TopicLog
from market.errors import ConfigError


def open_log(settings: Settings) -> TopicLog:
    """Return the raw topics of a platform; as `open_topics`."""
    return open_topics(settings.topics_url, **settings.topic_options())


def open_topics(url: str, **options: Any) -> TopicLog:
    """Return the log that `url` names: `sqlite:///path/topics.db` or `kafka://host:9092`.

    Nothing is connected or created yet. `options` go to the log's own constructor.

    Raises:
        ConfigError: no log has this scheme.
    """
    scheme, separator, _ = url.partition("://")
    # The drivers are imported when they are wanted: neither start-up nor an installation without one should pay for it.
    if separator and scheme == "sqlite":
        from connectors.topics.sqlite import SqliteTopics

        return SqliteTopics(url, **options)
    if separator and scheme == "kafka":
        from connectors.topics.kafka import KafkaTopics

        return KafkaTopics(url, **options)
    raise ConfigError(f"no topic log for {scheme!r}: use sqlite:///path/topics.db or kafka://host:9092")
