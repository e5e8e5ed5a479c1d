"""Connections: made, proved alive, lost, made again; with limits kept and nothing vouched for that was not received."""

from __future__ import annotations

import asyncio
import itertools
from itertools import pairwise

import pytest

from connectors.sockets.setup import Timing
from connectors.sockets.wire import ConnectFailed, WireEvents
from connectors.venues.feeding import Limit
from market.errors import ConfigError
from tests.live_driver import Live
from tests.live_exchange import EXCHANGES, SYMBOLS, BinanceLike, CoinbaseLike, Exchange, KrakenLike
from tests.virtual_time import run_virtual

THREE = SYMBOLS[:3]
every_exchange = pytest.mark.parametrize("kind", EXCHANGES)


@every_exchange
def test_symbols_are_confirmed_after_the_frame_that_says_so(kind: type[Exchange]) -> None:
    async def story() -> None:
        async with Live(kind, THREE) as live:
            await asyncio.sleep(3)
            assert live.told.asserted == sorted(THREE)
            (told,) = live.told.connections.values()
            assert told.instruments == THREE
            assert all(frames_before > 0 for frames_before in told.confirmed.values())

    run_virtual(story())


@every_exchange
def test_a_lost_connection_is_replaced_under_a_new_name(kind: type[Exchange]) -> None:
    async def story() -> None:
        async with Live(kind, THREE) as live:
            await asyncio.sleep(3)
            live.wires[0].end("reset by peer")
            assert live.told.asserted == []
            await asyncio.sleep(5)
            assert live.told.asserted == sorted(THREE)
            names = list(live.told.connections)
            assert names == [f"{kind.exchange}-test-0001", f"{kind.exchange}-test-0002"]
            assert live.told.connections[names[0]].lost == "reset by peer"

    run_virtual(story())


@every_exchange
def test_a_half_open_connection_is_dropped_after_the_silence_that_the_venue_allows(kind: type[Exchange]) -> None:
    async def story() -> None:
        async with Live(kind, THREE, silence_seconds=7.0) as live:
            await asyncio.sleep(3)
            session = live.wires[0].session
            session.is_half_open = True
            await asyncio.sleep(6)
            assert session in live.exchange.sessions
            await asyncio.sleep(3)
            assert session not in live.exchange.sessions
            await asyncio.sleep(3)
            assert live.told.asserted == sorted(THREE)
            assert next(iter(live.told.connections.values())).lost == "nothing heard for 7 s"

    run_virtual(story())


def test_a_quiet_connection_is_asked_for_proofs_of_life_and_a_busy_one_is_not() -> None:
    async def story() -> None:
        async with Live(BinanceLike, THREE, trade_seconds=0.3) as live:
            await asyncio.sleep(20)
            assert live.wires[0].pings == 0
        async with Live(BinanceLike, THREE, trade_seconds=1e6, proof_seconds=1.0) as live:
            await asyncio.sleep(20)
            (told,) = live.told.connections.values()
            assert 15 <= told.proofs <= 20

    run_virtual(story())


def test_pongs_prove_nothing_where_frames_are_numbered() -> None:
    async def story() -> None:
        async with Live(CoinbaseLike, THREE, trade_seconds=4.0) as live:
            await asyncio.sleep(20)
            assert live.wires[0].pings > 0
            assert [told.proofs for told in live.told.connections.values()] == [0]

    run_virtual(story())


def test_the_venue_s_own_ping_is_sent_on_schedule_whatever_the_traffic() -> None:
    async def story() -> None:
        async with Live(KrakenLike, THREE, ping_seconds=5.0) as live:
            await asyncio.sleep(26)
            assert live.wires[0].session.heard.count('{"method":"ping"}') == 5

    run_virtual(story())


def test_waits_before_connecting_double_up_to_a_cap_with_full_jitter() -> None:
    async def story() -> None:
        timing = Timing(first_backoff=1.0, longest_backoff=8.0)
        async with Live(BinanceLike, THREE, timing=timing, random=lambda: 0.5, prepare=lambda e: setattr(e, "is_down", True)) as live:
            await asyncio.sleep(60)
            attempts = live.connector.attempts
            waits = [round(b - a - 0.05, 3) for a, b in pairwise(attempts)]
            assert waits[:6] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
            live.exchange.is_down = False
            await asyncio.sleep(10)
            assert live.told.asserted == sorted(THREE)

    run_virtual(story())


def test_waits_begin_anew_only_after_a_connection_that_lasted() -> None:
    async def story() -> None:
        timing = Timing(first_backoff=1.0, longest_backoff=64.0, stable=30.0)
        async with Live(BinanceLike, THREE, timing=timing) as live:
            lost = []
            for seconds in (5, 5, 5, 5, 40, 5):
                await live.connected()
                await asyncio.sleep(seconds)
                lost.append(live.now)
                live.wires[0].end("reset")
            await asyncio.sleep(10)
            waits = [round(live.connector.attempts[n + 1] - at, 1) for n, at in enumerate(lost)]
            assert waits == [0.5, 1.0, 2.0, 4.0, 0.5, 1.0]

    run_virtual(story())


