"""Seeded raw topics: trades of three venues, Zipf over symbols, real frame layouts, markers as a feed writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from connectors.topics.base import APPEND_SCHEMA, TopicLog
from market.instrument import partition_of
from market.record import topic_name

START_US: Final = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
DELAY_US: Final = 5_000
SHARES: Final = {"binance": 0.5, "kraken": 0.25, "coinbase": 0.25}
QUOTES: Final = {"binance": "USDT", "kraken": "USD", "coinbase": "USD"}


@dataclass(frozen=True, slots=True)
class Workload:
    """What to generate. `trouble`: share of frames that come twice or swapped with their successor."""

    trades: int = 1_000_000
    symbols: int = 200
    rate: int = 1_000  # trades per second of event time, all venues
    trouble: float = 0.0
    seed: int = 7
    start_us: int = START_US
    first_id: int = 1_000_000
    exchanges: tuple[str, ...] = ("binance", "kraken", "coinbase")
    shares: dict[str, float] = field(default_factory=lambda: dict(SHARES))

    def symbols_of(self, exchange: str) -> list[str]:
        """Return the canonical symbols of an exchange."""
        count = max(1, round(self.symbols * self.shares[exchange]))
        return [f"C{n:03d}/{QUOTES[exchange]}" for n in range(count)]

    def instruments(self) -> dict[str, list[str]]:
        """Return what the instruments file says."""
        return {e: self.symbols_of(e) for e in self.exchanges}


def write_instruments(workload: Workload, path: Path) -> Path:
    """Write the instruments file of a workload."""
    path.write_text(json.dumps(workload.instruments()))  # JSON is YAML
    return path


def fill(log: TopicLog, workload: Workload, partitions: int = 4) -> int:
    """Write the whole workload; returns the number of trades."""
    count = 0
    for exchange in workload.exchanges:
        log.create(topic_name(exchange), partitions)
        for records, trades in batches(workload, exchange, partitions):
            log.append(topic_name(exchange), records)
            count += trades
    return count


def batches(workload: Workload, exchange: str, partitions: int = 4, step: int = 50_000) -> Iterator[tuple[dict[int, pa.RecordBatch], int]]:
    """Yield appends of about `step` trades: records by partition, and how many distinct trades they hold."""
    rng = np.random.default_rng([workload.seed, sum(exchange.encode())])
    symbols = workload.symbols_of(exchange)
    weights = 1.0 / np.arange(1, len(symbols) + 1)
    weights /= weights.sum()
    next_id = np.full(len(symbols), workload.first_id)
    total = round(workload.trades * workload.shares[exchange] / sum(workload.shares[e] for e in workload.exchanges))
    gap_us = 1e6 / (workload.rate * workload.shares[exchange])
    prices = np.exp(rng.uniform(-3, 11, len(symbols)))
    state = _Markers(exchange, symbols, partitions, workload.start_us)
    now = float(workload.start_us)
    for first in range(0, total, step):
        n = min(step, total - first)
        code = rng.choice(len(symbols), n, p=weights)
        times = (now + np.cumsum(rng.exponential(gap_us, n))).astype(np.int64) // 1000 * 1000
        now = float(times[-1])
        walk = prices[code] * np.exp(rng.normal(0, 1e-4, n))
        quantity = rng.exponential(1.0, n) + 1e-6
        buy = rng.random(n) < 0.5
        ids = np.empty(n, dtype=np.int64)
        for c in np.unique(code):
            mine = np.flatnonzero(code == c)
            ids[mine] = next_id[c] + np.arange(len(mine))
            next_id[c] += len(mine)
        columns = [c.tolist() for c in (code, ids, times, walk, quantity, buy, rng.random(n))]
        frames = _FRAMES[exchange](_Drawn(symbols, *columns))
        yield state.records(_disturbed(frames, workload.trouble, rng), last=first + n >= total), n


_Frame = tuple[int, int, str]  # symbol code, event time, payload


def _disturbed(frames: list[_Frame], share: float, rng: np.random.Generator) -> list[_Frame]:
    if not share:
        return frames
    out: list[_Frame] = []
    draw = rng.random(len(frames))
    for frame, chance in zip(frames, draw, strict=True):
        out.append(frame)
        if chance < share / 2:
            out.append(frame)
        elif chance < share and len(out) > 1:
            out[-1], out[-2] = out[-2], out[-1]
    return out


class _Markers:
    """Cuts frames into records and adds a marker per partition and second of event time."""

    def __init__(self, exchange: str, symbols: list[str], partitions: int, start_us: int) -> None:
        self.exchange = exchange
        self.keys = [s.replace("/", "-") for s in symbols]
        self.partition = [partition_of(s, partitions) for s in symbols]
        self.members = {p: [s for s in symbols if partition_of(s, partitions) == p] for p in range(partitions)}
        self.asserted = start_us - 1
        self.due = start_us + 1_000_000

    def records(self, frames: list[_Frame], *, last: bool) -> dict[int, pa.RecordBatch]:
        rows: dict[int, list[tuple[str, str, int, str | None, bytes]]] = {p: [] for p in self.members}
        seen = self.asserted
        for code, time, payload in frames:
            if time >= self.due:
                self._mark(rows, seen - 200_000)  # swapped and grouped frames are at most tens of ms apart
                self.due = time - time % 1_000_000 + 1_000_000
            seen = max(seen, time)
            rows[self.partition[code]].append((self.keys[code], "live", time + DELAY_US, None, payload.encode()))
        if last:
            self._mark(rows, seen)
        return {p: _to_batch(r) for p, r in rows.items() if r}

    def _mark(self, rows: dict[int, list[tuple[str, str, int, str | None, bytes]]], to_us: int) -> None:
        if to_us <= self.asserted:
            return
        for p, members in self.members.items():
            if members:
                body = {"feed": "bench", "exchange": self.exchange, "from_us": self.asserted, "to_us": to_us, "symbols": members}
                rows[p].append(("", "live", to_us + DELAY_US, "marker", json.dumps(body).encode()))
        self.asserted = to_us


def _to_batch(rows: list[tuple[str, str, int, str | None, bytes]]) -> pa.RecordBatch:
    key, source, received, kind, payload = zip(*rows, strict=True)
    columns = {"key": key, "source": source, "received_us": received, "kind": kind, "extra_headers": [None] * len(rows), "payload": payload}
    return pa.RecordBatch.from_pydict({f.name: list(columns[f.name]) for f in APPEND_SCHEMA}, schema=APPEND_SCHEMA)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Columns of drawn trades, one entry a trade, in order of time."""

    symbols: list[str]
    code: list[int]
    ids: list[int]
    times: list[int]
    price: list[float]
    quantity: list[float]
    buy: list[bool]
    close: list[float]  # uniform draws that decide where frames of several trades end


