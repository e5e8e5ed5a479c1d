from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from connectors.files.loader import LoadedFile, Progress, load_capture
from connectors.topics.memory import MemoryTopics
from market.errors import ConfigError
from market.instrument import partition_of
from market.record import topic_name
from tests.fake_venue import HEARTBEAT, INSTRUMENTS, FakeVenue, ack_frame, trade_frame

BTC, ETH = "BTC/USDT", "ETH/USDT"
TOPIC = topic_name("binance")
T0 = 1_700_000_000_000_000
HOUR = 3_600_000_000


def capture(folder: Path, *frames: tuple[int | None, bytes], name: str = "capture") -> Path:
    """A capture whose receive times count in µs from `T0`."""
    path = folder / name
    path.write_bytes(b"".join(frame + b"\n" if at is None else b"%d000 %s\n" % (T0 + at, frame) for at, frame in frames))
    return path


def trade(symbol: str, at: int) -> bytes:
    return trade_frame({symbol: [T0 + at]})


def load(log: MemoryTopics, *paths: Path, partitions: int = 1, feed: str = "import") -> list[LoadedFile]:
    return load_capture(log, "binance", FakeVenue(), INSTRUMENTS, paths, partitions=partitions, feed=feed)


def records(log: MemoryTopics, partition: int = 0) -> list[dict[str, Any]]:
    batch = log.read(TOPIC, partition, 0, 1_000_000)
    return [] if batch is None else batch.to_pylist()


def stretches(log: MemoryTopics, partition: int = 0) -> list[tuple[int, int, list[str]]]:
    """(from, to, symbols) of the markers in order, in µs from `T0`."""
    found = [json.loads(r["payload"]) for r in records(log, partition) if r["kind"] == "marker"]
    return [(m["from_us"] - T0, m["to_us"] - T0, m["symbols"]) for m in found]


@pytest.fixture
def log() -> MemoryTopics:
    return MemoryTopics(now_us=lambda: T0)


def test_delay_bounds_are_those_of_the_whole_file(tmp_path: Path, log: MemoryTopics) -> None:
    load(log, capture(tmp_path, (100, trade(BTC, 90)), (800_000, trade(BTC, 799_970)), (900_000, trade(BTC, 899_995))))
    # Delays are 10, 30 and 5: asserted from first receive - 5 up to last receive - 30.
    assert stretches(log) == [(95, 899_970, [BTC])]


def test_markers_come_about_once_a_second_and_at_the_end(tmp_path: Path, log: MemoryTopics) -> None:
    load(log, capture(tmp_path, *((at, trade(BTC, at - 10)) for at in range(100_000, 3_600_000, 100_000))))
    assert [to for _, to, _ in stretches(log)] == [999_990, 1_999_990, 2_999_990, 3_499_990]
    assert records(log)[-1]["kind"] == "marker"


def test_a_marker_carries_the_receive_time_of_the_last_proof_of_life(tmp_path: Path, log: MemoryTopics) -> None:
    load(log, capture(tmp_path, (0, trade(BTC, -5)), (700, HEARTBEAT)))
    marker = records(log)[-1]
    assert (marker["key"], marker["source"], marker["received_us"], marker["kind"]) == ("", "live", T0 + 700, "marker")
    assert stretches(log) == [(-5, 695, [BTC])]


def test_a_heartbeat_keeps_a_quiet_symbol_covered(tmp_path: Path, log: MemoryTopics) -> None:
    load(log, capture(tmp_path, (0, trade(BTC, -10)), *((at, HEARTBEAT) for at in range(500_000, 9_600_000, 500_000))))
    covered = stretches(log)
    assert covered[0][0] == -10
    assert covered[-1][1] == 9_499_990
    assert all(a[1] == b[0] for a, b in itertools.pairwise(covered))


def test_silence_advances_nothing_until_it_is_over(tmp_path: Path, log: MemoryTopics) -> None:
    load(log, capture(tmp_path, (0, trade(BTC, -10)), (500, trade(BTC, 490)), (30_000_000, HEARTBEAT), (30_000_900, HEARTBEAT)))
    assert stretches(log) == [(-10, 490, [BTC]), (490, 30_000_890, [BTC])]
    kinds = [r["kind"] for r in records(log)]
    assert kinds == [None, None, "marker", None, None, "marker"]


