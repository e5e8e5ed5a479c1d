"""The tail of a topic that a Kafka broker holds."""

from __future__ import annotations

from typing import Any

from connectors.live.outgoing import Outgoing, by_partition, chunks_of
from connectors.refill.topic_tail import read_tail
from connectors.topics.kafka import KafkaTopics
from connectors.venues.registry import VENUES, build_instruments
from tests import frames as f
from tests.integration.kafka_log import log, topic

__all__ = ["log", "topic"]
LISTED = build_instruments("binance", ["BTC/USDT", "ETH/USDT"])


class Named:
    """A log whose one topic is the exchange's: a raw topic on a shared broker would be taken for one by flows."""

    def __init__(self, found: KafkaTopics, name: str) -> None:
        self._log, self._name = found, name

    def topics(self) -> list[str]:
        return ["raw.trades.binance"]

    def __getattr__(self, call: str) -> Any:
        return lambda _topic, *more: getattr(self._log, call)(self._name, *more)


def test_the_tail_is_read_backwards_from_a_broker(log: KafkaTopics, topic: str) -> None:
    ids = [*range(1_000, 31_000), *range(31_005, 61_000)]
    records = [Outgoing("BTC/USDT", f.binance_frame("BTCUSDT", i, "1", "1", f.NOW_MS), f.NOW_US) for i in ids]
    records.insert(100, Outgoing("ETH/USDT", f.binance_frame("ETHUSDT", 7, "1", "1", f.NOW_MS), f.NOW_US))
    for first in range(0, len(records), 10_000):
        for chunk in chunks_of(topic, 2, records[first : first + 10_000]):
            log.append(topic, by_partition([chunk]))
    tail = read_tail(Named(log, topic), VENUES["binance"], LISTED, at_least=20_000, at_least_us=0)  # type: ignore[arg-type]
    found = {symbol: [(run.first, run.last) for run in known.runs] for symbol, known in tail.known.items()}
    assert found["ETH/USDT"] == [(7, 7)]
    assert found["BTC/USDT"][1:] == [(31_005, 60_999)]
    assert found["BTC/USDT"][0][1] == 30_999
