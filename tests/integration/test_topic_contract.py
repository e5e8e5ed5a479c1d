"""The contract of `connectors.topics.base.TopicLog`, the same tests for every implementation."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest

from connectors.topics.base import APPEND_SCHEMA, TopicLog
from connectors.topics.memory import MemoryTopics
from connectors.topics.registry import open_topics
from market.errors import ConfigError, InvariantViolation, PositionLost
from market.record import RAW_SCHEMA
from tests.records import numbered, offsets, payloads, read_all, records
from tests.servers.kafka import Broker

CHILD = Path(__file__).with_name("topic_child.py")
ROOT = CHILD.parents[2]


@dataclass
class Logs:
    """One implementation under test. `url` is None where other processes cannot reach it."""

    open: Callable[[], TopicLog]
    url: str | None = None
    clock: list[int] | None = None  # [epoch µs] the log takes append times from; None: the log has its own
    expires: bool = True  # `expire` is ours to do
    opened: list[TopicLog] = field(default_factory=list)

    def handle(self) -> TopicLog:
        self.opened.append(self.open())
        return self.opened[-1]


def sqlite_logs(folder: Path) -> Iterator[Logs]:
    clock = [1_700_000_000_000_000]
    url = f"sqlite:///{folder}/topics.db"
    yield Logs(lambda: open_topics(url, now_us=lambda: clock[0]), url, clock)


def memory_logs(folder: Path) -> Iterator[Logs]:
    clock = [1_700_000_000_000_000]
    log = MemoryTopics(now_us=lambda: clock[0])
    yield Logs(lambda: log, None, clock)


def kafka_logs(broker: Broker) -> Iterator[Logs]:
    yield Logs(lambda: open_topics(broker.url), broker.url, expires=False)


@pytest.fixture(params=["sqlite", "memory", "kafka"])
def logs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Logs]:
    # The broker is asked for by name: without one, only the tests of this log are skipped.
    started = {
        "sqlite": lambda: sqlite_logs(tmp_path),
        "memory": lambda: memory_logs(tmp_path),
        "kafka": lambda: kafka_logs(request.getfixturevalue("kafka_broker")),
    }
    with contextlib.contextmanager(started[request.param])() as found:
        yield found
        for log in found.opened:
            log.close()


@pytest.fixture
def log(logs: Logs) -> TopicLog:
    return logs.handle()


@pytest.fixture
def topic(log: TopicLog) -> str:
    name = f"k2_test.{uuid.uuid4().hex[:12]}"
    log.create(name, 3)
    return name


def child(logs: Logs, *arguments: object) -> subprocess.Popen[str]:
    if logs.url is None:  # the memory log is a fake for one process; SQLite and Kafka run these
        pytest.skip("this log lives in one process")
    what, *rest = arguments
    command = [sys.executable, str(CHILD), str(what), logs.url, *map(str, rest)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    with process:
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return out.splitlines()


def test_a_created_topic_is_listed_with_its_partitions(log: TopicLog, topic: str) -> None:
    assert topic in log.topics()
    assert log.topics() == sorted(log.topics())
    assert log.partitions(topic) == 3
    assert log.start_offsets(topic) == log.end_offsets(topic) == [0, 0, 0]


def test_creating_a_topic_again_changes_nothing(log: TopicLog, topic: str) -> None:
    generation = log.generation(topic)
    log.append(topic, {1: numbered(0, 5)})
    log.create(topic, 3)
    assert log.generation(topic) == generation
    assert log.end_offsets(topic) == [0, 5, 0]


def test_another_partition_count_is_refused(log: TopicLog, topic: str) -> None:
    with pytest.raises(ConfigError, match=r"3 partitions and 4 were asked"):
        log.create(topic, 4)


def test_generations_differ_between_topics(log: TopicLog, topic: str) -> None:
    other = f"{topic}_other"
    log.create(other, 3)
    assert log.generation(other) != log.generation(topic)


def test_a_topic_that_does_not_exist_is_a_config_error(log: TopicLog) -> None:
    for call in (
        lambda: log.partitions("raw.trades.nowhere"),
        lambda: log.generation("raw.trades.nowhere"),
        lambda: log.start_offsets("raw.trades.nowhere"),
        lambda: log.end_offsets("raw.trades.nowhere"),
        lambda: log.read("raw.trades.nowhere", 0, 0, 10),
        lambda: log.append("raw.trades.nowhere", {0: numbered(0, 1)}),
    ):
        with pytest.raises(ConfigError, match=r"raw\.trades\.nowhere"):
            call()


def test_a_partition_that_does_not_exist_is_a_config_error(log: TopicLog, topic: str) -> None:
    for partition in (-1, 3):
        with pytest.raises(ConfigError, match="partitions 0 to 2"):
            log.read(topic, partition, 0, 10)
        with pytest.raises(ConfigError, match="partitions 0 to 2"):
            log.append(topic, {partition: numbered(0, 1)})


def test_an_empty_partition_reads_as_none(log: TopicLog, topic: str) -> None:
    assert log.read(topic, 0, 0, 10) is None


def test_every_column_comes_back_as_it_was_given(logs: Logs, log: TopicLog, topic: str) -> None:
    rows = [
        {"key": "BTC-USDT", "source": "live", "received_us": 1_723_161_253_937_085, "kind": None, "extra_headers": None, "payload": b"{}"},
        {"key": "", "source": None, "received_us": None, "kind": "marker", "extra_headers": '{"trace":"é"}', "payload": b""},
        {"key": "ETH-USDT", "source": "refill", "received_us": -1, "kind": "event", "extra_headers": None, "payload": b"\x00\xff\n" * 50},
    ]
    given = pa.RecordBatch.from_pylist(rows, schema=APPEND_SCHEMA)
    log.append(topic, {2: given})
    (batch,) = read_all(log, topic, 2)
    assert batch.schema.equals(RAW_SCHEMA)
    assert batch.select(APPEND_SCHEMA.names).to_pylist() == rows
    assert batch.column("offset").to_pylist() == [0, 1, 2]
    if logs.clock is not None:
        assert batch.column("append_us").to_pylist() == [logs.clock[0]] * 3


def test_the_append_time_is_the_logs_own_clock(logs: Logs, log: TopicLog, topic: str) -> None:
    if logs.clock is None:  # Kafka stamps records itself; the logs whose clock is given run this
        pytest.skip("the clock is the broker's")
    log.append(topic, {0: numbered(0, 1)})
    logs.clock[0] += 250
    log.append(topic, {0: numbered(1, 1)})
    first, second = (t for b in read_all(log, topic, 0) for t in b.column("append_us").to_pylist())
    assert second - first == 250


def test_order_is_kept_in_each_partition(log: TopicLog, topic: str) -> None:
    for i in range(0, 400, 20):
        log.append(topic, {0: numbered(i, 20), 2: numbered(1_000 + i, 7)})
    assert payloads(read_all(log, topic, 0)) == [b"%d" % i for i in range(400)]
    assert payloads(read_all(log, topic, 2)) == [b"%d" % (1_000 + i + j) for i in range(0, 400, 20) for j in range(7)]
    assert log.end_offsets(topic) == [400, 0, 140]


def test_several_topics_take_one_append(log: TopicLog, topic: str) -> None:
    other = f"{topic}-other"
    log.create(other, 1)
    for i in range(0, 100, 20):
        log.append_all({topic: {0: numbered(i, 20), 2: numbered(i, 1)}, other: {0: numbered(i, 3)}})
    assert payloads(read_all(log, topic, 0)) == [b"%d" % i for i in range(100)]
    assert payloads(read_all(log, other, 0)) == [b"%d" % (i + j) for i in range(0, 100, 20) for j in range(3)]
    assert log.end_offsets(topic) == [100, 0, 5]


def test_a_slice_of_a_batch_is_appended_as_the_slice(log: TopicLog, topic: str) -> None:
    log.append(topic, {0: numbered(0, 100).slice(40, 10)})
    assert payloads(read_all(log, topic, 0)) == [b"%d" % i for i in range(40, 50)]


def test_no_records_append_nothing(log: TopicLog, topic: str) -> None:
    log.append(topic, {})
    log.append(topic, {0: numbered(0, 0)})
    assert log.end_offsets(topic) == [0, 0, 0]


def test_records_of_another_shape_are_our_bug(log: TopicLog, topic: str) -> None:
    with pytest.raises(InvariantViolation):
        log.append(topic, {0: pa.RecordBatch.from_pylist([{"payload": b""}])})


@pytest.mark.parametrize("max_records", [1, 7, 100, 10_000])
def test_a_read_gives_at_most_max_records_and_never_skips(log: TopicLog, topic: str, max_records: int) -> None:
    appended = 0
    rng = random.Random(max_records)
    while appended < 300:
        size = rng.choice((1, 2, 30, 90))
        log.append(topic, {1: numbered(appended, size)})
        appended += size
    batches = read_all(log, topic, 1, max_records)
    assert max(b.num_rows for b in batches) <= max_records
    assert payloads(batches) == [b"%d" % i for i in range(appended)]
    assert offsets(batches) == list(range(appended))


def test_any_offset_can_be_read_first(log: TopicLog, topic: str) -> None:
    for i in range(30):
        log.append(topic, {0: numbered(i * 10, 10)})
    for offset in random.Random(1).sample(range(300), 40):
        batch = log.read(topic, 0, offset, 13)
        while batch is None:
            batch = log.read(topic, 0, offset, 13)
        assert batch.column("offset")[0].as_py() == offset
        assert payloads([batch]) == [b"%d" % i for i in range(offset, offset + batch.num_rows)]


def test_the_end_is_none_until_more_comes(log: TopicLog, topic: str) -> None:
    log.append(topic, {0: numbered(0, 3)})
    assert log.read(topic, 0, 3, 10) is None
    log.append(topic, {0: numbered(3, 2)})
    assert payloads(read_all(log, topic, 0, offset=3)) == [b"3", b"4"]


def test_an_offset_past_the_end_is_lost(log: TopicLog, topic: str) -> None:
    log.append(topic, {0: numbered(0, 3)})
    with pytest.raises(PositionLost, match=r"offset 4 .*0 up to 3.*k2 recover"):
        log.read(topic, 0, 4, 10)


def test_large_appends_come_back_whole(log: TopicLog, topic: str) -> None:
    log.append(topic, {0: numbered(0, 30_000), 1: records([b"x" * 300_000] * 5)})
    assert payloads(read_all(log, topic, 0, 10_000)) == [b"%d" % i for i in range(30_000)]
    assert payloads(read_all(log, topic, 1)) == [b"x" * 300_000] * 5


def test_another_handle_sees_what_was_appended(logs: Logs, log: TopicLog, topic: str) -> None:
    other = logs.handle()
    log.append(topic, {0: numbered(0, 10)})
    assert payloads(read_all(other, topic, 0)) == [b"%d" % i for i in range(10)]
    assert other.generation(topic) == log.generation(topic)


def test_a_closed_log_can_be_opened_again_with_everything_in_it(logs: Logs, log: TopicLog, topic: str) -> None:
    log.append(topic, {0: numbered(0, 10)})
    generation = log.generation(topic)
    log.close()
    again = logs.handle()
    assert again.generation(topic) == generation
    assert payloads(read_all(again, topic, 0)) == [b"%d" % i for i in range(10)]


def expiring(logs: Logs) -> list[int]:
    if not logs.expires or logs.clock is None:  # Kafka: `test_retention_of_the_url_expires_records` and lost positions in test_kafka
        pytest.skip("expiry is the broker's job")
    return logs.clock


def test_expiry_moves_the_start_and_keeps_offsets(logs: Logs, log: TopicLog, topic: str) -> None:
    clock = expiring(logs)
    for i in range(4):
        log.append(topic, {0: numbered(i * 2_000, 2_000), 1: numbered(0, 2_000)})
        clock[0] += 1_000_000
    assert log.expire(topic, {0: 4_500}, clock[0]) == 4_000
    assert log.start_offsets(topic) == [4_000, 0, 0]
    assert log.end_offsets(topic) == [8_000, 8_000, 0]
    assert payloads(read_all(log, topic, 0)) == [b"%d" % i for i in range(4_000, 8_000)]
    with pytest.raises(PositionLost, match=r"offset 3999 has expired.*4000 up to 8000.*k2 recover"):
        log.read(topic, 0, 3_999, 10)


def test_expiry_keeps_what_is_young(logs: Logs, log: TopicLog, topic: str) -> None:
    clock = expiring(logs)
    born = clock[0]
    for i in range(4):
        log.append(topic, {0: numbered(i * 2_000, 2_000)})
        clock[0] += 1_000_000
    assert log.expire(topic, {0: 8_000}, born) == 0
    assert log.expire(topic, {0: 8_000}, born + 1_000_001) == 4_000
    assert log.start_offsets(topic) == [4_000, 0, 0]


def test_offsets_go_on_after_everything_has_expired(logs: Logs, log: TopicLog, topic: str) -> None:
    clock = expiring(logs)
    log.append(topic, {0: numbered(0, 3_000)})
    assert log.expire(topic, {0: 3_000, 1: 0}, clock[0] + 1) == 3_000
    assert log.start_offsets(topic) == log.end_offsets(topic) == [3_000, 0, 0]
    assert log.read(topic, 0, 3_000, 10) is None
    log.append(topic, {0: numbered(0, 1)})
    assert offsets(read_all(log, topic, 0)) == [3_000]


def test_a_reader_in_the_middle_of_a_block_is_told_when_it_expires(logs: Logs, log: TopicLog, topic: str) -> None:
    clock = expiring(logs)
    log.append(topic, {0: numbered(0, 3_000)})
    assert log.read(topic, 0, 0, 10) is not None
    log.expire(topic, {0: 3_000}, clock[0] + 1)
    with pytest.raises(PositionLost):
        log.read(topic, 0, 10, 10)


def test_another_process_tails_what_is_being_appended(logs: Logs, log: TopicLog, topic: str) -> None:
    reader = child(logs, "tail", topic, 0, 3_000, 97)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    for i in range(300):
        log.append(topic, {0: numbered(i * 10, 10)})
    assert lines_of(reader) == [str(i) for i in range(3_000)]


def test_writers_in_several_processes_share_a_topic(logs: Logs, log: TopicLog, topic: str) -> None:
    writers = [child(logs, "append", topic, first, 60, 5) for first in (0, 1_000, 2_000)]
    for writer in writers:
        assert len(lines_of(writer)) == 60
    for partition in (0, 1):
        seen = [int(p) for p in payloads(read_all(log, topic, partition))]
        assert offsets(read_all(log, topic, partition)) == list(range(900))
        for first in (0, 5_000, 10_000):
            assert [n for n in seen if first <= n < first + 5_000] == list(range(first, first + 300))


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_writer_loses_nothing_it_was_told_is_there(logs: Logs, log: TopicLog, topic: str, seed: int) -> None:
    size = 400
    writer = child(logs, "append", topic, 0, 100_000, size)
    assert writer.stdout is not None
    with writer:
        for _ in range(random.Random(seed).randint(5, 60)):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = [line for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    acknowledged = int(rest[-1]) if rest else acknowledged
    ends = log.end_offsets(topic)
    for partition in (0, 1):
        seen = [int(p) for p in payloads(read_all(log, topic, partition))]
        assert seen == list(range(ends[partition])), "no holes, nothing twice"
        assert ends[partition] >= (acknowledged + 1) * size
    if log.atomic_appends:
        assert ends[0] == ends[1]
        assert ends[0] % size == 0, "an append is there whole or not at all"
    log.append(topic, {0: numbered(ends[0], 1)})
    assert log.end_offsets(topic)[0] == ends[0] + 1
