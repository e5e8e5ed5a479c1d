"""What is asked for, what the venue says to it, and what a reload of the list changes."""

from __future__ import annotations

import asyncio
import json

import pytest

from connectors.sockets.setup import Timing
from connectors.venues.feeding import Notice, NoticeKind
from tests.live_driver import Live
from tests.live_exchange import EXCHANGES, SYMBOLS, BinanceLike, CoinbaseLike, Exchange, KrakenLike
from tests.virtual_time import run_virtual

THREE = SYMBOLS[:3]
every_exchange = pytest.mark.parametrize("kind", EXCHANGES)


@every_exchange
def test_a_refused_symbol_ends_with_the_reason_and_the_others_go_on(kind: type[Exchange]) -> None:
    def refuse(exchange: Exchange) -> None:
        exchange.refused = {exchange.venue.venue_symbol("ETH/USD"), exchange.venue.venue_symbol("DOT/USD")}

    async def story() -> None:
        async with Live(kind, SYMBOLS, prepare=refuse) as live:
            await asyncio.sleep(30)
            assert live.told.asserted == sorted(set(SYMBOLS) - {"ETH/USD", "DOT/USD"})
            (told,) = live.told.connections.values()
            assert sorted(symbol for symbol, _ in told.ended) == ["DOT/USD", "ETH/USD"]
            assert all(reason.startswith("refused: ") for _, reason in told.ended)
            (state,) = live.driver.connections
            assert sorted(state.refused) == ["DOT/USD", "ETH/USD"]

    run_virtual(story())


@every_exchange
def test_a_refused_symbol_is_asked_for_again_after_a_while(kind: type[Exchange]) -> None:
    async def story() -> None:
        timing = Timing(retry_refused=60.0)
        async with Live(kind, THREE, timing=timing, prepare=lambda e: e.refused.add(e.venue.venue_symbol("ETH/USD"))) as live:
            await asyncio.sleep(30)
            live.exchange.refused.clear()
            assert "ETH/USD" not in live.told.asserted
            await asyncio.sleep(40)
            assert live.told.asserted == sorted(THREE)
            assert len(live.told.connections) == 1

    run_virtual(story())


@every_exchange
def test_a_connection_whose_subscriptions_nobody_answers_has_failed(kind: type[Exchange]) -> None:
    async def story() -> None:
        async with Live(kind, THREE, timing=Timing(answer=10.0), prepare=lambda e: setattr(e, "is_mute", True)) as live:
            await asyncio.sleep(12)
            first = next(iter(live.told.connections.values()))
            assert first.lost == "no answer to a subscription within 10 s"
            live.exchange.is_mute = False
            await asyncio.sleep(20)
            assert live.told.asserted == sorted(THREE)

    run_virtual(story())


def test_symbols_that_alone_are_not_answered_do_not_cost_the_others_their_connection() -> None:
    class Forgetful(KrakenLike):
        def _answer(self, session: object, message: object, symbol: str) -> bytes:
            return b"" if symbol == "ETH/USD" else super()._answer(session, message, symbol)  # type: ignore[arg-type]

        def answers(self, session: object, message: object) -> list[bytes]:  # type: ignore[override]
            return [frame for frame in super().answers(session, message) if frame]  # type: ignore[arg-type]

    async def story() -> None:
        async with Live(Forgetful, THREE, timing=Timing(answer=5.0)) as live:
            await asyncio.sleep(4)
            assert live.told.asserted == ["BTC/USD", "SOL/USD"]
            await asyncio.sleep(20)
            (told,) = live.told.connections.values()
            assert told.ended == [("ETH/USD", "refused: not answered")]
            assert live.told.asserted == ["BTC/USD", "SOL/USD"]

    run_virtual(story())


def test_the_connection_that_needs_a_channel_to_stay_alive_asks_for_it_once() -> None:
    async def story() -> None:
        async with Live(CoinbaseLike, THREE) as live:
            await asyncio.sleep(3)
            await live.change(*SYMBOLS[:5])
            await asyncio.sleep(3)
            channels = [json.loads(text)["channel"] for text in live.wires[0].session.heard]
            assert channels.count("heartbeats") == 1

    run_virtual(story())


@every_exchange
def test_a_reload_ends_what_is_gone_at_once_and_disturbs_nothing_that_stays(kind: type[Exchange]) -> None:
    async def story() -> None:
        async with Live(kind, THREE) as live:
            await asyncio.sleep(3)
            await live.change("ETH/USD", "SOL/USD", "XRP/USD")
            (told,) = live.told.connections.values()
            assert told.ended == [("BTC/USD", "unsubscribed")]
            assert live.told.asserted == ["ETH/USD", "SOL/USD"]
            await asyncio.sleep(3)
            assert live.told.asserted == ["ETH/USD", "SOL/USD", "XRP/USD"]
            assert told.confirmed["ETH/USD"] < told.confirmed["XRP/USD"]
            assert live.exchange.sessions[0].subscribed == {kind().venue.venue_symbol(s) for s in live.symbols}

    run_virtual(story())


