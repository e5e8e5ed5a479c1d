"""Fixtures that several modules of this folder share."""

from __future__ import annotations

from tests.integration.kafka_log import admin, log, topic
from tests.integration.warm_sink import endpoint, home, new_sink, reader

__all__ = ["admin", "endpoint", "home", "log", "new_sink", "reader", "topic"]
