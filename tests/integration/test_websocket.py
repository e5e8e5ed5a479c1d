"""The driver over real sockets: the library's own server on the far side, and peers that behave worse than any library."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from connectors.sockets import wire
from connectors.sockets.setup import Timing
from connectors.sockets.websocket import Driver
from tests.live_driver import with_rules
from tests.live_exchange import SYMBOLS, BinanceLike, CoinbaseLike, Exchange, KrakenLike, Session
from tests.recording_listener import Recorder

THREE = SYMBOLS[:3]
TIMING = Timing(open=0.5, answer=2.0, first_backoff=0.05, longest_backoff=0.2, overlap=0.3)
Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def within_a_minute(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a coroutine test; errors that only the loop saw fail it."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def guarded() -> None:
            seen: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
            async with asyncio.timeout(60):
                await test(*args, **kwargs)
            assert not seen, seen
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(guarded())

    return run


async def until(found: Callable[[], object]) -> None:
    while not found():  # noqa: ASYNC110 - any change of anything
        await asyncio.sleep(0.01)


class Served:
    """An exchange behind the library's server; it can be stopped and started again on its port."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.port = 0
        self.connections: dict[ServerConnection, Session] = {}
        self._stack = contextlib.AsyncExitStack()

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        server = await self._stack.enter_async_context(serve(self._serve, "127.0.0.1", self.port, ssl=context, close_timeout=0.2))
        self.port = server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        await self._stack.aclose()

    async def trade(self, symbol: str, count: int = 1) -> None:
        """Make trades of a venue symbol and send each to everybody who has subscribed to it."""
        for _ in range(count):
            number = self.exchange.next_trade(symbol)
            for connection, session in list(self.connections.items()):
                if symbol in session.subscribed:
                    with contextlib.suppress(ConnectionClosed):
                        await connection.send(self.exchange.trade(session, symbol, number).decode())

    async def _serve(self, connection: ServerConnection) -> None:
        session = self.connections[connection] = self.exchange.connect()
        try:
            with contextlib.suppress(ConnectionClosed):
                async for text in connection:
                    for frame in self.exchange.hear(session, str(text)):
                        await connection.send(frame.decode())
        finally:
            del self.connections[connection]
            self.exchange.disconnect(session)


def driver(exchange: Exchange, told: Recorder, port: int, *, scheme: str = "ws", timing: Timing = TIMING, **rules: Any) -> Driver:
    return Driver(
        with_rules(exchange.venue, **rules),
        told,
        url=f"{scheme}://localhost:{port}/feed?x=1" if scheme == "wss" else f"{scheme}://127.0.0.1:{port}/feed?x=1",
        feed_name="test",
        now_us=lambda: time.time_ns() // 1_000,
        timing=timing,
    )


@contextlib.asynccontextmanager
async def running(made: Driver, exchange: Exchange, *symbols: str) -> AsyncIterator[None]:
    run = asyncio.create_task(made.run(exchange.instruments_of(*symbols)))
    try:
        yield
    finally:
        await made.stop()
        await run


