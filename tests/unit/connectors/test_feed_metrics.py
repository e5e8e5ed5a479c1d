from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from connectors.live.delays import Bounds
from connectors.live.feed_metrics import FeedCollector, FeedCounts, Latency
from connectors.live.outbox import Backlog
from connectors.live.outgoing import Outgoing, chunks_of
from tests.feeding import TOPIC, chunk, marker

T0 = 1_700_000_000_000_000


def shown(counts: FeedCounts, latency: Latency, backlog: Backlog) -> list[str]:
    registry = CollectorRegistry()
    registry.register(FeedCollector({"binance": counts}, latency, lambda: backlog, lambda: T0 + 5_000_000))
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_counts_are_shown_by_exchange() -> None:
    counts = FeedCounts(messages=3, bytes=10, trades=2, rejected=1, markers=4, connects=2, disconnects=1)
    counts.connections = {"a": T0 + 4_000_000, "b": T0 + 3_000_000}
    counts.delays = Bounds(-1_500_000, 250_000)
    counts.refill = lambda: {"gap_ids": 7}
    lines = shown(counts, Latency(lambda: T0), Backlog(100, 200, reachable=False))
    assert 'k2_feed_messages_total{exchange="binance"} 3.0' in lines
    assert 'k2_feed_disconnects_total{exchange="binance"} 1.0' in lines
    assert 'k2_feed_gap_ids_total{exchange="binance"} 7.0' in lines
    assert 'k2_feed_connections{exchange="binance"} 2.0' in lines
    assert 'k2_feed_silence_seconds{exchange="binance"} 2.0' in lines
    assert 'k2_feed_clock_offset_seconds{exchange="binance"} -1.5' in lines
    assert 'k2_feed_delay_seconds{exchange="binance"} 0.25' in lines
    assert 'k2_feed_queue_bytes{place="spill"} 200.0' in lines
    assert "k2_feed_topic_reachable 0.0" in lines


def test_nothing_is_claimed_before_anything_is_known() -> None:
    lines = shown(FeedCounts(), Latency(lambda: T0), Backlog(0, 0, reachable=True))
    assert not [line for line in lines if "silence" in line or "offset" in line or "latency" in line]


def test_latency_counts_frames_and_nothing_else() -> None:
    latency = Latency(lambda: T0 + 4_000)
    refill = Outgoing("BTC/USDT", b"x", T0, source="refill")
    latency(TOPIC, [chunk("a", "b"), marker("m"), *chunks_of(TOPIC, 2, [refill])])
    assert latency.sums_us == {TOPIC: 8_000}
    lines = shown(FeedCounts(), latency, Backlog(0, 0, reachable=True))
    assert 'k2_feed_topic_latency_seconds_bucket{exchange="binance",le="0.0025"} 0.0' in lines
    assert 'k2_feed_topic_latency_seconds_bucket{exchange="binance",le="0.005"} 2.0' in lines
    assert 'k2_feed_topic_latency_seconds_count{exchange="binance"} 2.0' in lines
    assert 'k2_feed_topic_latency_seconds_sum{exchange="binance"} 0.008' in lines


@pytest.mark.parametrize(("took_us", "bound"), [(900, 0.001), (1_000, 0.001), (1_001, 0.0025), (70_000_000, float("inf"))])
def test_quantile_is_an_upper_bound(took_us: int, bound: float) -> None:
    latency = Latency(lambda: T0 + took_us)
    assert latency.quantile(0.99) is None
    latency(TOPIC, [chunk("a")])
    assert latency.quantile(0.99) == bound


def test_quantile_takes_all_topics() -> None:
    latency = Latency(lambda: T0 + 900)
    latency(TOPIC, [chunk("a")])
    latency("raw.trades.kraken", [chunk("b", topic="raw.trades.kraken")])
    assert latency.quantile(0.5) == 0.001