def test_what_the_venue_asks_to_wait_is_waited() -> None:
    async def story() -> None:
        async with Live(BinanceLike, THREE) as live:
            attempts = []

            async def refuse(url: str, events: WireEvents, open_seconds: float) -> None:
                attempts.append(live.now)
                raise ConnectFailed("429", retry_after=100.0)

            await asyncio.sleep(1)
            object.__setattr__(live.driver._setup, "connector", refuse)
            live.wires[0].end("reset")
            await asyncio.sleep(250)
            assert len(attempts) == 3
            assert all(b - a >= 100 for a, b in pairwise(attempts))

    run_virtual(story())


def test_what_the_venue_asks_to_wait_holds_for_every_shard() -> None:
    async def story() -> None:
        async with Live(BinanceLike, THREE, symbols_per_connection=1) as live:
            attempts = []
            await asyncio.sleep(3)

            async def refuse(url: str, events: WireEvents, open_seconds: float) -> None:
                attempts.append(live.now)
                raise ConnectFailed("418", retry_after=100.0)

            object.__setattr__(live.driver._setup, "connector", refuse)
            live.wires[0].end("reset")
            await asyncio.sleep(10)
            live.wires[0].end("reset")
            await asyncio.sleep(60)
            assert len(attempts) == 1

    run_virtual(story())


def test_connection_attempts_keep_the_venue_s_limit_over_all_shards() -> None:
    async def story() -> None:
        limit = Limit(3, 20.0)
        async with Live(BinanceLike, SYMBOLS, symbols_per_connection=1, connects=limit) as live:
            await asyncio.sleep(80)
            attempts = live.connector.attempts
            assert len(attempts) == len(SYMBOLS)
            assert all(later - earlier >= 19.999 for earlier, later in zip(attempts, attempts[3:], strict=False))
            assert live.told.asserted == sorted(SYMBOLS)

    run_virtual(story())


def test_messages_and_pings_keep_the_venue_s_limit() -> None:
    async def story() -> None:
        async with Live(BinanceLike, SYMBOLS, symbols_per_message=1, messages=Limit(2, 3.0), proof_seconds=0.2) as live:
            await asyncio.sleep(30)
            sent = live.wires[0].sent_at
            assert live.told.asserted == sorted(SYMBOLS)
            assert len(sent) >= 18
            assert all(later - earlier >= 2.999 for earlier, later in zip(sent, sent[2:], strict=False))

    run_virtual(story())


def test_a_numbered_frame_that_is_missing_ends_every_assertion_before_it_and_the_connection() -> None:
    async def story() -> None:
        async with Live(CoinbaseLike, THREE) as live:
            await asyncio.sleep(5)
            live.lose_frame()
            await asyncio.sleep(1)
            told = next(iter(live.told.connections.values()))
            assert told.lost is not None
            assert "lost" in told.lost
            assert sorted(symbol for symbol, _ in told.ended) == sorted(THREE)
            await asyncio.sleep(5)
            assert live.told.asserted == sorted(THREE)

    run_virtual(story())


def test_a_numbered_frame_that_comes_twice_loses_nothing() -> None:
    async def story() -> None:
        async with Live(CoinbaseLike, THREE) as live:
            await asyncio.sleep(5)
            wire = live.wires[0]
            frame = live.exchange.trade(wire.session, "BTC-USD", live.exchange.last_id["BTC-USD"])
            wire.push(frame, frame)
            await asyncio.sleep(5)
            assert len(live.told.connections) == 1
            assert live.told.frames.count(frame) == 2

    run_virtual(story())


def test_nothing_is_read_while_there_is_no_room_and_our_own_silence_kills_nothing() -> None:
    async def story() -> None:
        async with Live(BinanceLike, THREE, silence_seconds=5.0) as live:
            await asyncio.sleep(3)
            live.told.has_room.clear()
            await asyncio.sleep(0.2)
            before = len(live.told.frames)
            await asyncio.sleep(60)
            assert len(live.told.frames) == before
            live.told.has_room.set()
            await asyncio.sleep(2)
            assert len(live.told.connections) == 1
            made = live.told.made["BTCUSD"]
            assert live.told.ever_received("BTC/USD") >= {number for at, number in made if 1 < at < live.now - 1}

    run_virtual(story())


@every_exchange
def test_what_waited_unread_is_no_proof_that_nothing_came_after_it(kind: type[Exchange]) -> None:
    async def story() -> None:
        async with Live(kind, THREE) as live:
            await asyncio.sleep(5)
            live.told.has_room.clear()
            await asyncio.sleep(10)
            live.wires[0].session.is_half_open = True  # what was sent until now waits, and nothing follows
            live.told.has_room.set()
            await asyncio.sleep(1)
            (told,) = live.told.connections.values()
            assert sorted(told.ended) == [(symbol, "not read for a while") for symbol in sorted(THREE)]
            assert live.told.asserted == []
            await asyncio.sleep(20)
            assert live.told.asserted == sorted(THREE)

    run_virtual(story())