@contextlib.asynccontextmanager
async def peer(behave: Peer) -> AsyncIterator[int]:
    """A TCP server that behaves so to each connection; yields its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await behave(reader, writer)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)


async def handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    protocol = ServerProtocol()
    protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
    (request,) = protocol.events_received()
    protocol.send_response(protocol.accept(request))  # type: ignore[arg-type]
    writer.write(b"".join(protocol.data_to_send()))


async def for_ever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("kind", [BinanceLike, KrakenLike, CoinbaseLike])
@within_a_minute
async def test_frames_arrive_verbatim_and_in_order_through_a_restart_of_the_venue(kind: type[Exchange]) -> None:
    served, told = Served(kind()), Recorder()
    symbol = served.exchange.venue.venue_symbol("BTC/USD")
    await served.start()
    async with running(driver(served.exchange, told, served.port), served.exchange, *THREE):
        await until(lambda: told.asserted == sorted(THREE))
        await served.trade(symbol, 500)
        await until(lambda: len(told.frames) >= 500)
        await served.stop()
        await until(lambda: not told.open)
        assert told.asserted == []
        await served.start()
        await until(lambda: told.asserted == sorted(THREE))
        await served.trade(symbol, 500)
        await until(lambda: sum(len(served.exchange.trades_in(frame)) for frame in told.frames) >= 1000)
        ids = [number for frame in told.frames for _, number in served.exchange.trades_in(frame)]
        assert ids == list(range(1, 1001))
    await served.stop()


@within_a_minute
async def test_many_frames_come_in_few_bursts() -> None:
    served, told = Served(BinanceLike()), Recorder()
    await served.start()
    async with running(driver(served.exchange, told, served.port), served.exchange, *THREE):
        await until(lambda: told.asserted == sorted(THREE))
        told.bursts.clear()
        await served.trade("BTCUSD", 10_000)
        await until(lambda: sum(told.bursts) >= 10_000)
        assert len(told.bursts) < 5_000
    await served.stop()


@within_a_minute
async def test_a_replacement_and_a_reload_lose_no_frame_while_trades_go_on() -> None:
    served, told = Served(BinanceLike()), Recorder()
    await served.start()
    made = driver(served.exchange, told, served.port, symbols_per_connection=2)
    async with running(made, served.exchange, *THREE):
        await until(lambda: told.asserted == sorted(THREE))
        first = served.exchange.last_id.get("BTCUSD", 0) + 1

        async def trade() -> None:
            while True:
                await served.trade("BTCUSD", 20)
                await asyncio.sleep(0.005)

        trading = asyncio.create_task(trade())
        await asyncio.sleep(0.1)
        for connection in list(served.connections):
            await connection.send(BinanceLike.shutdown.decode())
        await until(lambda: sum(1 for name in told.connections.values() if name.lost == "replaced") == 2)
        await made.change(served.exchange.instruments_of("BTC/USD", "ETH/USD"))
        await until(lambda: len(told.open) == 1)
        trading.cancel()
        await asyncio.wait([trading])
        last = served.exchange.last_id["BTCUSD"]
        await until(lambda: {n for frame in told.frames for _, n in served.exchange.trades_in(frame)} >= set(range(first, last + 1)))
    await served.stop()


@within_a_minute
async def test_without_room_the_venue_is_held_back_and_afterwards_all_arrives() -> None:
    served, told = Served(BinanceLike()), Recorder()
    await served.start()
    async with running(driver(served.exchange, told, served.port), served.exchange, *THREE):
        await until(lambda: told.asserted == sorted(THREE))
        told.has_room.clear()
        await asyncio.sleep(0.2)
        before = len(told.frames)
        trading = asyncio.create_task(served.trade("BTCUSD", 100_000))  # some MB: more than the sockets hold
        await asyncio.sleep(1.5)
        assert len(told.frames) == before
        assert not trading.done()
        told.has_room.set()
        await trading
        await until(lambda: len(told.frames) >= before + 100_000)
        assert told.asserted == sorted(THREE)
        assert len(told.connections) == 1
    await served.stop()


@within_a_minute
async def test_a_peer_that_answers_nothing_is_given_up_and_stopped_without_it() -> None:
    async def half_open(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handshake(reader, writer)
        await for_ever()

    exchange, told = BinanceLike(), Recorder()
    async with peer(half_open) as port, running(driver(exchange, told, port, silence_seconds=0.3), exchange, *THREE):
        await until(lambda: len(told.connections) >= 3)
        assert next(iter(told.connections.values())).lost == "nothing heard for 0.3 s"
        await until(lambda: told.open)
    assert not told.open


@within_a_minute
async def test_a_peer_that_never_closes_does_not_hold_up_a_stop() -> None:
    async def stubborn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handshake(reader, writer)
        while True:
            writer.write(Frame(Opcode.TEXT, b'{"e":"24hrTicker"}').serialize(mask=False))
            await writer.drain()
            await asyncio.sleep(0.01)

    exchange, told = BinanceLike(), Recorder()
    async with peer(stubborn) as port:
        async with running(driver(exchange, told, port), exchange, *THREE):
            await until(lambda: told.frames)
        assert [found.lost for found in told.connections.values()] == ["stopped"]


@within_a_minute
async def test_a_peer_that_never_finishes_the_handshake_is_not_waited_for() -> None:
    attempts: list[float] = []

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(time.monotonic())
        await for_ever()

    exchange, told = BinanceLike(), Recorder()
    timing = Timing(open=0.1, first_backoff=0.01, longest_backoff=0.02)
    async with peer(mute) as port, running(driver(exchange, told, port, timing=timing), exchange, *THREE):
        await until(lambda: len(attempts) >= 3)
    assert not told.connections


@within_a_minute
async def test_a_reset_connection_and_a_breach_of_the_protocol_are_losses_like_others() -> None:
    number = 0

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        number += 1
        await handshake(reader, writer)
        await reader.read(100)
        if number % 2:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            writer.write(b"\xff\xff\xff\xff")
            await for_ever()

    exchange, told = BinanceLike(), Recorder()
    async with peer(rude) as port, running(driver(exchange, told, port), exchange, *THREE):
        await until(lambda: len(told.connections) >= 4)
        reasons = [found.lost or "" for found in told.connections.values()][:2]
        assert "reset" in reasons[0]
        assert "protocol error" in reasons[1]


@within_a_minute
async def test_a_venue_in_maintenance_is_asked_again() -> None:
    served, told = Served(BinanceLike()), Recorder()
    refusals = 0

    async def closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refusals
        refusals += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 11\r\nConnection: close\r\n\r\nmaintenance")

    async with peer(closed) as port:
        served.port = port
        made = driver(served.exchange, told, port)
        run = asyncio.create_task(made.run(served.exchange.instruments_of(*THREE)))
        await until(lambda: refusals >= 2)
    await served.start()
    await until(lambda: told.asserted == sorted(THREE))
    await made.stop()
    await run
    await served.stop()


# Python's standard library cannot make a certificate, and a stored one would expire.
@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on this machine to make a certificate with")
@within_a_minute
async def test_tls_is_used_and_the_certificate_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run(  # noqa: ASYNC221 - before anything runs
        [*command, "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    served = Served(BinanceLike())
    await served.start(context)
    for trusted in (False, True):
        if trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        wire._tls.cache_clear()
        told = Recorder()
        async with running(driver(served.exchange, told, served.port, scheme="wss"), served.exchange, *THREE):
            if trusted:
                await until(lambda: told.asserted == sorted(THREE))  # noqa: B023 - awaited here
            else:
                await asyncio.sleep(0.5)
                assert not told.connections
    wire._tls.cache_clear()
    await served.stop()