def test_frames_of_the_same_microsecond_stand_before_the_marker_of_that_time(tmp_path: Path, log: MemoryTopics) -> None:
    frames = [
        (0, trade(BTC, -20)),
        (1_000_000, trade(BTC, 999_980)),
        (2_000_000, HEARTBEAT),
        (2_000_000, trade(BTC, 1_999_980)),
        (3_000_000, HEARTBEAT),
    ]
    load(log, capture(tmp_path, *frames))
    assert len(stretches(log)) > 1
    for place, record in enumerate(records(log)):
        if record["kind"] == "marker":
            later = [FakeVenue().event_times(r["payload"]) for r in records(log)[place:]]
            assert all(t > json.loads(record["payload"])["to_us"] for times in later for t in times)


def test_an_acknowledgement_begins_the_assertion_of_its_symbol(tmp_path: Path, log: MemoryTopics) -> None:
    load(log, capture(tmp_path, (0, HEARTBEAT), (100, ack_frame(BTC)), (400, trade(BTC, 390)), (900, ack_frame(BTC)), (1_000, HEARTBEAT)))
    assert stretches(log) == [(90, 990, [BTC])]


def test_a_symbol_that_was_acknowledged_and_never_traded_is_covered(tmp_path: Path, log: MemoryTopics) -> None:
    load(log, capture(tmp_path, (100, ack_frame(BTC, ETH)), (400, trade(BTC, 390)), (1_000, HEARTBEAT)))
    assert stretches(log) == [(90, 990, [BTC, ETH])]


def test_a_listed_symbol_that_is_not_in_the_file_is_in_no_marker(tmp_path: Path, log: MemoryTopics) -> None:
    load(log, capture(tmp_path, (100, trade(BTC, 90)), (5_000_000, HEARTBEAT)))
    assert {s for _, _, symbols in stretches(log) for s in symbols} == {BTC}


def test_symbols_that_begin_apart_have_markers_of_their_own_first(tmp_path: Path, log: MemoryTopics) -> None:
    frames = [
        (0, trade(BTC, -10)),
        (1_000_000, HEARTBEAT),
        (1_300_000, trade(ETH, 1_299_970)),
        (2_100_000, HEARTBEAT),
        (3_200_000, HEARTBEAT),
        (3_300_000, HEARTBEAT),
    ]
    load(log, capture(tmp_path, *frames))
    assert stretches(log) == [
        (-10, 1_299_970, [BTC]),
        (1_299_970, 2_099_970, [BTC]),
        (1_299_990, 2_099_970, [ETH]),
        (2_099_970, 3_299_970, [BTC, ETH]),
    ]


def test_each_partition_with_symbols_gets_its_own_markers(tmp_path: Path, log: MemoryTopics) -> None:
    load(log, capture(tmp_path, (0, trade_frame({BTC: [T0 - 10], ETH: [T0 - 10]})), (900, HEARTBEAT)), partitions=16)
    homes = {partition_of(BTC, 16): BTC, partition_of(ETH, 16): ETH}
    assert len(homes) == 2
    for partition in range(16):
        assert stretches(log, partition) == ([(-10, 890, [homes[partition]])] if partition in homes else [])


def test_without_a_live_trade_nothing_can_be_asserted(tmp_path: Path, log: MemoryTopics) -> None:
    (loaded,) = load(log, capture(tmp_path, (0, ack_frame(BTC)), (5, trade_frame({BTC: [T0 - 9]}, snapshot=True)), (2_000_000, HEARTBEAT)))
    assert (loaded.frames, loaded.records, loaded.markers, loaded.symbols) == (3, 3, 0, (BTC,))
    assert stretches(log) == []


def test_a_snapshot_of_old_trades_does_not_widen_the_delays(tmp_path: Path, log: MemoryTopics) -> None:
    load(log, capture(tmp_path, (0, trade_frame({BTC: [T0 - HOUR]}, snapshot=True)), (500, trade(BTC, 490)), (900, HEARTBEAT)))
    assert stretches(log) == [(-10, 890, [BTC])]


@pytest.mark.parametrize("event_us", [0, -(10**30), 1_000_000_000_000_000, T0 + 2 * HOUR, T0 * 3, 1 << 62, 10**30])
def test_a_time_the_flow_refuses_does_not_widen_the_delays(tmp_path: Path, log: MemoryTopics, event_us: int) -> None:
    load(log, capture(tmp_path, (0, trade(BTC, -10)), (500, trade_frame({BTC: [event_us]})), (900, HEARTBEAT)))
    assert stretches(log) == [(-10, 890, [BTC])]


