from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from connectors.live.delays import Bounds
from connectors.live.outgoing import Outgoing
from connectors.refill.known_ids import KnownIds
from connectors.refill.refill import Client, Refiller
from connectors.refill.refill_plan import Pace
from connectors.refill.rest import Answer, RestUnreachable
from connectors.refill.topic_tail import Tail
from connectors.venues.registry import VENUES, build_instruments
from market.interval import SECOND
from market.marker import read_marker, read_unfillable
from tests import frames as f
from tests.decoding import rows

LISTED = build_instruments("binance", ["BTC/USDT", "ETH/USDT"])
HASTY = Pace(settle_seconds=0.0, again_seconds=(0.0, 0.0), lag_us=0)
MS = 1000


class Venue:
    """Answers as Binance does from a list of ids; `script` replaces the next answers."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = sorted(ids)
        self.asked: list[str] = []
        self.script: list[Answer | RestUnreachable] = []
        self.closed = False

    async def turn(self) -> None:
        await asyncio.sleep(0)

    async def get(self, path: str) -> Answer:
        self.asked.append(path)
        await asyncio.sleep(0)
        if self.script:
            found = self.script.pop(0)
            if isinstance(found, RestUnreachable):
                raise found
            return found
        query = dict(part.split("=") for part in path.partition("?")[2].split("&"))
        page = [i for i in self.ids if i >= int(query["fromId"])][: int(query["limit"])]
        return Answer(200, json.dumps([row(i) for i in page]).encode())

    async def close(self) -> None:
        self.closed = True


def time_of(number: int) -> int:
    return f.NOW_US + number * MS


def row(number: int) -> dict[str, Any]:
    return {"id": number, "price": "1.50", "qty": "2", "quoteQty": "3", "time": time_of(number) // MS, "isBuyerMaker": False}


class Bench:
    """A refiller of Binance, what it puts, and time that stands still at one second after the last trade."""

    def __init__(
        self, client: Client | None, exchange: str = "binance", pace: Pace = HASTY, random: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.put: list[Outgoing] = []
        self.now_us = f.NOW_US + 10 * SECOND
        self.bounds: Bounds | None = Bounds(0, 1_000)
        self.listed = LISTED if exchange == "binance" else build_instruments(exchange, ["BTC/USDT"])
        self.refiller = Refiller(
            VENUES[exchange], self.listed, client, feed="f1", put=self.put.extend, bounds=lambda: self.bounds,
            now_us=lambda: self.now_us, random=random, pace=pace,
        )  # fmt: skip

    def see(self, *numbers: int, symbol: str = "BTC/USDT") -> None:
        self.refiller.observed(symbol, np.array(numbers, np.int64), np.array([time_of(n) for n in numbers], np.int64))

    async def until(self, done: Callable[[], object], seconds: float = 10.0) -> None:
        running = asyncio.create_task(self.refiller.run())
        async with asyncio.timeout(seconds):
            while not done() and not running.done():  # noqa: ASYNC110 - what it waits for is not all the refiller's
                await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()

    def trades(self) -> list[int]:
        records = [r for r in self.put if r.kind is None]
        assert {r.source for r in records} <= {"refill"}
        batch = f.raw_batch("binance", [r.payload for r in records], [r.symbol.replace("/", "-") for r in records])
        decoded = VENUES["binance"].decode(batch, LISTED)
        assert not decoded.rejected
        return [trade["trade_id"] for trade in rows(decoded.trades)]

    def given_up(self) -> list[tuple[int, int, str]]:
        found = [read_unfillable(r.payload, instruments=self.listed) for r in self.put if r.kind == "unfillable"]
        return [(u.first, u.last, u.reason) for u in found]


def run(scenario: Callable[[], Any]) -> None:
    asyncio.run(scenario())


def test_missing_ids_are_fetched_and_put_as_they_came() -> None:
    async def scenario() -> None:
        venue = Venue(range(1, 20))
        bench = Bench(venue)
        bench.see(1, 2, 6, 7, 9)
        await bench.until(lambda: not bench.refiller.waiting_ids())
        assert bench.trades() == [3, 4, 5, 6, 7, 8, 9]
        assert venue.asked == ["/api/v3/historicalTrades?symbol=BTCUSDT&fromId=3&limit=7"]
        assert json.loads(bench.put[0].payload)["refill"] == venue.asked[0]
        counted = bench.refiller.counted()
        assert (counted["gap_ids"], counted["refilled_ids"], counted["refill_requests"]) == (4, 4, 1)
        await bench.refiller.stop()
        assert venue.closed

    run(scenario)


def test_ids_that_are_not_at_the_venue_are_given_up() -> None:
    async def scenario() -> None:
        bench = Bench(Venue([1, 2, 4, 6, 7]))
        bench.see(1, 2, 6)
        await bench.until(bench.given_up)
        assert bench.trades() == [4, 6, 7]
        assert sorted(bench.given_up()) == [(3, 3, "not_at_venue"), (5, 5, "not_at_venue")]
        assert bench.refiller.counts.unfillable_ids == 2

    run(scenario)


def test_pages_without_news_are_not_put() -> None:
    async def scenario() -> None:
        bench = Bench(Venue([1, 2, 4]))
        bench.see(1, 2, 4)
        await bench.until(bench.given_up)
        assert [r.kind for r in bench.put] == ["unfillable"]

    run(scenario)


@pytest.mark.parametrize(
    "trouble",
    [
        RestUnreachable("no answer"),
        Answer(503, b"busy", 0.0),
        Answer(302, b""),
        Answer(200, b"<html>"),
        Answer(200, b'{"code":0}'),
        Answer(429, b"", 0.0),
        Answer(418, b"", 1.0),
    ],
)
def test_trouble_is_waited_out_and_gives_nothing_up(trouble: Answer | RestUnreachable) -> None:
    async def scenario() -> None:
        venue = Venue(range(1, 20))
        bench = Bench(venue)
        venue.script = [trouble, trouble]
        bench.see(1, 5)
        await bench.until(lambda: not bench.refiller.waiting_ids())
        assert bench.trades() == [2, 3, 4, 5]
        assert bench.given_up() == []
        assert len(venue.asked) == 3
        counts = bench.refiller.counts
        assert counts.refill_pauses + counts.refill_failures == 2

    run(scenario)


def test_nothing_is_asked_while_the_venue_wants_peace() -> None:
    async def scenario() -> None:
        venue = Venue(range(1, 20))
        bench = Bench(venue)
        venue.script = [Answer(429, b"", 60.0)]
        bench.see(1, 5)
        await bench.until(lambda: bench.refiller.counts.refill_pauses)
        bench.see(1, 5, symbol="ETH/USDT")
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await bench.until(lambda: len(venue.asked) > 1, seconds=0.6)

    run(scenario)


@pytest.mark.parametrize(("trouble", "waits"), [(RestUnreachable("no answer"), [0.5, 1, 2, 4]), (Answer(429, b""), [15, 20, 30, 50])])
def test_waits_double_until_the_venue_has_answered(trouble: Answer | RestUnreachable, waits: list[float]) -> None:
    async def scenario() -> None:
        venue = Venue(range(1, 20))
        bench = Bench(venue, random=lambda: 0.5)
        at = 1000.0
        bench.refiller._clock = lambda: at
        counts = bench.refiller.counts

        async def waited() -> float:
            nonlocal at
            at += 1000
            venue.script = [trouble]
            before = counts.refill_failures + counts.refill_pauses
            await bench.until(lambda: counts.refill_failures + counts.refill_pauses > before)
            return bench.refiller._paused_until - at

        bench.see(1, 5)
        assert [await waited() for _ in waits] == waits
        at += 1000
        await bench.until(lambda: not bench.refiller.waiting_ids())
        bench.see(9)
        assert await waited() == waits[0]

    run(scenario)


@pytest.mark.parametrize(("status", "reason"), [(400, "http_400"), (404, "http_404"), (451, "http_451")])
def test_a_refusal_is_the_reason(status: int, reason: str) -> None:
    async def scenario() -> None:
        venue = Venue([])
        bench = Bench(venue)
        venue.script = [Answer(status, b'{"code":-1121,"msg":"Invalid symbol."}')] * 2
        bench.see(1, 5)
        await bench.until(bench.given_up)
        assert bench.given_up() == [(2, 4, reason)]

    run(scenario)


def test_without_a_key_the_newest_trades_are_what_can_be_had() -> None:
    async def scenario() -> None:
        venue = Venue([])
        bench = Bench(venue, "binance_usdm")
        newest = Answer(200, json.dumps([row(i) for i in range(50, 61)]).encode())
        venue.script = [Answer(401, b'{"code":-2014,"msg":"API-key format invalid."}'), newest]
        bench.see(1, 60)
        await bench.until(bench.given_up)
        assert bench.given_up() == [(2, 49, "older_than_rest")]
        assert bench.trades() == list(range(50, 61))
        assert venue.asked == [
            "/fapi/v1/historicalTrades?symbol=BTCUSDT&fromId=2&limit=59",
            "/fapi/v1/trades?symbol=BTCUSDT&limit=1000",
        ]

    run(scenario)


def test_errors_in_the_body_are_understood() -> None:
    async def scenario() -> None:
        venue = Venue([])
        bench = Bench(venue, "kraken")
        busy, final = b'{"error":["EGeneral:Too many requests"]}', b'{"error":["EQuery:Unknown asset pair"]}'
        venue.script = [Answer(200, busy), Answer(200, final), Answer(200, final)]
        bench.see(1, 5)
        await bench.until(bench.given_up)
        assert bench.given_up() == [(2, 4, "refused")]

    run(scenario)


def test_a_quiet_symbol_gets_a_marker_of_the_refill() -> None:
    async def scenario() -> None:
        venue = Venue([1, 2, 3])
        bench = Bench(venue)
        tail = Tail({"BTC/USDT": known(1, 2)})
        bench.refiller.begin(tail)
        bench.refiller.reconnected(["BTC/USDT", "ETH/USDT"])
        bench.now_us += 5 * SECOND
        await bench.until(lambda: len(bench.put) > 1)
        page, record = bench.put
        assert bench.trades() == [3]
        assert (page.kind, record.kind, record.symbol) == (None, "marker", "BTC/USDT")
        marker = read_marker(record.payload, instruments=LISTED, received_us=record.received_us)
        assert (marker.feed, marker.symbols, marker.from_us, marker.to_us) == ("f1-refill", (0,), time_of(3), bench.now_us - 1_000)

    run(scenario)


def test_no_marker_without_known_delays() -> None:
    async def scenario() -> None:
        bench = Bench(Venue([1, 2, 3]))
        bench.bounds = None
        bench.see(1, 2)
        bench.refiller.reconnected(["BTC/USDT"])
        await bench.until(lambda: bench.trades() == [3])
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await bench.until(lambda: len(bench.put) > 1, seconds=0.5)
        bench.bounds = Bounds(0, 1_000)
        await bench.until(lambda: len(bench.put) > 1)
        assert bench.put[1].kind == "marker"

    run(scenario)


def test_a_venue_without_rest_gives_up_with_that_reason() -> None:
    async def scenario() -> None:
        bench = Bench(None)
        bench.see(1, 5)
        bench.refiller.reconnected(["BTC/USDT"])
        await bench.until(bench.given_up)
        assert bench.given_up() == [(2, 4, "no_rest_interface")]
        await bench.refiller.stop()

    run(scenario)


def test_symbols_that_are_not_listed_any_more_are_forgotten() -> None:
    async def scenario() -> None:
        venue = Venue(range(1, 20))
        bench = Bench(venue)
        bench.see(1, 5, symbol="ETH/USDT")
        bench.see(1, 3)
        assert bench.refiller.unknown() == frozenset()
        bench.refiller.change(build_instruments("binance", ["BTC/USDT", "XRP/USDT"]))
        assert bench.refiller.unknown() == {"XRP/USDT"}
        await bench.until(lambda: not bench.refiller.waiting_ids())
        bench.see(1, 9, symbol="ETH/USDT")
        await bench.until(lambda: not bench.refiller.waiting_ids())
        assert [path for path in venue.asked if "ETHUSDT" in path] == []

    run(scenario)


def test_what_the_flow_would_reject_does_not_count_as_had() -> None:
    async def scenario() -> None:
        venue = Venue([1, 2, 3, 4])
        bench = Bench(venue)
        bad = {**row(2), "price": "0"}
        venue.script = [Answer(200, json.dumps([bad, row(3), row(4)]).encode())] * 3
        bench.see(1, 4)
        await bench.until(bench.given_up)
        assert bench.given_up() == [(2, 2, "not_at_venue")]

    run(scenario)


def known(*numbers: int) -> KnownIds:
    found = KnownIds()
    found.add(np.array(numbers, np.int64), np.array([time_of(n) for n in numbers], np.int64))
    return found
