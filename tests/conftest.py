"""Servers that tests of any folder may ask for, and the signals that their processes start with."""

from __future__ import annotations

import signal
import threading

from tests.servers.kafka import kafka_broker, own_kafka_broker

__all__ = ["kafka_broker", "own_kafka_broker"]


def pytest_configure() -> None:
    # Under nohup SIGHUP is ignored, and so it would be in every process that the tests start and send it to.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
