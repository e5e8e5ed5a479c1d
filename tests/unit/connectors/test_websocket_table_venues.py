"""The driver with the venues that are read by a table: their acks, refusals, pings and wishes are understood."""

from __future__ import annotations

import asyncio

import pytest

from tests.live_driver import Live
from tests.live_exchange import SYMBOLS, Exchange
from tests.live_table_exchanges import TABLE_EXCHANGES, BitfinexLike, BitstampLike, BybitLike, OkxLike
from tests.virtual_time import run_virtual

THREE = SYMBOLS[:3]
every_exchange = pytest.mark.parametrize("kind", TABLE_EXCHANGES.values(), ids=TABLE_EXCHANGES)


@every_exchange
def test_symbols_are_confirmed_and_again_after_a_loss(kind: type[Exchange]) -> None:
    async def story() -> None:
        async with Live(kind, THREE) as live:
            await asyncio.sleep(4)
            assert live.told.asserted == sorted(THREE)
            live.wires[0].end("reset by peer")
            assert live.told.asserted == []
            await asyncio.sleep(6)
            assert live.told.asserted == sorted(THREE)
            assert len(live.told.connections) == 2

    run_virtual(story())


@every_exchange
def test_a_symbol_that_is_refused_costs_no_other(kind: type[Exchange]) -> None:
    def prepare(exchange: Exchange) -> None:
        exchange.refused.add(exchange.venue.venue_symbol(THREE[1]))

    async def story() -> None:
        async with Live(kind, THREE, prepare=prepare) as live:
            await asyncio.sleep(8)
            assert live.told.asserted == sorted([THREE[0], THREE[2]])
            (told,) = live.told.connections.values()
            assert [symbol for symbol, _ in told.ended] == [THREE[1]]

    run_virtual(story())


@every_exchange
def test_symbols_come_and_go_without_losing_a_trade(kind: type[Exchange]) -> None:
    async def story() -> None:
        async with Live(kind, THREE) as live:
            await asyncio.sleep(4)
            await live.change(*SYMBOLS[1:5])
            await asyncio.sleep(40)
            assert live.told.asserted == sorted(SYMBOLS[1:5])
            named = {live.exchange.venue.venue_symbol(symbol) for symbol in SYMBOLS[1:5]}
            assert {name for session in live.exchange.sessions for name in session.subscribed} == named

    run_virtual(story())


@pytest.mark.parametrize("kind", [BitstampLike, BitfinexLike])
def test_a_wish_for_a_new_connection_is_granted_before_the_old_one_goes(kind: type[BitstampLike | BitfinexLike]) -> None:
    async def story() -> None:
        async with Live(kind, THREE) as live:
            await asyncio.sleep(4)
            live.wires[0].push(kind.shutdown)
            await asyncio.sleep(40)
            assert live.told.asserted == sorted(THREE)
            assert len(live.told.connections) == 2
            for symbol in THREE:
                ids = live.told.ever_received(symbol)
                assert ids == set(range(min(ids), max(ids) + 1))

    run_virtual(story())


@pytest.mark.parametrize(("kind", "text"), [(BybitLike, '{"op":"ping"}'), (OkxLike, "ping"), (BitfinexLike, '{"event":"ping"}')])
def test_pings_of_the_venues_own_are_sent(kind: type[Exchange], text: str) -> None:
    async def story() -> None:
        async with Live(kind, THREE) as live:
            await asyncio.sleep(65)
            assert live.wires[0].session.heard.count(text) == 3
            assert live.told.asserted == sorted(THREE)

    run_virtual(story())