def test_where_nothing_ends_a_subscription_a_new_connection_does() -> None:
    async def story() -> None:
        async with Live(KrakenLike, THREE) as live:
            await asyncio.sleep(40)
            type(live.exchange.venue).unsubscriptions = lambda *_: []  # type: ignore[method-assign]
            await live.change("ETH/USD", "SOL/USD", "XRP/USD")
            assert live.told.asserted == ["ETH/USD", "SOL/USD"]
            for _ in range(200):
                await asyncio.sleep(0.1)
                assert {"ETH/USD", "SOL/USD"} <= set(live.told.asserted)
            assert live.told.asserted == ["ETH/USD", "SOL/USD", "XRP/USD"]
            assert [session.subscribed for session in live.exchange.sessions] == [{"ETH/USD", "SOL/USD", "XRP/USD"}]

    run_virtual(story())


@every_exchange
def test_a_symbol_that_leaves_and_comes_back_at_once_is_confirmed_anew(kind: type[Exchange]) -> None:
    async def story() -> None:
        async with Live(kind, THREE) as live:
            for _ in range(3):
                await live.change("ETH/USD")
                await live.change("ETH/USD", "BTC/USD")
                await asyncio.sleep(0.07)
            await asyncio.sleep(10)
            assert live.told.asserted == ["BTC/USD", "ETH/USD"]
            assert live.exchange.sessions[0].subscribed == {kind().venue.venue_symbol(s) for s in live.symbols}

    run_virtual(story())


@every_exchange
def test_a_list_that_shrinks_moves_symbols_to_fewer_connections_without_a_hole(kind: type[Exchange]) -> None:
    async def story() -> None:
        async with Live(kind, SYMBOLS, symbols_per_connection=2) as live:
            await asyncio.sleep(5)
            assert len(live.told.open) == 4
            begun = live.now
            stay = ("BTC/USD", "ETH/USD", "SOL/USD")
            await live.change(*stay)
            while live.now < begun + 40:
                await asyncio.sleep(0.1)
                assert set(live.told.asserted) == set(stay)
            assert live.told.asserted == sorted(stay)
            assert len(live.told.open) == 2
            for symbol in stay:
                made = {n for at, n in live.told.made[live.exchange.venue.venue_symbol(symbol)] if begun < at < live.now - 1}
                assert made <= live.told.ever_received(symbol)

    run_virtual(story())


def test_a_reload_in_the_middle_of_a_move_settles_on_one_connection_each() -> None:
    async def story() -> None:
        async with Live(KrakenLike, SYMBOLS, symbols_per_connection=2, timing=Timing(overlap=3.0)) as live:
            await asyncio.sleep(5)
            for symbols in (SYMBOLS[:5], SYMBOLS[3:6], SYMBOLS[:1], SYMBOLS[:7], SYMBOLS[2:5]):
                await live.change(*symbols)
                await asyncio.sleep(1.7)
            await asyncio.sleep(20)
            assert live.told.asserted == sorted(SYMBOLS[2:5])
            assert len(live.exchange.sessions) == 2

    run_virtual(story())


def test_an_empty_list_closes_every_connection_and_a_longer_one_opens_them_again() -> None:
    async def story() -> None:
        async with Live(KrakenLike, THREE) as live:
            await asyncio.sleep(3)
            await live.change()
            await asyncio.sleep(3)
            assert live.told.open == []
            await live.change(*SYMBOLS[2:4])
            await asyncio.sleep(3)
            assert live.told.asserted == sorted(SYMBOLS[2:4])

    run_virtual(story())


@every_exchange
def test_an_old_connection_is_replaced_before_its_time_without_a_hole(kind: type[Exchange]) -> None:
    async def story() -> None:
        async with Live(kind, THREE, max_age_seconds=100.0, random=lambda: 0.0) as live:
            await asyncio.sleep(3)
            while live.now < 300:
                await asyncio.sleep(0.1)
                assert set(live.told.asserted) == set(THREE)
            ages = [told.lost for told in live.told.connections.values() if told.lost is not None]
            assert ages == ["replaced", "replaced", "replaced"]
            for symbol in THREE:
                made = {n for at, n in live.told.made[live.exchange.venue.venue_symbol(symbol)] if 2 < at < live.now - 1}
                assert made <= live.told.ever_received(symbol)

    run_virtual(story())


def test_a_connection_that_the_venue_wants_gone_is_replaced_before_it_goes() -> None:
    async def story() -> None:
        async with Live(BinanceLike, THREE) as live:
            await asyncio.sleep(60)
            wire = live.wires[0]
            wire.push(BinanceLike.shutdown, BinanceLike.shutdown)
            await asyncio.sleep(1)
            assert live.told.asserted == sorted(THREE * 2)
            wire.end("closed by the venue: 1001")
            assert live.told.asserted == sorted(THREE)

    run_virtual(story())


def test_a_venue_that_wants_every_connection_gone_is_not_stormed() -> None:
    class Restless(BinanceLike):
        def answers(self, session: object, message: object) -> list[bytes]:  # type: ignore[override]
            return [*super().answers(session, message), self.shutdown]  # type: ignore[arg-type]

    async def story() -> None:
        async with Live(Restless, THREE, timing=Timing(longest_backoff=30.0)) as live:
            await asyncio.sleep(300)
            assert set(live.told.asserted) == set(THREE)
            assert len(live.connector.attempts) < 40

    run_virtual(story())


