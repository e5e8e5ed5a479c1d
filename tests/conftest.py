"""Servers that tests of any folder may ask for."""

from __future__ import annotations

from tests.servers.kafka import kafka_broker, own_kafka_broker

__all__ = ["kafka_broker", "own_kafka_broker"]
