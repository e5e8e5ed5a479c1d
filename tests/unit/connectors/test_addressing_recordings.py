"""Recordings of many venues, burst by burst: each frame lands under the key that its symbols ask for."""

from __future__ import annotations

import random
from typing import Any

import pytest

from connectors.live.addressing import Addressing, Arrivals
from connectors.venues.registry import build_instruments, venue
from tests.recorded import recorded

LISTED: dict[str, list[Any]] = {
    "bybit": ["BTC/USDT", "ETH/USDT"],
    "bybit_linear": ["BTC/USDT", "ETH/USDT", "SOL/USDT"],
    "okx": ["BTC/USDT", {"symbol": "UNI/USD", "venue_symbol": "UNI-USD-SWAP"}],
    "gemini": ["BTC/USD", "SOL/USD", {"symbol": "ETH/USDC", "venue_symbol": "ETHUSDCPERP"}],
    "bitstamp": ["ETH/USD"],
    "bitfinex": ["BFT/USD", "MANA/BTC", "IOTA/ETH"],
}


@pytest.mark.parametrize("exchange", list(LISTED))
def test_bursts_are_addressed_as_frame_by_frame(exchange: str) -> None:
    dice, one = random.Random(exchange), venue(exchange)
    instruments = build_instruments(exchange, LISTED[exchange])
    frames = recorded(exchange, instruments)
    addressing = Addressing(one, instruments, 4)
    connections = {number: Arrivals(one.router(), [], [], set()) for number in {frame.connection for frame in frames}}
    found: list[tuple[str, bytes]] = []
    at = 0
    while at < len(frames):
        burst = frames[at : at + dice.choice((1, 2, 10, 100))]
        at += len(burst)
        for arrivals in connections.values():
            arrivals.frames.clear()
            arrivals.times.clear()
        for frame in burst:
            connections[frame.connection].frames.append(frame.payload)
            connections[frame.connection].times.append(frame.received_us)
        records = addressing.addressed(list(connections.values())).records
        found += zip(records.column("key").to_pylist(), records.column("payload").to_pylist(), strict=True)
    expected = [(key, frame.payload) for frame in frames for key in [s.replace("/", "-") for s in frame.symbols] or [""]]
    assert sorted(found) == sorted(expected)
    assert {key for key, _ in found} == {"", *(i.key for i in instruments.listed)}


def test_the_first_trade_of_each_symbol_counts_as_past_where_the_venue_repeats_it() -> None:
    one, instruments = venue("okx"), build_instruments("okx", LISTED["okx"])
    frames = [frame for frame in recorded("okx", instruments) if frame.symbols]
    arrivals = Arrivals(one.router(), [f.payload for f in frames], [f.received_us for f in frames], set())
    past = Addressing(one, instruments, 4).addressed([arrivals]).past.tolist()
    seen: set[str] = set()
    for frame, is_past in zip(frames, past, strict=True):
        assert is_past == (frame.symbols[0] not in seen)
        seen.add(frame.symbols[0])
