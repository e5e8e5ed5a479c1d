"""The flow most people would write: one item a trade, six event-time windows, floats, no store. What we compare with."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from connectors.topics.registry import open_topics
from market.interval import INTERVALS
from market.record import topic_name

EPOCH = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Candle:
    """One candle of floats."""

    open: float = 0.0
    high: float = float("-inf")
    low: float = float("inf")
    close: float = 0.0
    volume: float = 0.0
    count: int = 0


class _Part(StatefulSourcePartition):
    def __init__(self, url: str, exchange: str, partition: int) -> None:
        self.log, self.topic, self.partition, self.offset = open_topics(url), topic_name(exchange), partition, 0

    def next_batch(self) -> Iterable[bytes]:
        batch = self.log.read(self.topic, self.partition, self.offset, 10_000)
        if batch is None:
            raise StopIteration
        self.offset = batch.column("offset")[-1].as_py() + 1
        return [p for p, k in zip(batch.column("payload").to_pylist(), batch.column("kind").to_pylist(), strict=True) if k is None]

    def snapshot(self) -> int:
        return self.offset


@dataclass(frozen=True)
class _Source(FixedPartitionedSource):
    url: str
    exchange: str
    partitions: int

    def list_parts(self) -> list[str]:
        return [f"{p:02d}" for p in range(self.partitions)]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Part:
        return _Part(self.url, self.exchange, int(for_part))


class _Nowhere(StatelessSinkPartition):
    def write_batch(self, items: list[object]) -> None:
        pass


class _Null(DynamicSink):
    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Nowhere:
        return _Nowhere()


def _binance(payload: bytes) -> list[tuple[str, tuple[datetime, float, float]]]:
    d = json.loads(payload)
    return [(d["s"], (datetime.fromtimestamp(d["T"] / 1000, UTC), float(d["p"]), float(d["q"])))]


def _kraken(payload: bytes) -> list[tuple[str, tuple[datetime, float, float]]]:
    return [(t["symbol"], (datetime.fromisoformat(t["timestamp"]), t["price"], t["qty"])) for t in json.loads(payload)["data"]]


def _coinbase(payload: bytes) -> list[tuple[str, tuple[datetime, float, float]]]:
    return [
        (t["product_id"], (datetime.fromisoformat(t["time"]), float(t["price"]), float(t["size"])))
        for event in json.loads(payload)["events"]
        for t in event["trades"]
    ]


DECODE = {"binance": _binance, "kraken": _kraken, "coinbase": _coinbase}


def _fold(candle: Candle, trade: tuple[datetime, float, float]) -> Candle:
    _, price, quantity = trade
    if not candle.count:
        candle.open = price
    candle.high, candle.low, candle.close = max(candle.high, price), min(candle.low, price), price
    candle.volume += quantity
    candle.count += 1
    return candle


def _merge(left: Candle, right: Candle) -> Candle:
    return Candle(
        left.open, max(left.high, right.high), min(left.low, right.low), right.close, left.volume + right.volume, left.count + right.count
    )


def build(url: str, exchanges: list[str], partitions: int) -> Dataflow:
    """Wire per-trade maps and six `fold_window` per exchange, into nothing."""
    flow = Dataflow("naive")
    clock = win.EventClock(ts_getter=lambda t: t[0], wait_for_system_duration=timedelta(seconds=2))
    for exchange in exchanges:
        raw = op.input(f"in_{exchange}", flow, _Source(url, exchange, partitions))
        trades = op.flat_map(f"decode_{exchange}", raw, DECODE[exchange])
        for interval in INTERVALS:
            windower = win.TumblingWindower(length=timedelta(microseconds=interval.length_us), align_to=EPOCH)
            out = win.fold_window(f"fold_{exchange}_{interval.name}", trades, clock, windower, Candle, _fold, _merge)
            op.output(f"out_{exchange}_{interval.name}", op.map(f"row_{exchange}_{interval.name}", out.down, repr), _Null())
    return flow


def main() -> None:
    """`python -m benchmarks.naive URL PARTITIONS EXCHANGE…`: print the seconds the flow took."""
    url, partitions, *exchanges = sys.argv[1:]
    flow = build(url, exchanges, int(partitions))
    start = time.perf_counter()
    run_main(flow)
    print(json.dumps({"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
