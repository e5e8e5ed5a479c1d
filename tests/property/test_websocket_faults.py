"""After any sequence of faults and reloads: what is confirmed is what is wanted, once, and nothing vouched for was missed."""

from __future__ import annotations

import asyncio
import random as randomness
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.sockets.setup import Timing
from connectors.venues.feeding import Limit
from tests.live_driver import Live
from tests.live_exchange import EXCHANGES, SYMBOLS, BinanceLike, Exchange
from tests.virtual_time import run_virtual

SYMBOL = st.sampled_from(SYMBOLS)
SECONDS = st.sampled_from([0.0, 0.03, 0.2, 1.0, 4.0, 15.0])
# What goes wrong, with what it needs.
FAULT = st.one_of(
    st.tuples(st.just("drop"), st.integers(0, 7)),
    st.tuples(st.just("half_open"), st.integers(0, 7)),
    st.tuples(st.just("leave"), st.integers(0, 7)),
    st.tuples(st.just("lose_frame"), st.none()),
    st.tuples(st.just("down"), st.booleans()),
    st.tuples(st.just("mute"), st.booleans()),
    st.tuples(st.just("no_room"), st.booleans()),
    st.tuples(st.just("refuse"), st.sets(SYMBOL, max_size=3)),
    st.tuples(st.just("change"), st.lists(SYMBOL, unique=True, max_size=8)),
)
TIMING = Timing(
    answer=5.0, retry_refused=10.0, retry_refused_longest=40.0, first_backoff=0.5, longest_backoff=10.0, stable=20.0, overlap=3.0
)


async def _happen(live: Live, fault: str, what: object) -> None:
    exchange, wires = live.exchange, live.wires
    if fault == "down":
        exchange.is_down = bool(what)
    elif fault == "mute":
        exchange.is_mute = bool(what)
    elif fault == "no_room":
        (live.told.has_room.clear if what else live.told.has_room.set)()
    elif fault == "refuse":
        exchange.refused = {exchange.venue.venue_symbol(symbol) for symbol in what}  # type: ignore[attr-defined]
    elif fault == "change":
        await live.change(*what)  # type: ignore[misc]
    elif fault == "lose_frame":
        live.lose_frame()
    elif wires:
        wire = wires[what % len(wires)]  # type: ignore[operator]
        if fault == "drop":
            wire.end("reset")
        elif fault == "half_open":
            wire.session.is_half_open = True
        elif isinstance(exchange, BinanceLike):
            wire.push(BinanceLike.shutdown)


def _heal(live: Live) -> None:
    exchange = live.exchange
    exchange.is_down = exchange.is_mute = False
    exchange.refused = set()
    live.told.has_room.set()


@st.composite
def _stories(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "kind": draw(st.sampled_from(EXCHANGES)),
        "symbols": draw(st.lists(SYMBOL, unique=True, min_size=1)),
        "capacity": draw(st.integers(1, 8)),
        "together": draw(st.integers(1, 8)),
        "faults": draw(st.lists(st.tuples(SECONDS, FAULT), max_size=12)),
        "seed": draw(st.integers(0, 2**32)),
    }


def check(
    *, kind: type[Exchange], symbols: list[str], capacity: int, together: int, faults: list[tuple[float, tuple[str, object]]], seed: int
) -> None:
    async def story() -> None:
        jitter = randomness.Random(seed).random
        rules = {
            "symbols_per_connection": capacity,
            "symbols_per_message": together,
            "max_age_seconds": 60.0,
            "connects": Limit(20, 10.0),
        }
        async with Live(kind, symbols, timing=TIMING, random=jitter, **rules) as live:
            for seconds, (fault, what) in faults:
                await asyncio.sleep(seconds)
                await _happen(live, fault, what)
            _heal(live)
            # Longer than any wait; then to a moment at which no connection is being replaced.
            await asyncio.sleep(70)
            for _ in range(200):
                if len(live.exchange.sessions) == -(-len(live.symbols) // capacity) and live.told.asserted == sorted(live.symbols):
                    break
                await asyncio.sleep(0.5)
            assert live.told.asserted == sorted(live.symbols)
            assert len(live.exchange.sessions) == -(-len(live.symbols) // capacity)
            assert len(live.told.open) == len(live.exchange.sessions)
            names = [live.exchange.venue.venue_symbol(symbol) for symbol in live.symbols]
            assert sorted(name for session in live.exchange.sessions for name in session.subscribed) == sorted(names)

    run_virtual(story())


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(_stories())
def test_what_is_confirmed_is_what_is_wanted(story: dict[str, Any]) -> None:
    check(**story)


@pytest.mark.prove
@pytest.mark.timeout(1_800)
@settings(max_examples=1_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(_stories())
def test_what_is_confirmed_is_what_is_wanted_in_a_thousand_stories(story: dict[str, Any]) -> None:
    check(**story)
