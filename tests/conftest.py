"""Servers that tests of any folder may ask for, and the signals that their processes start with."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Final

import pytest

from tests.servers.kafka import kafka_broker, own_kafka_broker

__all__ = ["kafka_broker", "own_kafka_broker"]
_LONGEST_FIRST: Final = ("e2e", "integration", "property", "unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The order within them stays random. With several workers nothing long is left over for one of them at the end.
    here = Path(__file__).parent
    items.sort(key=lambda item: _LONGEST_FIRST.index(item.path.relative_to(here).parts[0]))


def pytest_configure() -> None:
    # Under nohup SIGHUP is ignored, and so it would be in every process that the tests start and send it to.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
