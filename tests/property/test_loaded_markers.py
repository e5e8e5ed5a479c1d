"""Whatever a recording looks like, its markers vouch only for frames that stand before them, and for all they can."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from connectors.files.loader import load_capture
from connectors.topics.memory import MemoryTopics
from market.instrument import partition_of
from market.record import topic_name
from tests.fake_venue import HEARTBEAT, INSTRUMENTS, LISTED, FakeVenue, ack_frame, trade_frame

START_US = 1_700_000_000_000_000
TOPIC = topic_name("binance")
VENUE = FakeVenue()


@dataclass
class Recording:
    """Frames as (connection, receive time in µs, frame), in file order."""

    frames: list[tuple[int, int, bytes]] = field(default_factory=list)

    def write(self, path: Path, *, layout: str) -> Path:
        lines: list[bytes] = []
        for connection, received, frame in self.frames:
            if layout == "plain":
                lines.append(frame)
            elif layout == "timed":
                lines.append(b"%d%03d %s" % (received, received % 1_000, frame))
            else:
                ts = f"{received // 1_000_000}.{received % 1_000_000:06d}"
                lines.append(
                    b'{"t":"recv","conn":"c%d","ts":%s,"data":%s}' % (connection, ts.encode(), json.dumps(frame.decode()).encode())
                )
        path.write_bytes(b"\n".join(lines) + b"\n")
        return path


def random_recording(rng: random.Random, connections: int) -> Recording:
    """Trades of several symbols with jitter, equal times, snapshots, late acks, silences and a clock that steps."""
    recording = Recording()
    clock_error = rng.choice((0, -1_270_000, 300_000))
    venue_time, received = START_US, 0
    symbols = rng.sample(LISTED, rng.randint(1, len(LISTED)))
    begins = {s: rng.randint(0, 60) for s in symbols}
    last: dict[str, int] = {}
    for step in range(rng.randint(1, 300)):
        venue_time += rng.choice((0, 1, 900, 40_000, 250_000, rng.randint(0, 3_000_000)))
        if rng.random() < 0.01:
            clock_error -= rng.randint(0, 400_000)
        received = max(received, venue_time) + rng.randint(0, 30_000)
        connection = rng.randrange(connections)
        ready = [s for s in symbols if begins[s] <= step]
        kind = rng.random()
        if kind < 0.1 or not ready:
            frame = HEARTBEAT
        elif kind < 0.15:
            frame = ack_frame(*rng.sample(ready, rng.randint(1, len(ready))))
        elif kind < 0.2:
            frame = trade_frame({rng.choice(ready): [venue_time - rng.randint(1, 10**10)]}, snapshot=True)
        else:
            times = {}
            for symbol in rng.sample(ready, min(len(ready), rng.choice((1, 1, 1, 2)))):
                newest = venue_time - rng.randint(0, 200_000)
                times[symbol] = [newest - rng.randint(0, 50_000) for _ in range(rng.randint(1, 3))]
                last[symbol] = newest
            frame = trade_frame(times)
        recording.frames.append((connection, received + clock_error, frame))
    return recording


@dataclass
class Marker:
    place: int  # among the records of its partition
    body: dict[str, Any]


def written(log: MemoryTopics) -> list[tuple[int, list[dict[str, Any]]]]:
    found = []
    for partition in range(log.partitions(TOPIC)):
        batch = log.read(TOPIC, partition, 0, 1_000_000)
        found.append((partition, [] if batch is None else batch.to_pylist()))
    return found


def markers_of(records: list[dict[str, Any]]) -> list[Marker]:
    return [Marker(i, json.loads(r["payload"])) for i, r in enumerate(records) if r["kind"] == "marker"]


def times_of(record: dict[str, Any]) -> list[int]:
    """Event times of the live trades of the record's own symbol."""
    found = json.loads(record["payload"])
    return [] if record["kind"] or found.get("snapshot") else found.get("trades", {}).get(record["key"].replace("-", "/"), [])


def load(path: Path, *, atomic: bool = True) -> MemoryTopics:
    log = MemoryTopics(now_us=lambda: START_US)
    log.atomic_appends = atomic
    load_capture(log, "binance", VENUE, INSTRUMENTS, [path], partitions=2)
    return log


def assert_markers_are_true(log: MemoryTopics) -> None:
    for partition, records in written(log):
        chains: dict[tuple[str, str], int] = {}
        for marker in markers_of(records):
            body = marker.body
            assert body["from_us"] < body["to_us"]
            assert body["exchange"] == "binance"
            for symbol in body["symbols"]:
                assert partition_of(symbol, 2) == partition
                assert chains.get((body["feed"], symbol), body["from_us"]) == body["from_us"], "a hole in the assertion"
                chains[body["feed"], symbol] = body["to_us"]
                later = [t for r in records[marker.place :] if r["key"] == symbol.replace("/", "-") for t in times_of(r)]
                assert all(t > body["to_us"] for t in later), "a trade stands behind the marker that vouches for it"


