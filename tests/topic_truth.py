"""What a raw topic holds, against the books of the market that filled it."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from connectors.topics.base import TopicLog
from connectors.venues.registry import build_instruments, venue
from market.record import KIND_MARKER, RawBatch, topic_name
from tests.e2e.live import Market


@dataclass
class Held:
    """One exchange's topic: where each trade stands first, and the records that are no frames."""

    first: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)  # (symbol, id) -> (partition, offset)
    others: list[dict[str, Any]] = field(default_factory=list)  # payload with kind, partition and offset

    def ids(self, symbol: str) -> list[int]:
        """All ids of a symbol, ascending."""
        return sorted(number for name, number in self.first if name == symbol)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The records of a kind, in order of partition and offset."""
        return [other for other in self.others if other["kind_of_record"] == kind]


def held(log: TopicLog, exchange: str, symbols: list[str]) -> Held:
    """Read a whole topic."""
    topic, found, decoder = topic_name(exchange), Held(), venue(exchange)
    instruments = build_instruments(exchange, symbols)
    for partition, end in enumerate(log.end_offsets(topic)):
        at = 0
        while at < end:
            records = log.read(topic, partition, at, 10_000)
            if records is None:  # a broker sends when it likes
                time.sleep(0.01)
                continue
            offsets = records.column("offset").to_pylist()
            trades = decoder.decode(RawBatch(exchange, topic, partition, "-", end, records), instruments).trades
            for row, code, number in zip(trades.row.tolist(), trades.symbol.tolist(), trades.trade_id.tolist(), strict=True):
                found.first.setdefault((instruments.listed[code].canonical, number), (partition, offsets[row]))
            for row, kind in enumerate(records.column("kind").to_pylist()):
                if kind is not None:
                    body = json.loads(records.column("payload")[row].as_py())
                    found.others.append({**body, "kind_of_record": kind, "partition": partition, "offset": offsets[row]})
            at = offsets[-1] + 1
    return found


def check_markers(found: Held, market: Market, exchange: str) -> int:
    """Fail on a marker that vouches for a trade which does not stand before it; return how many trades are vouched for."""
    vouched: set[tuple[str, int]] = set()
    books: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for marker in found.of_kind(KIND_MARKER):
        for symbol in marker["symbols"]:
            if symbol not in books:
                trades = market.trades(exchange, symbol)
                books[symbol] = list(zip(trades["trade_id"].to_list(), trades["timestamp"].to_list(), strict=True))
            for number, at in books[symbol]:
                if marker["from_us"] < at <= marker["to_us"]:
                    where = found.first.get((symbol, number))
                    assert where is not None, (marker, symbol, number, at)
                    assert where < (marker["partition"], marker["offset"]), (marker, symbol, number, at, where)
                    assert where[0] == marker["partition"]
                    vouched.add((symbol, number))
    return len(vouched)