def test_a_frame_of_several_symbols_is_written_once_for_each(tmp_path: Path, log: MemoryTopics) -> None:
    frame = trade_frame({BTC: [T0 - 1], "NOT/LISTED": [T0 - 1], ETH: [T0 - 1]})
    (loaded,) = load(log, capture(tmp_path, (7, frame)))
    frames = [r for r in records(log) if r["kind"] is None]
    assert [(r["key"], r["payload"], r["received_us"], r["source"]) for r in frames] == [
        ("BTC-USDT", frame, T0 + 7, "live"),
        ("ETH-USDT", frame, T0 + 7, "live"),
    ]
    assert (loaded.frames, loaded.records) == (1, 2 + loaded.markers)


def test_a_frame_of_no_listed_symbol_goes_to_partition_0_without_a_key(tmp_path: Path, log: MemoryTopics) -> None:
    frames = [HEARTBEAT, trade_frame({"NOT/LISTED": [T0]}), b"{rubbish"]
    load(log, capture(tmp_path, *((0, f) for f in frames)), partitions=4)
    assert [(r["key"], r["payload"]) for r in records(log)] == [("", f) for f in frames]


def test_without_receive_times_frames_before_the_first_trade_take_its_time(tmp_path: Path, log: MemoryTopics) -> None:
    frames = [ack_frame(BTC), trade(BTC, 500), trade(BTC, 300), HEARTBEAT, trade(BTC, 900)]
    load(log, capture(tmp_path, *((None, f) for f in frames)))
    assert [r["received_us"] - T0 for r in records(log)] == [500, 500, 500, 500, 900, 900]
    assert stretches(log) == [(500, 700, [BTC])], "the largest delay is the 200 µs that one trade came behind a newer one"


def test_without_receive_times_one_damaged_time_moves_nothing(tmp_path: Path, log: MemoryTopics) -> None:
    far = T0 * 2
    frames = [trade(BTC, 0), trade_frame({BTC: [far]}), trade(BTC, 400), trade(BTC, 900), trade_frame({BTC: [far]})]
    load(log, capture(tmp_path, *((None, f) for f in frames)))
    assert [r["received_us"] - T0 for r in records(log)] == [0, 0, 400, 900, 900, 900]
    assert stretches(log) == [(0, 900, [BTC])]


def test_without_receive_times_a_long_pause_that_the_next_trade_confirms_is_believed(tmp_path: Path, log: MemoryTopics) -> None:
    frames = [trade(BTC, 0), trade(BTC, 5 * HOUR), trade(BTC, 5 * HOUR + 1)]
    load(log, capture(tmp_path, *((None, f) for f in frames)))
    assert [r["received_us"] - T0 for r in records(log) if r["kind"] is None] == [0, 5 * HOUR, 5 * HOUR + 1]
    assert stretches(log)[-1][1] == 5 * HOUR + 1


def test_a_single_trade_without_receive_time_is_believed(tmp_path: Path, log: MemoryTopics) -> None:
    load(log, capture(tmp_path, (None, trade(BTC, 0))))
    assert [r["received_us"] for r in records(log)] == [T0]


def test_without_any_time_the_header_is_left_out(tmp_path: Path, log: MemoryTopics) -> None:
    load(log, capture(tmp_path, (None, HEARTBEAT)))
    assert [r["received_us"] for r in records(log)] == [None]


def test_a_clock_that_steps_back_keeps_its_own_receive_times(tmp_path: Path, log: MemoryTopics) -> None:
    load(log, capture(tmp_path, (1_000, trade(BTC, 990)), (400, trade(BTC, 1_200)), (2_000, trade(BTC, 1_980))))
    assert [r["received_us"] - T0 for r in records(log) if r["kind"] is None] == [1_000, 400, 2_000]
    assert stretches(log) == [(1_200, 1_980, [BTC])], "delays are 10, 1,000 (reached) - 1,200, and 20"


def test_a_frame_without_time_among_timed_ones_takes_the_time_reached(tmp_path: Path, log: MemoryTopics) -> None:
    load(log, capture(tmp_path, (100, trade(BTC, 90)), (None, b"rubbish"), (300, HEARTBEAT)))
    assert [r["received_us"] - T0 for r in records(log)] == [100, 100, 300, 300]


