"""The venues that are read by a table, live over real sockets: from a scripted market through the feeds of one process to the topics."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from connectors.live.feed_process import FeedProcess
from connectors.live.spill_folders import open_spills
from connectors.topics.memory import MemoryTopics
from connectors.venues.registry import build_instruments
from tests.live_exchange import Exchange
from tests.live_table_exchanges import TABLE_EXCHANGES
from tests.topic_truth import held

SYMBOLS = ["BTC/USD", "ETH/USD"]
TRADE_SECONDS = 0.02


def now_us() -> int:
    return time.time_ns() // 1_000


class Market:
    """All of them behind one port, by the first part of the path; every symbol trades while it is subscribed."""

    def __init__(self) -> None:
        self.exchanges: dict[str, Exchange] = {name: kind() for name, kind in TABLE_EXCHANGES.items()}

    async def serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        exchange = self.exchanges[socket.request.path.split("/")[1]]
        session = exchange.connect()
        market = asyncio.create_task(self.trade(socket, exchange))
        try:
            async for message in socket:
                for frame in exchange.hear(session, str(message)):
                    await socket.send(frame.decode())
        finally:
            exchange.disconnect(session)
            market.cancel()

    async def trade(self, socket: ServerConnection, exchange: Exchange) -> None:
        while True:
            await asyncio.sleep(TRADE_SECONDS)
            now = b"%d" % (now_us() // 1_000)
            for name in sorted(exchange.sessions[0].subscribed):
                frame = exchange.trade(exchange.sessions[0], name, exchange.next_trade(name))
                await socket.send(frame.replace(b"1700000000000", now).decode())

    def answer(self, socket: ServerConnection, request: Request) -> Response | None:
        """Say over REST that there are no past trades."""
        if "Upgrade" in request.headers:
            return None
        answer = socket.respond(HTTPStatus.OK, '{"code":"0","msg":"","data":[]}')
        answer.headers["Connection"] = "close"
        return answer


@asynccontextmanager
async def market() -> AsyncIterator[tuple[Market, str]]:
    made = Market()
    async with serve(made.serve, "127.0.0.1", 0, process_request=made.answer) as server:
        (socket,) = server.sockets
        yield made, f"http://127.0.0.1:{socket.getsockname()[1]}"


def test_every_trade_is_in_its_topic_and_vouched_for(tmp_path: Path) -> None:
    async def work() -> None:
        topics, stop = MemoryTopics(now_us=now_us), asyncio.Event()
        async with market() as (made, url):
            with contextlib.closing(open_spills(tmp_path, "one")) as spills:
                process = FeedProcess("one", topics, 2, spills, spill_bytes=1 << 20, venues_url=url, now_us=now_us, open_log=lambda: topics)
                listed = {name: build_instruments(name, SYMBOLS) for name in made.exchanges}
                feeding = asyncio.create_task(process.run(listed, stop))
                async with asyncio.timeout(60):
                    while not all(vouched(topics, name) for name in made.exchanges):
                        assert not feeding.done(), feeding.result()
                        await asyncio.sleep(0.1)
                stop.set()
                assert await feeding
        for name in made.exchanges:
            found = held(topics, name, SYMBOLS)
            for symbol in SYMBOLS:
                ids = found.ids(symbol)
                assert ids == list(range(1, len(ids) + 1))
                assert len(ids) > 1

    asyncio.run(work())


def vouched(topics: MemoryTopics, exchange: str) -> set[str] | None:
    """The symbols that markers assert, if that is all of them."""
    if f"raw.trades.{exchange}" not in topics.topics():
        return None
    named = {symbol for marker in held(topics, exchange, SYMBOLS).of_kind("marker") for symbol in marker["symbols"]}
    return named if named == set(SYMBOLS) else None
