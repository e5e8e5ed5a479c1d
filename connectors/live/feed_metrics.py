"""What a feed counts, and how Prometheus reads it.

Counts are plain numbers that the loop and the writer's thread set; they are put into Prometheus' form when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from connectors.live.delays import Bounds
from connectors.live.outbox import Backlog
from connectors.live.outgoing import Chunk
from market.interval import SECOND
from market.trade import Int64s

LATENCY_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BOUNDS_US: Final = np.array([round(b * SECOND) for b in LATENCY_BOUNDS_S], np.int64)


@dataclass(slots=True)
class FeedCounts:
    """One exchange. `connections`: last frame, epoch µs, by open connection; `delays`: receive - event of recent live trades."""

    messages: int = 0
    bytes: int = 0
    trades: int = 0
    rejected: int = 0
    markers: int = 0
    connects: int = 0
    disconnects: int = 0
    connections: dict[str, int] = field(default_factory=dict)
    delays: Bounds | None = None
    refill: Callable[[], Mapping[str, int]] = dict  # what the refill counts, by name


class Latency:
    """How long frames took from the socket to the topic's acknowledgement, by topic; a histogram that is filled a batch at a time."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self.counts: dict[str, Int64s] = {}
        self.sums_us: dict[str, int] = {}

    def __call__(self, topic: str, chunks: Sequence[Chunk]) -> None:
        """Take what a topic has acknowledged just now."""
        now_us = self._now_us()
        for chunk in chunks:
            records = chunk.records
            if chunk.markers or not records.num_rows or records.column("source")[0].as_py() != "live" or records.column("kind")[0].is_valid:
                continue
            took = now_us - records.column("received_us").to_numpy()
            counts = np.bincount(np.searchsorted(_BOUNDS_US, took), minlength=len(_BOUNDS_US) + 1)
            self.sums_us[topic] = self.sums_us.get(topic, 0) + int(took.sum())
            # Last: a scrape, in a thread of its own, reads the sums of the topics that it finds here.
            self.counts[topic] = self.counts.get(topic, np.zeros(len(_BOUNDS_US) + 1, np.int64)) + counts

    def quantile(self, share: float) -> float | None:
        """Return an upper bound (seconds) of the given share of all frames; None before the first."""
        if not self.counts:
            return None
        counts = np.sum(list(self.counts.values()), axis=0)
        at = int(np.searchsorted(np.cumsum(counts), share * counts.sum()))
        return LATENCY_BOUNDS_S[at] if at < len(LATENCY_BOUNDS_S) else float("inf")


class FeedCollector(Collector):
    """All of one feed process.

    Args:
        exchanges: counts by exchange id.
        latency: by topic; a topic's label is its exchange.
        backlog: what waits in the outbox.
        now_us: wall clock, epoch µs.
    """

    def __init__(
        self, exchanges: Mapping[str, FeedCounts], latency: Latency, backlog: Callable[[], Backlog], now_us: Callable[[], int]
    ) -> None:
        self._exchanges, self._latency, self._backlog, self._now_us = exchanges, latency, backlog, now_us

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        exchanges = dict(self._exchanges)  # the feed's thread may begin another one
        yield from self._counters(exchanges)
        yield from self._gauges(exchanges)
        yield from self._queue()
        latency = HistogramMetricFamily(
            "k2_feed_topic_latency_seconds", "From the socket to the raw topic's acknowledgement.", labels=["exchange"]
        )
        bounds = [*(str(bound) for bound in LATENCY_BOUNDS_S), "+Inf"]
        for topic, counts in sorted(self._latency.counts.items()):
            buckets = list(zip(bounds, np.cumsum(counts).tolist(), strict=True))
            latency.add_metric([topic.rsplit(".", 1)[-1]], buckets, self._latency.sums_us[topic] / SECOND)
        yield latency

    def _counters(self, exchanges: Mapping[str, FeedCounts]) -> Iterator[Metric]:
        values: dict[str, tuple[str, Callable[[FeedCounts], int]]] = {
            "messages": ("Frames received, control frames too.", lambda c: c.messages),
            "bytes": ("Bytes of those frames.", lambda c: c.bytes),
            "trades": ("Trades in those frames, repeated ones too.", lambda c: c.trades),
            "rejected": ("Frames or trades that cannot be decoded; they are in the raw topic all the same.", lambda c: c.rejected),
            "markers": ("Markers written.", lambda c: c.markers),
            "connects": ("Connections opened.", lambda c: c.connects),
            "disconnects": ("Connections ended, planned ones too.", lambda c: c.disconnects),
        }
        for name, (meaning, value) in values.items():
            family = CounterMetricFamily(f"k2_feed_{name}", meaning, labels=["exchange"])
            for exchange, counts in exchanges.items():
                family.add_metric([exchange], value(counts))
            yield family
        refill = {exchange: dict(counts.refill()) for exchange, counts in exchanges.items()}
        for name in dict.fromkeys(name for counted in refill.values() for name in counted):
            family = CounterMetricFamily(f"k2_feed_{name}", f"Refill: {name.replace('_', ' ')}.", labels=["exchange"])
            for exchange, counted in refill.items():
                family.add_metric([exchange], counted.get(name, 0))
            yield family

    def _gauges(self, exchanges: Mapping[str, FeedCounts]) -> Iterator[Metric]:
        now_us = self._now_us()
        open_now = GaugeMetricFamily("k2_feed_connections", "Open connections.", labels=["exchange"])
        silent = GaugeMetricFamily("k2_feed_silence_seconds", "Since the last frame, of the most silent connection.", labels=["exchange"])
        offset = GaugeMetricFamily(
            "k2_feed_clock_offset_seconds",
            "Smallest receive - event time of 10 minutes: latency less the venue's lead.",
            labels=["exchange"],
        )
        held = GaugeMetricFamily(
            "k2_feed_delay_seconds", "Largest receive - event time of 10 minutes; markers hold it back.", labels=["exchange"]
        )
        for exchange, counts in exchanges.items():
            times = list(counts.connections.values())
            open_now.add_metric([exchange], len(times))
            if times:
                silent.add_metric([exchange], max(0, now_us - min(times)) / SECOND)
            if counts.delays is not None:
                offset.add_metric([exchange], counts.delays.smallest / SECOND)
                held.add_metric([exchange], counts.delays.largest / SECOND)
        yield from (open_now, silent, offset, held)

    def _queue(self) -> Iterator[Metric]:
        backlog = self._backlog()
        queue = GaugeMetricFamily("k2_feed_queue_bytes", "Records on their way to the topics.", labels=["place"])
        queue.add_metric(["memory"], backlog.memory_bytes)
        queue.add_metric(["spill"], backlog.spill_bytes)
        yield queue
        yield GaugeMetricFamily("k2_feed_topic_reachable", "Whether the last append worked.", value=float(backlog.reachable))