def test_feed_ids_come_from_the_content_alone(tmp_path: Path) -> None:
    frames = [(0, trade(BTC, -10)), (900, HEARTBEAT)]
    plain = capture(tmp_path, *frames)
    packed = tmp_path / "other.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    other = capture(tmp_path, *frames, (901, HEARTBEAT), name="longer")
    feeds = []
    for path in (plain, packed, other):
        log = MemoryTopics(now_us=lambda: T0)
        load(log, path, feed="desk")
        feeds.append(json.loads(records(log)[-1]["payload"])["feed"])
    assert feeds[0] == feeds[1] != feeds[2]
    assert feeds[0].startswith("desk-")


class _Acknowledging(MemoryTopics):
    """A log whose appends are not all or nothing; remembers what each held."""

    atomic_appends = False

    def __init__(self) -> None:
        super().__init__(now_us=lambda: T0)
        self.appends: list[list[str | None]] = []

    def append(self, topic: str, records: Mapping[int, pa.RecordBatch]) -> None:
        self.appends.append([k for b in records.values() for k in b.column("kind").to_pylist()])
        super().append(topic, records)


def test_a_marker_waits_for_the_acknowledgement_of_its_frames(tmp_path: Path) -> None:
    log = _Acknowledging()
    load(log, capture(tmp_path, *((at * 1_000, trade(BTC, at * 1_000 - 10)) for at in range(8_000))))
    with_markers = [kinds for kinds in log.appends if "marker" in kinds]
    assert len(with_markers) >= 3
    assert all(kinds[0] == "marker" for kinds in with_markers), "no frame goes with the marker that vouches for it"
    assert [kinds for kinds in with_markers if "marker" in kinds[1:]] == []


def test_a_topic_that_exists_keeps_its_partition_count(tmp_path: Path, log: MemoryTopics) -> None:
    log.create(TOPIC, 3)
    load(log, capture(tmp_path, (0, trade(BTC, -10))), partitions=8)
    assert log.partitions(TOPIC) == 3


def test_a_file_that_cannot_be_read_leaves_the_topic_as_it_was(tmp_path: Path, log: MemoryTopics) -> None:
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(b"".join(b"%d {}\n" % i for i in range(200_000)))[:-100])
    with pytest.raises(ConfigError, match=r"broken\.gz"):
        load(log, broken)
    assert log.end_offsets(TOPIC) == [0]


def test_progress_tells_both_steps_and_the_total(tmp_path: Path, log: MemoryTopics) -> None:
    seen: list[Progress] = []
    path = capture(tmp_path, *((at, HEARTBEAT) for at in range(100)))
    load_capture(log, "binance", FakeVenue(), INSTRUMENTS, [path], progress=seen.append)
    assert [(p.step, p.done, p.total) for p in seen] == [("survey", 100, None), ("write", 100, 100)]


def test_an_empty_file_loads_as_nothing(tmp_path: Path, log: MemoryTopics) -> None:
    (loaded,) = load(log, capture(tmp_path))
    assert (loaded.frames, loaded.records, loaded.markers, loaded.symbols) == (0, 0, 0, ())


def test_an_interrupted_load_is_completed_by_loading_again(tmp_path: Path, log: MemoryTopics) -> None:
    path = capture(tmp_path, *((at * 100, trade(BTC, at * 100 - 10)) for at in range(30_000)))

    def interrupt(progress: Progress) -> None:
        if progress.step == "write":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_capture(log, "binance", FakeVenue(), INSTRUMENTS, [path], partitions=1, progress=interrupt)
    before = stretches(log)
    assert 0 < log.end_offsets(TOPIC)[0] < 30_000, "whole batches, and only those"
    load(log, path)
    after = stretches(log)[len(before) :]
    assert before == after[: len(before)], "what it asserts again is what it had asserted"
    assert {r["payload"] for r in records(log)} >= {trade(BTC, at * 100 - 10) for at in range(30_000)}


def test_a_file_that_grows_after_it_was_surveyed_is_refused(tmp_path: Path, log: MemoryTopics) -> None:
    path = capture(tmp_path, (0, trade(BTC, -10)))
    line = path.read_bytes()
    path.write_bytes(line.rstrip())  # the last line is seen at the end of the file only, so the survey ends here

    def grow(progress: Progress) -> None:
        if progress.step == "survey":
            path.write_bytes(line + line)

    with pytest.raises(ConfigError, match="grew while it was read"):
        load_capture(log, "binance", FakeVenue(), INSTRUMENTS, [path], progress=grow)
