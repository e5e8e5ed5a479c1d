"""The plan of a refill against venues of which all is known: any losses, outages, lags and failures, on a clock of the test's own.

Whatever happens, nothing that the venue can still return is given up, all of it is had in the end, what cannot be had is
given up, and every proof is true at the moment it is made.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.live.delays import Bounds
from connectors.refill.refill_plan import Ask, Pace, RefillPlan
from connectors.venues.base import Venue
from connectors.venues.registry import VENUES, build_instruments
from market.instrument import Instrument
from market.interval import SECOND

START = 1_767_225_600 * SECOND
STEP = SECOND // 10
LAG = SECOND
PAGE = 20
EXCHANGES = {"binance": "BTC/USDT", "kraken": "BTC/USD", "coinbase": "BTC/USD"}


@dataclass
class World:
    """One symbol of one venue; times are the venue's, our clock is `offset` ahead of it."""

    rng: random.Random
    venue: Venue
    instrument: Instrument
    offset: int
    now: int = START  # the venue's clock
    times: dict[int, int] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)  # sent by nobody
    live: list[tuple[int, int]] = field(default_factory=list)  # (when it arrives, id)
    subscribed: bool = True
    next_id: int = 1_000

    def trade(self, rate: float, loss: float) -> None:
        for _ in range(self.rng.choices([0, 1, 5], [1 - rate, rate * 0.8, rate * 0.2])[0]):
            number, self.next_id = self.next_id, self.next_id + 1
            newest = max(self.times.values(), default=START)
            self.times[number] = max(newest, self.now + self.rng.randrange(STEP))
            if self.rng.random() < loss / 3:
                self.lost.add(number)
            elif self.subscribed and self.rng.random() >= loss:
                self.live.append((self.times[number] + self.rng.randrange(20_000, 300_000), number))

    def arrived(self) -> list[int]:
        found = [number for at, number in self.live if at <= self.now]
        self.live = [(at, number) for at, number in self.live if at > self.now]
        return found

    def page(self, ask: Ask) -> tuple[list[int], int]:
        """The ids that REST returns now, and the rows that were asked for."""
        request = self.venue.page_request(self.instrument, ask.wanted)
        query = dict(part.split("=") for part in request.path.partition("?")[2].split("&"))
        lag = self.rng.randrange(LAG * 9 // 10)
        there = [n for n in sorted(self.times) if n not in self.lost and self.times[n] + lag <= self.now]
        if "fromId" in query:
            return [n for n in there if n >= int(query["fromId"])][: int(query["limit"])], request.rows
        if "since" in query:
            return [n for n in there if self.times[n] * 1000 > int(query["since"])][: int(query["count"])], request.rows
        if "after" in query:
            there = [n for n in there if n < int(query["after"])]
        if "before" in query:
            there = [n for n in there if n > int(query["before"])]
        return there[: -int(query["limit"]) - 1 : -1], request.rows


class Run:
    """Drives a plan through a world."""

    def __init__(self, world: World, page_rows: int = PAGE) -> None:
        self.world = world
        pace = Pace(settle_seconds=0.5, again_seconds=(0.5, 1.0), lag_us=LAG)
        rest = world.venue.rest
        self.plan = RefillPlan(page_rows, pace, by_time=rest is not None and rest.wholly_by_time)
        self.bounds = Bounds(world.offset + 20_000, world.offset + 300_000 + STEP)
        self.known: set[int] = set()
        self.given_up: set[int] = set()
        self.proved: list[tuple[int, int]] = []
        self.under_way: tuple[Ask, int, list[int], int, int] | None = None
        self.reconnected_at = 0
        self.known_at_reconnect = False

    @property
    def at(self) -> float:
        return (self.world.now - START) / SECOND

    @property
    def now_us(self) -> int:
        return self.world.now + self.world.offset

    def reconnect(self) -> None:
        self.world.subscribed = True
        self.reconnected_at, self.known_at_reconnect = self.world.now, bool(self.known)
        self.plan.reconnected(["A/B"], self.now_us, self.at, self.bounds if self.world.rng.random() < 0.9 else None)

    def step(self, *, rate: float, loss: float, trouble: float) -> None:
        w = self.world
        w.trade(rate, loss)
        w.now += STEP
        self._observe(w.arrived())
        if self.under_way is not None and self.under_way[1] <= w.now:
            ask, _, page, rows, asked_us = self.under_way
            self.under_way = None
            self._answer(ask, page, rows, asked_us, trouble)
        for proof in self.plan.proofs(self.at, self.bounds):
            missing = [n for n, t in w.times.items() if proof.from_us < t <= proof.to_us and n not in self.known | w.lost]
            assert missing == []
            self.proved.append((proof.from_us, proof.to_us))
        if self.under_way is None:
            found = self.plan.next(self.at, self.now_us, self.bounds)
            if found is not None:
                page, rows = w.page(found)
                self.under_way = found, w.now + w.rng.randrange(10 * STEP), page, rows, self.now_us

    def _observe(self, ids: list[int]) -> None:
        self.world.rng.shuffle(ids)
        self.known |= set(ids)
        self.plan.observed("A/B", np.array(ids, np.int64), np.array([self.world.times[n] for n in ids], np.int64), self.at)

    def _answer(self, ask: Ask, page: list[int], rows: int, asked_us: int, trouble: float) -> None:
        if self.world.rng.random() < trouble:
            self.plan.put_off(ask, self.at + self.world.rng.random() * 3)
            return
        times = np.array([self.world.times[n] for n in page], np.int64)
        full = len(page) >= rows
        new, given = self.plan.answered(ask, np.array(page, np.int64), times, is_full=full, asked_us=asked_us, at=self.at)
        assert new == len(set(page) - self.known)
        self.known |= set(page)
        for part in given:
            assert part.reason == "not_at_venue"
            numbers = set(range(part.first, part.last + 1))
            assert part.first <= part.last
            assert numbers <= self.world.lost
            assert not numbers & self.given_up
            self.given_up |= numbers


@pytest.mark.parametrize("exchange", EXCHANGES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    rate=st.sampled_from([0.02, 0.3, 0.9]),
    loss=st.sampled_from([0.0, 0.05, 0.3]),
    trouble=st.sampled_from([0.0, 0.3]),
    outages=st.lists(st.integers(1, 120), max_size=4),
    offset=st.sampled_from([-1_300_000, 0, 700_000]),
)
def test_all_that_can_be_had_is_had(
    exchange: str, seed: int, rate: float, loss: float, trouble: float, outages: list[int], offset: int
) -> None:
    instrument = build_instruments(exchange, [EXCHANGES[exchange]]).listed[0]
    world = World(random.Random(seed), VENUES[exchange], instrument, offset)
    run = Run(world)
    run.reconnect()
    for outage in outages:
        for _ in range(world.rng.randrange(60)):
            run.step(rate=rate, loss=loss, trouble=trouble)
        world.subscribed = False
        world.live = world.live[: world.rng.randrange(len(world.live) + 1)]
        for _ in range(outage):
            run.step(rate=rate, loss=loss, trouble=trouble)
        run.reconnect()
    for _ in range(100):
        run.step(rate=rate, loss=0.0, trouble=trouble)
    for _ in range(3_000):
        run.step(rate=0.0, loss=0.0, trouble=0.0)
    assert run.plan.next(run.at + 1_000, run.now_us, run.bounds) is None
    assert run.plan.waiting_ids() == 0
    if not run.known:
        return
    between = set(range(min(run.known), max(run.known) + 1))
    assert between - run.known == world.lost & between == run.given_up
    if run.known_at_reconnect:
        # A symbol that fell silent is proved silent up to where its connection vouches, unless its ids reach as far.
        newest = max(world.times[n] for n in run.known)
        assert max([newest, *(to for _, to in run.proved)]) >= run.reconnected_at + SECOND - STEP


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_long_outage_is_paged_through(exchange: str) -> None:
    instrument = build_instruments(exchange, [EXCHANGES[exchange]]).listed[0]
    world = World(random.Random(5), VENUES[exchange], instrument, 0)
    run = Run(world, page_rows=PAGE)
    for _ in range(30):
        run.step(rate=0.9, loss=0.0, trouble=0.0)
    before, world.subscribed, world.live = max(run.known), False, []
    for _ in range(2_000):
        world.trade(0.9, 0.0)
        world.now += STEP
    run.reconnect()
    for _ in range(60):
        run.step(rate=0.9, loss=0.0, trouble=0.0)
    assert max(run.known) - before > 1_000
    for _ in range(3_000):
        run.step(rate=0.0, loss=0.0, trouble=0.0)
    assert set(world.times) >= run.known >= {n for n in world.times if n >= before}