def _binance(d: _Drawn) -> list[_Frame]:
    names = [s.replace("/", "") for s in d.symbols]
    return [
        (
            c,
            t,
            f'{{"e":"trade","E":{t // 1000 + 1},"s":"{names[c]}","t":{i},"p":"{p:.8f}","q":"{q:.8f}","T":{t // 1000},"m":{"false" if b else "true"},"M":true}}',
        )
        for c, i, t, p, q, b in zip(d.code, d.ids, d.times, d.price, d.quantity, d.buy, strict=True)
    ]


def _grouped(d: _Drawn, mean: float) -> list[list[int]]:
    # Consecutive trades of one symbol share a frame; frames close at random so that they hold `mean` trades or so.
    open_groups: dict[int, list[int]] = {}
    order: list[list[int]] = []
    for index, c in enumerate(d.code):
        group = open_groups.get(c)
        if group is None or index - group[0] > 50:
            group = []
            open_groups[c] = group
            order.append(group)
        group.append(index)
        if d.close[index] < 1.0 / mean:
            del open_groups[c]
    return order


def _kraken(d: _Drawn) -> list[_Frame]:
    frames = []
    for group in _grouped(d, 1.4):
        last = group[-1]
        body = ",".join(
            f'{{"symbol":"{d.symbols[d.code[i]]}","side":"{"buy" if d.buy[i] else "sell"}","price":{d.price[i]:.4f},"qty":{d.quantity[i]:.8f},'
            f'"ord_type":"{"limit" if i % 3 else "market"}","trade_id":{d.ids[i]},"timestamp":"{_iso(d.times[i])}"}}'
            for i in group
        )
        frames.append((d.code[last], d.times[last], f'{{"channel":"trade","type":"update","data":[{body}]}}'))
    return frames


def _coinbase(d: _Drawn) -> list[_Frame]:
    frames = []
    for sequence, group in enumerate(_grouped(d, 2.5)):
        last = group[-1]
        name = d.symbols[d.code[last]].replace("/", "-")
        body = ",".join(
            f'{{"product_id":"{name}","trade_id":"{d.ids[i]}","price":"{d.price[i]:.2f}","size":"{d.quantity[i]:.8f}",'
            f'"time":"{_iso(d.times[i])}","side":"{"SELL" if d.buy[i] else "BUY"}"}}'
            for i in reversed(group)
        )
        head = f'{{"channel":"market_trades","timestamp":"{_iso(d.times[last])[:-1]}123Z","sequence_num":{sequence}'
        frames.append((d.code[last], d.times[last], f'{head},"events":[{{"type":"update","trades":[{body}]}}]}}'))
    return frames


def _iso(time_us: int) -> str:
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{time_us % 1_000_000:06d}Z"


_FRAMES = {"binance": _binance, "kraken": _kraken, "coinbase": _coinbase}
