"""The REST client and the refill against a real HTTP server on the loopback."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import numpy as np
import pytest

from connectors.live.delays import Bounds
from connectors.live.outgoing import Outgoing
from connectors.refill.refill import Refiller
from connectors.refill.refill_plan import Pace
from connectors.refill.rest import DRIVER_ERRORS, Answer, RestClient, RestUnreachable, is_busy, is_refusal
from connectors.venues.feeding import Limit, RestRules
from connectors.venues.registry import VENUES, build_instruments
from tests import frames as f

FAST = RestRules(rest_url="", requests=Limit(10_000, 1.0))
Reply = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def response(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Server:
    """Answers each request by `answer(path)`: bytes to send, or something that plays with the socket; then it goes on or hangs up."""

    answer: Callable[[str], Reply]
    paths: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.serving.add(asyncio.create_task(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                self.paths.append(head.split(" ")[1])
                reply = self.answer(self.paths[-1])
                if callable(reply):
                    await reply(writer)
                    break
                writer.write(reply)
                await writer.drain()
        writer.transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def serving(answer: Callable[[str], Reply]) -> AsyncIterator[Server]:
    served = Server(answer)
    server = await asyncio.start_server(served.accept, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield served
    finally:
        server.close()
        for task in served.serving:
            task.cancel()
        await asyncio.gather(*served.serving)
        await server.wait_closed()


@asynccontextmanager
async def client_of(server: Server, *, timeout_s: float = 5.0, path: str = "") -> AsyncIterator[RestClient]:
    client = RestClient(server.url + path, FAST, now_us=lambda: f.NOW_US, timeout_s=timeout_s)
    try:
        yield client
    finally:
        await client.close()


def get(answer: Callable[[str], Reply], *, timeout_s: float = 5.0) -> Answer:
    async def scenario() -> Answer:
        async with serving(answer) as server, client_of(server, timeout_s=timeout_s) as client:
            return await client.get("/x?y=%2F")

    return asyncio.run(scenario())


@pytest.mark.parametrize("status", ["200 OK", "302 Found", "404 Not Found", "500 Oops"])
def test_answers_of_any_status_are_returned_as_they_are(status: str) -> None:
    assert get(lambda _: response(b" [1.50]\n", status, Location="/other")) == Answer(int(status[:3]), b" [1.50]\n")


def test_paths_are_sent_unchanged_below_the_base_over_one_connection() -> None:
    async def scenario() -> None:
        async with serving(lambda _: response(b"{}")) as server, client_of(server, path="/kraken/") as client:
            for _ in range(3):
                await client.get("/0/public/Trades?pair=XBTUSD&since=5%2F")
            assert server.paths == ["/kraken/0/public/Trades?pair=XBTUSD&since=5%2F"] * 3
            assert server.connections == 1
            assert "user-agent: k2\r\n" in server.heads[0].lower()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("999999999", 3 * 86_400.0),
        (format_datetime(datetime.fromtimestamp(f.NOW_US // 10**6, UTC) + timedelta(seconds=90), usegmt=True), 90.0),
        ("Mon, 01 Jan 2001 00:00:00 -0000", 0.0),
        ("soon", None),
        ("-5", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    assert get(lambda _: response(b"", "429 Too Many Requests", Retry_After=header)).retry_after == seconds


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _half(writer: asyncio.StreamWriter) -> None:
    writer.write(response(b"[1,2,3]")[:-4])
    await writer.drain()


async def _garbage(writer: asyncio.StreamWriter) -> None:
    writer.write(b"what?\r\n\r\n")
    await writer.drain()


async def _endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    with suppress(ConnectionError):
        while True:
            writer.write(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")
            await writer.drain()


@pytest.mark.parametrize(
    "reply", [_hang_up, _half, _garbage, _endless, b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"]
)
def test_answers_that_cannot_be_read_whole_are_no_answers(reply: Reply) -> None:
    with pytest.raises(RestUnreachable):
        get(lambda _: reply)


def test_silence_ends_in_time() -> None:
    async def silent(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)

    with pytest.raises(RestUnreachable, match="no answer within"):
        get(lambda _: silent, timeout_s=0.1)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1", "http://no.such.host.invalid", "http://[::1]:1"])
def test_nobody_there_is_no_answer(url: str) -> None:
    async def scenario() -> None:
        client = RestClient(url, FAST, now_us=lambda: 0, timeout_s=5.0)
        try:
            await client.get("/")
        finally:
            await client.close()

    with pytest.raises(RestUnreachable):
        asyncio.run(scenario())


def test_the_pace_counts_weights() -> None:
    async def scenario() -> None:
        client = RestClient("http://127.0.0.1:1", RestRules(rest_url="", requests=Limit(100, 60.0), weight=25), now_us=lambda: 0)
        for _ in range(4):
            await client.turn()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.turn(), 0.05)
        await client.close()

    asyncio.run(scenario())


def test_every_exception_of_the_driver_is_mapped() -> None:
    raised = [e for _, e in inspect.getmembers(httpx, inspect.isclass) if issubclass(e, Exception)]
    assert len(raised) > 20
    assert [e for e in raised if not issubclass(e, DRIVER_ERRORS)] == []


def test_statuses() -> None:
    assert [s for s in (200, 302, 400, 401, 403, 404, 408, 409, 418, 425, 429, 451, 500, 503) if is_busy(s)] == [403, 418, 429]
    assert [s for s in (200, 302, 400, 401, 403, 404, 408, 409, 418, 425, 429, 451, 500, 503) if is_refusal(s)] == [400, 401, 404, 451]


def coinbase_venue(ids: set[int]) -> Callable[[str], Reply]:
    """Pages as Coinbase Exchange cuts them; the first request of each kind fails."""
    failed: set[str] = set()

    def answer(path: str) -> Reply:
        query = dict(part.split("=") for part in path.partition("?")[2].split("&"))
        kind = "after" if "after" in query else "before"
        if kind not in failed:
            failed.add(kind)
            return response(b"", "429 Too Many Requests", Retry_After="1") if kind == "after" else _hang_up
        found = [
            i for i in ids if ("after" not in query or i < int(query["after"])) and ("before" not in query or i > int(query["before"]))
        ]
        page = sorted(found, reverse=True)[: int(query["limit"])]
        return response(json.dumps([_coinbase_row(i) for i in page]).encode())

    return answer


def _coinbase_row(number: int) -> dict[str, object]:
    return {"trade_id": number, "side": "buy", "size": "1", "price": "2", "time": f.rfc3339(f.NOW_US + number)}


def test_a_refill_over_http_gets_all_that_the_venue_has() -> None:
    lost = {150, 999}
    listed = build_instruments("coinbase", ["BTC/USD"])

    async def scenario() -> tuple[list[Outgoing], Refiller]:
        put: list[Outgoing] = []
        async with serving(coinbase_venue(set(range(1, 2_605)) - lost)) as server, client_of(server) as client:
            refiller = Refiller(
                VENUES["coinbase"], listed, client, feed="t", put=put.extend, bounds=lambda: Bounds(0, 0), random=lambda: 0.5,
                now_us=lambda: f.NOW_US + 60_000_000, pace=Pace(settle_seconds=0.0, again_seconds=(0.1,), lag_us=0),
            )  # fmt: skip
            for ids in ([1, 2], [2_600, 2_601]):
                refiller.observed("BTC/USD", np.array(ids), np.array([f.NOW_US + i for i in ids]))
            refiller.reconnected(["BTC/USD"])
            running = asyncio.create_task(refiller.run())
            async with asyncio.timeout(30):
                while not any(r.kind == "marker" for r in put):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        return put, refiller

    put, refiller = asyncio.run(scenario())
    pages = [r for r in put if r.kind is None]
    batch = f.raw_batch("coinbase", [r.payload for r in pages], "BTC-USD", received_us=f.NOW_US + 60_000_000)
    decoded = VENUES["coinbase"].decode(batch, listed)
    assert not decoded.rejected
    assert set(decoded.trades.trade_id.tolist()) | {1, 2, 2_600, 2_601} == set(range(1, 2_605)) - lost
    given_up = [json.loads(r.payload) for r in put if r.kind == "unfillable"]
    assert {(u["first_id"], u["last_id"], u["reason"]) for u in given_up} == {(i, i, "not_at_venue") for i in lost}
    assert [r.kind for r in put][-1] == "marker"
    assert refiller.counts.refilled_ids == 2_604 - 4 - len(lost)
    assert (refiller.counts.refill_pauses, refiller.counts.refill_failures) == (1, 1)