def test_a_replacement_that_fails_leaves_the_old_connection_alone() -> None:
    async def story() -> None:
        async with Live(BinanceLike, THREE, max_age_seconds=100.0, random=lambda: 0.0) as live:
            await asyncio.sleep(50)
            live.exchange.is_down = True
            await asyncio.sleep(200)
            assert live.told.asserted == sorted(THREE)
            assert len(live.told.connections) == 1
            live.exchange.is_down = False
            live.exchange.is_mute = True
            await asyncio.sleep(100)
            assert set(live.told.asserted) == set(THREE)
            live.exchange.is_mute = False
            await asyncio.sleep(60)
            assert len(live.exchange.sessions) == 1
            assert live.told.asserted == sorted(THREE)

    run_virtual(story())


def test_a_reload_while_a_connection_is_replaced_counts_on_both() -> None:
    async def story() -> None:
        async with Live(KrakenLike, THREE, max_age_seconds=100.0, random=lambda: 0.0) as live:
            await live.connected(2)
            await live.change("ETH/USD", "SOL/USD", "XRP/USD")
            assert "BTC/USD" not in live.told.asserted
            await asyncio.sleep(20)
            assert live.told.asserted == ["ETH/USD", "SOL/USD", "XRP/USD"]
            assert len(live.exchange.sessions) == 1

    run_virtual(story())


def test_a_venue_without_acks_is_confirmed_by_its_frames() -> None:
    class Ackless(KrakenLike):
        def answers(self, session: object, message: object) -> list[bytes]:  # type: ignore[override]
            super().answers(session, message)  # type: ignore[arg-type]
            return []

    async def story() -> None:
        async with Live(Ackless, THREE, confirms_by_data=True, max_age_seconds=200.0) as live:
            await asyncio.sleep(3)
            assert live.told.asserted == sorted(THREE)
            await asyncio.sleep(300)
            assert live.told.asserted == sorted(THREE)
            assert [told.lost for told in live.told.connections.values()] == ["replaced", None]

    run_virtual(story())


def test_a_replacement_whose_venue_sends_no_acks_does_not_wait_for_quiet_symbols() -> None:
    class Quiet(KrakenLike):
        def answers(self, session: object, message: object) -> list[bytes]:  # type: ignore[override]
            return []

    async def story() -> None:
        async with Live(Quiet, THREE, confirms_by_data=True, max_age_seconds=100.0, timing=Timing(answer=5.0)) as live:
            await asyncio.sleep(160)
            assert [told.lost for told in live.told.connections.values()] == ["replaced", None]

    run_virtual(story())


def test_a_complaint_that_refuses_nothing_changes_nothing() -> None:
    async def story() -> None:
        async with Live(KrakenLike, THREE) as live:
            await asyncio.sleep(3)
            live.wires[0].push(b'{"error":"Exceeded msg rate","method":"subscribe","success":false}')
            await asyncio.sleep(3)
            assert live.told.asserted == sorted(THREE)

    run_virtual(story())


def test_an_answer_to_nothing_that_was_asked_changes_nothing() -> None:
    async def story() -> None:
        async with Live(BinanceLike, THREE) as live:
            await asyncio.sleep(3)
            live.wires[0].push(b'{"result":null,"id":77}', b'{"code":2,"msg":"Invalid request","id":78}')
            await asyncio.sleep(3)
            assert live.told.asserted == sorted(THREE)

    run_virtual(story())


def test_a_refusal_that_names_no_request_is_of_the_message_sent_last() -> None:
    class Vague(CoinbaseLike):
        def answers(self, session: object, message: object) -> list[bytes]:  # type: ignore[override]
            if "ETH-USD" in message.get("product_ids", []):  # type: ignore[attr-defined]
                return [b'{"type":"error","message":"failure to subscribe"}']
            return super().answers(session, message)  # type: ignore[arg-type]

    async def story() -> None:
        async with Live(Vague, THREE) as live:
            assert live.exchange.venue.notice(b'{"type":"error","message":"failure to subscribe"}') == Notice(
                NoticeKind.REFUSED, detail="failure to subscribe"
            )
            await asyncio.sleep(10)
            assert live.told.asserted == ["BTC/USD", "SOL/USD"]
            (told,) = live.told.connections.values()
            assert told.ended == [("ETH/USD", "refused: failure to subscribe")]

    run_virtual(story())


def test_a_stop_while_a_replaced_connection_closes_tells_its_end() -> None:
    async def story() -> None:
        async with Live(BinanceLike, THREE, timing=Timing(overlap=3.0)) as live:
            await asyncio.sleep(20)
            live.wires[0].push(BinanceLike.shutdown)
            await live.connected(2)
            closing = live.wires[0]
            while not closing.is_closing:  # noqa: ASYNC110 - the clock is virtual
                await asyncio.sleep(0.01)
            assert len(live.told.open) == 2
        assert {told.lost for told in live.told.connections.values()} == {"replaced", "stopped"}

    run_virtual(story())