def expected_bounds(recording: Recording) -> tuple[int, int] | None:
    """Smallest and largest delay over the file, by hand."""
    reached, delays = 0, []
    for _, received, frame in recording.frames:
        reached = max(reached, received)
        delays += [reached - t for t in VENUE.event_times(frame)]
    return (min(delays), max(delays)) if delays else None


def expected_stretches(recording: Recording) -> dict[tuple[int, str], tuple[int, int]]:
    """(connection, symbol) -> from and to of everything that may be asserted, by hand."""
    bounds = expected_bounds(recording)
    if bounds is None:
        return {}
    names: dict[int, int] = {}
    reached = 0
    acks: dict[tuple[int, str], int] = {}
    trades: dict[tuple[int, str], int] = {}
    alive: dict[int, int] = {}
    for name, received, frame in recording.frames:
        connection = names.setdefault(name, len(names))
        reached = max(reached, received)
        alive[connection] = reached
        for symbol in VENUE.confirmed_by(frame, INSTRUMENTS):
            acks.setdefault((connection, symbol), reached)
        for symbol in VENUE.symbols_in(frame, INSTRUMENTS):
            trades.setdefault((connection, symbol), reached)
    stretches = {place: (start - bounds[0], alive[place[0]] - bounds[1]) for place, start in {**trades, **acks}.items()}
    return {place: (frm, to) for place, (frm, to) in stretches.items() if frm < to}


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("layout", ["timed", "envelope"])
def test_markers_vouch_for_what_stands_before_them(tmp_path: Path, layout: str, seed: int) -> None:
    rng = random.Random(seed)
    recording = random_recording(rng, 2 if layout == "envelope" else 1)
    log = load(recording.write(tmp_path / "capture", layout=layout), atomic=seed % 2 == 0)
    assert_markers_are_true(log)
    asserted: dict[tuple[int, str], list[int]] = defaultdict(list)
    for _, records in written(log):
        for marker in markers_of(records):
            connection = int(marker.body["feed"].split("-")[2]) if marker.body["feed"].count("-") == 2 else 0
            for symbol in marker.body["symbols"]:
                asserted[connection, symbol] += [marker.body["from_us"], marker.body["to_us"]]
    assert {place: (min(t), max(t)) for place, t in asserted.items()} == expected_stretches(recording)


@pytest.mark.parametrize("seed", range(40))
def test_without_receive_times_the_highest_event_time_stands_in(tmp_path: Path, seed: int) -> None:
    recording = random_recording(random.Random(1_000 + seed), 1)
    log = load(recording.write(tmp_path / "capture", layout="plain"))
    assert_markers_are_true(log)
    highest = 0
    events = [t for _, _, frame in recording.frames for t in VENUE.event_times(frame)]
    first = next((max(VENUE.event_times(f)) for _, _, f in recording.frames if VENUE.event_times(f)), None)
    received = {r["received_us"] for _, records in written(log) for r in records}
    expected = set()
    for _, _, frame in recording.frames:
        highest = max([highest, *VENUE.event_times(frame)])
        expected.add(highest or first)
    assert received == expected
    if events:
        assert max(t for t in received if t is not None) == max(events)


@pytest.mark.parametrize("seed", range(20))
def test_every_frame_is_written_once_for_each_of_its_symbols(tmp_path: Path, seed: int) -> None:
    recording = random_recording(random.Random(2_000 + seed), 1)
    log = load(recording.write(tmp_path / "capture", layout="timed"))
    expected: Counter[tuple[int, str, int, bytes]] = Counter()
    for _, received, frame in recording.frames:
        symbols = VENUE.symbols_in(frame, INSTRUMENTS)
        homes = [(partition_of(s, 2), s.replace("/", "-")) for s in symbols] or [(0, "")]
        expected.update((partition, key, received, frame) for partition, key in homes)
    frames = [(p, r) for p, records in written(log) for r in records if r["kind"] is None]
    assert Counter((p, r["key"], r["received_us"], r["payload"]) for p, r in frames) == expected
    assert {r["source"] for _, r in frames} <= {"live"}


@pytest.mark.parametrize("seed", range(10))
def test_loading_a_file_again_repeats_it_exactly(tmp_path: Path, seed: int) -> None:
    path = random_recording(random.Random(3_000 + seed), 2).write(tmp_path / "capture", layout="envelope")
    log = load(path)
    once = written(log)
    load_capture(log, "binance", VENUE, INSTRUMENTS, [path])
    for (_, first), (_, both) in zip(once, written(log), strict=True):
        n = len(first)
        strip = [{k: v for k, v in r.items() if k != "offset"} for r in both]
        assert strip[:n] == strip[n:]
