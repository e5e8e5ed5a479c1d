"""Whatever happens between sockets and topic, every marker is true: what it vouches for stands before it in its partition."""

from __future__ import annotations

import contextlib
import json
import random
import tempfile
from collections import defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.live.feed import Feed
from connectors.live.feed_metrics import FeedCounts
from connectors.live.outbox import Outbox
from connectors.live.spill import Spill
from connectors.venues.registry import build_instruments, venue
from market.errors import SourceDisconnected
from market.instrument import partition_of
from tests.feeding import PARTITIONS, TOPIC, Topics

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
T0 = 1_700_000_000_000_000
SMALLEST, LARGEST = 2_000, 40_000
MS = 1_000


def frame(symbol: str, number: int, at: int) -> bytes:
    body = {"e": "trade", "E": at, "s": symbol.replace("/", ""), "t": number, "p": "1.0", "q": "1.0", "T": at, "m": True}
    return json.dumps(body, separators=(",", ":")).encode()


@dataclass
class Line:
    """One connection: what the venue has sent on it, with the time it will be received."""

    name: str
    wanted: set[str]
    active: set[str] = field(default_factory=set)
    sent: deque[tuple[int, bytes, str]] = field(default_factory=deque)  # receive time, frame, symbol it confirms
    reached: int = 0


class World:
    """A venue whose every trade is known, a feed, and a topic; the receive clock is `offset` ahead of the venue's."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.now = T0  # venue time
        self.offset = self.random.choice([-3_000_000, 0, 3_000_000])
        self.topics = Topics()
        self.trades: dict[str, list[int]] = defaultdict(list)
        self.lines: dict[str, Line] = {}
        self.made = self.processes = 0
        self.start()

    def start(self) -> None:
        """A new process: it takes over what the last one left, and learns the delays."""
        self.processes += 1
        left = Spill(self.folder, segment_bytes=1_500)
        self.outbox = Outbox(
            self.topics, Spill(self.folder, segment_bytes=1_500, after=left), [left] if left.nbytes else [], memory_bytes=3_000
        )
        listed = build_instruments("binance", SYMBOLS)
        self.feed = Feed(venue("binance"), listed, PARTITIONS, self.outbox, now_us=lambda: self.now + self.offset, counts=FeedCounts())
        self.connect()
        line = next(iter(self.lines.values()))
        received = self.now + self.offset
        for delay in (LARGEST, SMALLEST):
            self.feed.received(line.name, [frame(SYMBOLS[0], self.trade_id(SYMBOLS[0], self.now - delay), self.now - delay)], [received])
        line.reached = received
        self.feed.observe()
        self.now += 3_000_000

    def trade_id(self, symbol: str, at: int) -> int:
        self.trades[symbol].append(at)
        return len(self.trades[symbol])

    def connect(self) -> None:
        self.made += 1
        line = Line(f"c{self.made}", set(self.random.sample(SYMBOLS, self.random.randint(1, 3))), reached=self.now + self.offset)
        self.lines[line.name] = line
        self.feed.connected(line.name, build_instruments("binance", sorted(line.wanted)).listed, line.reached)

    def send(self, line: Line, content: bytes, confirms: str = "") -> None:
        at = max(line.reached, self.now + self.random.randint(SMALLEST, LARGEST) + self.offset, line.sent[-1][0] if line.sent else 0)
        line.sent.append((at, content, confirms))

    # What may happen.

    def subscribe(self) -> None:
        for line in self.lines.values():
            for symbol in sorted(line.wanted - line.active)[:1]:
                line.active.add(symbol)
                self.send(line, b'{"result":null,"id":1}', symbol)

    def trade(self) -> None:
        for _ in range(self.random.randint(1, 4)):
            symbol = self.random.choice(SYMBOLS)
            content = frame(symbol, self.trade_id(symbol, self.now), self.now)
            for line in self.lines.values():
                if symbol in line.active:
                    self.send(line, content)

    def pong(self) -> None:
        for line in self.lines.values():
            self.send(line, b"")

    def receive(self) -> None:
        for line in self.lines.values():
            while line.sent and line.sent[0][0] <= self.now + self.offset:
                at, content, confirms = line.sent.popleft()
                line.reached = at
                if not content:
                    self.feed.alive(line.name, at)
                    continue
                self.feed.received(line.name, [content], [at])
                if confirms in line.active:  # the driver confirms nothing that it has ended
                    self.feed.confirmed(line.name, [confirms], at)

    def wait(self) -> None:
        self.now += self.random.choice([1, 300, 5 * MS, 50 * MS, 200 * MS])

    def flush(self) -> None:
        self.feed.flush()

    def observe(self) -> None:
        self.feed.observe()

    def mark(self) -> None:
        self.receive()
        self.feed.mark()

    def unsubscribe(self) -> None:
        for line in self.lines.values():
            for symbol in sorted(line.active)[:1]:
                self.feed.ended(line.name, [symbol], line.reached, "test")
                line.active.discard(symbol)
                line.wanted.discard(symbol)

    def cut(self) -> None:
        if self.lines:
            line = self.lines.pop(self.random.choice(sorted(self.lines)))
            self.feed.disconnected(line.name, self.now + self.offset, "cut")

    def topic_fails(self) -> None:
        self.topics.down = not self.topics.down

    def write(self) -> None:
        with contextlib.suppress(SourceDisconnected):
            self.outbox.write_once()

    def kill(self) -> None:
        self.lines.clear()
        self.start()

    def run(self, steps: int) -> None:
        common = (self.subscribe, self.trade, self.trade, self.pong, self.receive, self.receive, self.wait, self.wait)
        actions = (*common, self.flush, self.observe, self.mark, self.mark, self.write, self.write)
        rare = (self.unsubscribe, self.cut, self.connect, self.connect, self.topic_fails, self.topic_fails, self.kill)
        for _ in range(steps):
            self.random.choice(rare if self.random.random() < 0.05 else actions)()
        self.topics.down = False
        self.mark()
        while self.outbox.write_once():
            pass

    def check(self) -> int:
        """Return how many trades the markers vouch for; fails on one that is not before its marker."""
        vouched = 0
        for partition in range(PARTITIONS):
            seen: set[tuple[str, int]] = set()
            for row in self.topics.rows():
                if row["partition"] != partition:
                    continue
                body = json.loads(row["payload"])
                if row["kind"] is None and "t" in body:
                    seen.add((row["key"].replace("-", "/"), body["t"]))
                elif row["kind"] == "marker":
                    for symbol in body["symbols"]:
                        assert partition_of(symbol, PARTITIONS) == partition
                        for number, at in enumerate(self.trades[symbol], 1):
                            if body["from_us"] < at <= body["to_us"]:
                                assert (symbol, number) in seen, (body, symbol, number, at)
                                vouched += 1
        return vouched


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_marker_is_true_under_any_schedule(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(seed, Path(folder))
        world.run(400)
        world.check()


def test_schedules_do_vouch_for_trades_and_do_spill() -> None:
    vouched = spilled = 0
    for seed in range(15):
        with tempfile.TemporaryDirectory() as folder:
            world = World(seed, Path(folder))
            world.run(400)
            vouched += world.check()
            spilled += world.outbox.backlog().spill_bytes == 0 and world.processes > 1
            assert TOPIC in world.topics.topics()
    assert vouched > 200
    assert spilled > 3
