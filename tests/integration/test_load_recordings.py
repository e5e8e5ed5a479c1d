"""The recordings of tests/data through the loader, with the real venues, into both local logs."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.files.capture import read_capture
from connectors.files.loader import export_raw, load_capture, load_raw
from connectors.topics.base import TopicLog
from connectors.topics.memory import MemoryTopics
from connectors.topics.registry import open_topics
from connectors.venues.registry import build_instruments, venue
from market.instrument import Instruments, partition_of
from market.record import topic_name
from tests.records import read_all
from tests.servers.kafka import Broker

DATA = Path(__file__).parents[1] / "data"
NOW_US = 1_800_000_000_000_000


class Recording:
    """A recording and what it was made of."""

    def __init__(self, exchange: str, symbols: list[str], *files: str) -> None:
        self.exchange, self.topic = exchange, topic_name(exchange)
        self.venue = venue(exchange)
        self.instruments: Instruments = build_instruments(exchange, list(symbols))
        self.files = [DATA / exchange / f for f in files]

    def load(self, log: TopicLog, *files: Path) -> TopicLog:
        load_capture(log, self.exchange, self.venue, self.instruments, files or self.files)
        return log


RECORDINGS: dict[str, Callable[[], Recording]] = {
    "binance": lambda: Recording("binance", ["BTC/USDT"], "btcusdt_20240808.gz", "btcusdt_20240809.gz"),
    "kraken": lambda: Recording("kraken", ["BTC/USD", "ETH/USD"], "live-btc-eth_20260707.ndjson.gz"),
    "coinbase": lambda: Recording("coinbase", ["BTC/USD", "ETH/USD"], "COINBASE_part1.jsonl.gz"),
}


@pytest.fixture(params=RECORDINGS)
def recording(request: pytest.FixtureRequest) -> Recording:
    return RECORDINGS[request.param]()


def records(log: TopicLog, topic: str) -> list[list[dict[str, Any]]]:
    return [[r for b in read_all(log, topic, p, 10_000) for r in b.to_pylist()] for p in range(log.partitions(topic))]


def without_place(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in {"offset", "append_us"}} for r in rows]


def memory() -> MemoryTopics:
    return MemoryTopics(now_us=lambda: NOW_US)


def test_every_frame_is_there_verbatim_under_its_symbols(recording: Recording) -> None:
    log = recording.load(memory())
    expected: Counter[tuple[str, bytes]] = Counter()
    for path in recording.files:
        for frame in read_capture(path):
            symbols = recording.venue.symbols_in(frame.payload, recording.instruments)
            expected.update([(s.replace("/", "-"), frame.payload) for s in symbols] or [("", frame.payload)])
    found: Counter[tuple[str, bytes]] = Counter()
    for partition, rows in enumerate(records(log, recording.topic)):
        for row in rows:
            if row["kind"] is None:
                found[row["key"], row["payload"]] += 1
                assert partition == (partition_of(row["key"].replace("-", "/"), 4) if row["key"] else 0)
                assert row["source"] == "live"
    assert found == expected
    assert any(key for key, _ in found)


def test_no_live_trade_stands_behind_a_marker_that_vouches_for_it(recording: Recording) -> None:
    for path in recording.files:
        log = recording.load(memory(), path)
        markers = 0
        for rows in records(log, recording.topic):
            earliest: dict[str, int] = defaultdict(lambda: 1 << 62)  # of the trades behind, by key
            for row in reversed(rows):
                if row["kind"] == "marker":
                    markers += 1
                    body = json.loads(row["payload"])
                    assert all(earliest[s.replace("/", "-")] > body["to_us"] for s in body["symbols"])
                elif row["key"]:
                    earliest[row["key"]] = min([earliest[row["key"]], *recording.venue.event_times(row["payload"])])
        assert markers > 0


def test_stretches_are_chained_and_reach_from_the_first_trade_to_the_last(recording: Recording) -> None:
    for path in recording.files:
        log = recording.load(memory(), path)
        chains: dict[str, list[tuple[int, int]]] = defaultdict(list)
        times: dict[str, list[int]] = defaultdict(list)
        received = []
        for rows in records(log, recording.topic):
            for row in rows:
                received.append(row["received_us"])
                if row["kind"] == "marker":
                    body = json.loads(row["payload"])
                    for symbol in body["symbols"]:
                        chains[symbol].append((body["from_us"], body["to_us"]))
                elif row["key"]:
                    times[row["key"].replace("-", "/")] += recording.venue.event_times(row["payload"])
        assert None not in received
        assert set(chains) == {i.canonical for i in recording.instruments.listed}
        for symbol, chain in chains.items():
            assert all(a[1] == b[0] for a, b in itertools.pairwise(chain))
            covered = sum(chain[0][0] < t <= chain[-1][1] for t in times[symbol])
            assert covered >= 0.8 * len(times[symbol]), "nearly everything is vouched for"


def test_the_bounds_of_the_binance_recording_are_those_measured_by_hand() -> None:
    recording = RECORDINGS["binance"]()
    for path in recording.files:
        delays, trades, received = [], [], 0
        for line in gzip.decompress(path.read_bytes()).splitlines():
            receive_ns, frame = line.split(b" ", 1)
            received = int(receive_ns) // 1_000
            if b"@trade" in frame:
                trades.append(received)
                delays.append(received - json.loads(frame)["data"]["T"] * 1_000)
        (rows,) = (r for r in records(recording.load(memory(), path), recording.topic) if any(x["key"] for x in r))
        markers = [json.loads(r["payload"]) for r in rows if r["kind"] == "marker"]
        assert markers[0]["from_us"] == trades[0] - min(delays)
        assert markers[-1]["to_us"] == received - max(delays)
        assert rows[-1]["kind"] == "marker"
        assert 290 <= len(markers) <= 345, "about one a second"


def test_coinbase_is_covered_from_its_acknowledgement() -> None:
    recording = RECORDINGS["coinbase"]()
    acks, delays = [], []
    for frame in read_capture(recording.files[0]):
        assert frame.receive_us is not None
        if recording.venue.confirmed_by(frame.payload, recording.instruments):
            acks.append(frame.receive_us)
        delays += [frame.receive_us - t for t in recording.venue.event_times(frame.payload)]
    log = recording.load(memory())
    first = [json.loads(r["payload"])["from_us"] for rows in records(log, recording.topic) for r in rows if r["kind"] == "marker"]
    assert min(first) == acks[0] - min(delays)


def test_kraken_takes_its_event_times_for_receive_times() -> None:
    recording = RECORDINGS["kraken"]()
    highest = 0
    expected = []
    for frame in read_capture(recording.files[0]):
        highest = max([highest, *recording.venue.event_times(frame.payload)])
        expected.append(highest)
    first = next(t for t in expected if t)
    rows = [r for part in records(recording.load(memory()), recording.topic) for r in part if r["kind"] is None]
    assert Counter(r["received_us"] for r in rows) == Counter(t or first for t in expected)


def test_loading_again_repeats_every_record(recording: Recording) -> None:
    log = recording.load(memory())
    once = records(log, recording.topic)
    recording.load(log)
    for first, both in zip(once, records(log, recording.topic), strict=True):
        assert without_place(both) == without_place(first) * 2


def test_the_sqlite_log_holds_the_same_records(recording: Recording, tmp_path: Path) -> None:
    log = open_topics(f"sqlite:///{tmp_path}/topics.db", now_us=lambda: NOW_US)
    assert records(recording.load(log), recording.topic) == records(recording.load(memory()), recording.topic)
    log.close()


def test_a_raw_export_of_a_recording_comes_back_as_it_was(recording: Recording, tmp_path: Path) -> None:
    log = recording.load(memory())
    path = tmp_path / "raw.jsonl"
    path.write_bytes(b"".join(export_raw(log, recording.exchange)))
    again = memory()
    load_raw(again, recording.exchange, path)
    assert records(again, recording.topic) == records(log, recording.topic)


def test_a_broker_holds_the_same_frames_and_vouches_for_them(kafka_broker: Broker) -> None:
    recording = RECORDINGS["kraken"]()
    exchange = f"test_{uuid.uuid4().hex[:12]}"
    log = open_topics(kafka_broker.url)
    load_capture(log, exchange, recording.venue, recording.instruments, recording.files)
    expected = records(recording.load(memory()), recording.topic)
    found = records(log, topic_name(exchange))
    for there, here in zip(found, expected, strict=True):
        frames = [[r for r in without_place(rows) if r["kind"] is None] for rows in (there, here)]
        assert frames[0] == frames[1]
        markers = [[json.loads(r["payload"]) for r in rows if r["kind"]] for rows in (there, here)]
        assert bool(markers[0]) == bool(markers[1])
        if markers[0]:
            assert markers[0][0]["from_us"] == markers[1][0]["from_us"]
            assert markers[0][-1]["to_us"] == markers[1][-1]["to_us"]
            assert all(a["to_us"] == b["from_us"] for a, b in itertools.pairwise(markers[0]))
    log.close()


@pytest.mark.parametrize("seed", range(3))
def test_damaged_frames_never_stop_a_load(recording: Recording, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    lines = []
    for i, frame in enumerate(read_capture(recording.files[0])):
        if i >= 3_000:
            break
        damaged = bytearray(frame.payload)
        for _ in range(rng.choice((0, 1, 1, 3, 10))):
            damaged[rng.randrange(len(damaged))] = rng.choice(b'{}[]",:0123456789eE.-\x00\xff\\tn')
        cut = damaged[: rng.randrange(1, len(damaged))] if rng.random() < 0.1 else damaged
        lines.append(b"%d000 %s" % (frame.receive_us or 1_783_465_203_000_000 + i, bytes(cut).replace(b"\n", b"")))
    path = tmp_path / "damaged"
    path.write_bytes(b'1 {"first":1}\n' + b"\n".join(lines))
    log = recording.load(memory(), path)
    frames = sum(r["kind"] is None for part in records(log, recording.topic) for r in part)
    assert frames >= len(lines) + 1