@every_exchange
def test_the_answer_to_a_new_ping_ends_the_doubt(kind: type[Exchange]) -> None:
    async def story() -> None:
        async with Live(kind, THREE) as live:
            await asyncio.sleep(5)
            live.driver._setup.pulse.at -= 5.0  # the process has stood still
            live.wires[0].events.arrived([], None)
            assert live.told.asserted == []
            live.wires[0].events.arrived([], b"999")  # of no ping of ours
            assert live.told.asserted == []
            await asyncio.sleep(0.2)
            assert live.told.asserted == sorted(THREE)
            (told,) = live.told.connections.values()
            assert {reason for _, reason in told.ended} == {"the process did not run for a while"}

    run_virtual(story())


def test_times_never_go_back_also_where_the_clock_ticks_between_two_looks() -> None:
    async def story() -> None:
        async with Live(BinanceLike, THREE) as live:
            await asyncio.sleep(5)
            setup, ticks = live.driver._setup, itertools.count()
            before = setup.now_us
            object.__setattr__(setup, "now_us", lambda: before() + next(ticks))
            setup.pulse.at -= 5.0  # the process has stood still
            live.wires[0].events.arrived([b'{"result":null,"id":99}'], None)
            await asyncio.sleep(0.2)
            assert live.told.asserted == sorted(THREE)
            assert not live.run.done()

    run_virtual(story())


@every_exchange
def test_a_doubt_ends_all_assertions_until_each_connection_has_answered(kind: type[Exchange]) -> None:
    async def story() -> None:
        async with Live(kind, THREE) as live:
            await asyncio.sleep(5)
            live.driver.doubt("the clock was set")
            assert live.told.asserted == []
            live.driver.doubt("the clock was set")  # again before an answer
            await asyncio.sleep(0.3)
            assert live.told.asserted == sorted(THREE)
            (told,) = live.told.connections.values()
            assert sorted(told.ended) == [(symbol, "the clock was set") for symbol in sorted(THREE)]

    run_virtual(story())


def test_an_answer_to_a_ping_proves_only_what_was_sent_before_the_ping() -> None:
    async def story() -> None:
        async with Live(BinanceLike, THREE, trade_seconds=1e6) as live:
            proofs: list[int] = []
            live.told.alive = lambda _, at_us: proofs.append(at_us)  # type: ignore[method-assign]
            await asyncio.sleep(10)
            begun = 1_700_000_000_000_000
            asked = [begun + round(at * 1_000_000) for at in live.wires[0].sent_at[1:]]
            assert proofs == asked[: len(proofs)]
            assert len(proofs) >= 8

    run_virtual(story())


def test_no_connection_is_made_while_there_is_no_room() -> None:
    async def story() -> None:
        async with Live(BinanceLike, THREE) as live:
            await asyncio.sleep(3)
            live.told.has_room.clear()
            await asyncio.sleep(1)
            live.wires[0].end("reset")
            await asyncio.sleep(60)
            assert live.connector.attempts[1:] == []
            live.told.has_room.set()
            await asyncio.sleep(3)
            assert live.told.asserted == sorted(THREE)

    run_virtual(story())


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.06, 0.12, 0.3, 5.0])
def test_a_stop_at_any_moment_leaves_nothing_behind(seconds: float) -> None:
    async def story() -> None:
        async with Live(CoinbaseLike, SYMBOLS, symbols_per_connection=3):
            await asyncio.sleep(seconds)

    run_virtual(story())


def test_a_stop_while_there_is_no_room_waits_for_none() -> None:
    async def story() -> None:
        async with Live(BinanceLike, THREE) as live:
            await asyncio.sleep(5)
            live.told.has_room.clear()
            await asyncio.sleep(5)
            live.wires[0].end("reset")
            await asyncio.sleep(5)

    run_virtual(story())


@pytest.mark.parametrize("call", ["connected", "received", "confirmed", "alive", "disconnected", "room"])
def test_an_error_of_the_listener_ends_the_run_with_it(call: str) -> None:
    class ListenerBroke(Exception):
        pass

    def break_now(*_: object) -> None:
        raise ListenerBroke

    async def story() -> None:
        live = Live(BinanceLike, THREE, trade_seconds=2.0)
        setattr(live.told, call, break_now)
        await live.__aenter__()
        await asyncio.sleep(6)
        if call == "disconnected":
            live.wires[0].end("reset")
        with pytest.raises(ListenerBroke):
            await live.run
        await live.__aexit__(ListenerBroke, None, None)
        assert not live.exchange.sessions

    run_virtual(story())


def test_a_venue_without_a_live_feed_is_refused() -> None:
    async def story() -> None:
        live = Live(BinanceLike, THREE)
        type(live.exchange.venue).feed = None
        with pytest.raises(ConfigError, match="binance has no live feed"):
            await live.__aenter__()

    run_virtual(story())
