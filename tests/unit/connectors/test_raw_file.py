from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from connectors.files.loader import export_raw, is_raw_export, load_raw
from connectors.topics.base import APPEND_SCHEMA
from connectors.topics.memory import MemoryTopics
from market.errors import ConfigError, Refused
from market.record import topic_name

TOPIC = topic_name("binance")
ROWS = [
    {
        "key": "BTC-USDT",
        "source": "live",
        "received_us": 1_723_161_253_937_085,
        "kind": None,
        "extra_headers": None,
        "payload": b'{"p":"1"}',
    },
    {"key": "", "source": "live", "received_us": 5, "kind": "marker", "extra_headers": None, "payload": '{"feed":"é\\n"}'.encode()},
    {"key": "ETH-USDT", "source": None, "received_us": None, "kind": None, "extra_headers": None, "payload": b"\x00\xff\n"},
    {
        "key": "",
        "source": "refill",
        "received_us": -1,
        "kind": "event",
        "extra_headers": '{"trace":"é","n":{"b64":"/w=="},"e":null}',
        "payload": b"",
    },
    {"key": "BTC-USDT", "source": "live", "received_us": None, "kind": None, "extra_headers": '{"received_us":"soon"}', "payload": b"x"},
    {
        "key": "BTC-USDT",
        "source": "live",
        "received_us": 7,
        "kind": None,
        "extra_headers": '{"source":["a","b"],"received_us":"8"}',
        "payload": b"x",
    },
]


def filled(partitions: int = 3, appends: int = 40) -> MemoryTopics:
    log = MemoryTopics(now_us=lambda: 1)
    log.create(TOPIC, partitions)
    rng = random.Random(3)
    for _ in range(appends):
        rows = [{**rng.choice(ROWS[:4]), "received_us": rng.choice((None, rng.randint(0, 10**16)))} for _ in range(rng.randint(1, 9))]
        log.append(TOPIC, {rng.randrange(partitions): pa.RecordBatch.from_pylist(rows, schema=APPEND_SCHEMA)})
    log.append(TOPIC, {0: pa.RecordBatch.from_pylist(ROWS, schema=APPEND_SCHEMA)})
    return log


def exported(log: MemoryTopics, path: Path) -> Path:
    path.write_bytes(b"".join(export_raw(log, "binance")))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def contents(log: MemoryTopics) -> list[list[dict[str, Any]]]:
    batches = [log.read(TOPIC, p, 0, 1_000_000) for p in range(log.partitions(TOPIC))]
    return [[] if b is None else b.to_pylist() for b in batches]


def test_each_record_is_one_json_object_in_offset_order(tmp_path: Path) -> None:
    log = filled()
    found = lines(exported(log, tmp_path / "raw"))
    assert [(r["partition"], r["offset"]) for r in found] == [(p, o) for p, end in enumerate(log.end_offsets(TOPIC)) for o in range(end)]
    assert {r["topic"] for r in found} == {TOPIC}
    assert {r["partitions"] for r in found} == {3}
    last = [r for r in found if r["partition"] == 0][-len(ROWS) :]
    assert [r["key"] for r in last] == [row["key"] for row in ROWS]
    assert last[0]["headers"] == {"source": "live", "received_us": "1723161253937085"}
    assert last[0]["payload"] == '{"p":"1"}'
    assert last[1]["headers"]["kind"] == "marker"
    assert "payload" not in last[2]
    assert last[2]["payload_b64"] == "AP8K"
    assert last[2]["headers"] == {}
    assert last[5]["headers"] == {"source": ["live", "a", "b"], "received_us": ["7", "8"]}


@pytest.mark.parametrize("packed", [False, True])
def test_an_export_comes_back_as_it_was(tmp_path: Path, packed: bool) -> None:
    log, again = filled(), MemoryTopics(now_us=lambda: 1)
    path = exported(log, tmp_path / "raw")
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    loaded = load_raw(again, "binance", path)
    assert contents(again) == contents(log)
    assert loaded.records == sum(log.end_offsets(TOPIC))
    assert loaded.markers == sum(r["kind"] == "marker" for part in contents(log) for r in part)
    assert loaded.symbols == ("BTC/USDT", "ETH/USDT")


def test_an_export_of_what_came_back_is_the_same_file(tmp_path: Path) -> None:
    first = exported(filled(), tmp_path / "first")
    again = MemoryTopics(now_us=lambda: 2)
    load_raw(again, "binance", first)
    assert exported(again, tmp_path / "second").read_bytes() == first.read_bytes()


def test_loading_into_a_topic_that_has_records_appends(tmp_path: Path) -> None:
    log = filled()
    before = contents(log)
    load_raw(log, "binance", exported(log, tmp_path / "raw"))
    assert [len(part) for part in contents(log)] == [2 * len(part) for part in before]


def test_what_has_expired_is_not_in_the_export(tmp_path: Path) -> None:
    log = filled()
    log.expire(TOPIC, {0: 5}, 2)
    start = log.start_offsets(TOPIC)[0]
    assert start > 0
    assert min(r["offset"] for r in lines(exported(log, tmp_path / "raw")) if r["partition"] == 0) == start


@pytest.mark.parametrize("partitions", [1, 2, 8])
def test_another_partition_count_is_refused_and_nothing_is_written(tmp_path: Path, partitions: int) -> None:
    path = exported(filled(), tmp_path / "raw")
    log = MemoryTopics()
    log.create(TOPIC, partitions)
    with pytest.raises(Refused, match=rf"3 partitions and {TOPIC} has {partitions}"):
        load_raw(log, "binance", path)
    assert log.end_offsets(TOPIC) == [0] * partitions


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(r) + "\n\n" for r in records))
    return path


def record(**fields: Any) -> dict[str, Any]:
    return {"topic": TOPIC, "partition": 0, "offset": 0, "key": "BTC-USDT", "headers": {}, "payload": "{}", **fields}


def test_a_file_without_counts_gets_the_given_one(tmp_path: Path) -> None:
    for highest, count in ((0, 4), (3, 4), (6, 7)):
        log = MemoryTopics()
        load_raw(log, "binance", write(tmp_path / "raw", record(partition=highest)), partitions=4)
        assert log.partitions(TOPIC) == count


def test_a_partition_the_topic_lacks_is_refused(tmp_path: Path) -> None:
    log = MemoryTopics()
    log.create(TOPIC, 2)
    with pytest.raises(Refused, match=r"a partition 2 and .* has 2"):
        load_raw(log, "binance", write(tmp_path / "raw", record(), record(partition=2)))


def test_header_values_may_be_numbers(tmp_path: Path) -> None:
    log = MemoryTopics()
    load_raw(log, "binance", write(tmp_path / "raw", record(headers={"received_us": 17, "source": "live", "trace": 4})))
    (row,) = contents(log)[0]
    assert (row["received_us"], row["source"], row["extra_headers"]) == (17, "live", '{"trace":"4"}')


@pytest.mark.parametrize(
    "bad",
    [
        {"topic": "raw.trades.kraken"},
        {"partition": -1},
        {"partition": "0"},
        {"partition": 4, "partitions": 4},
        {"partitions": "4"},
        {"key": None},
        {"headers": None},
        {"headers": {"kind": []}},
        {"payload": 5},
        {"payload_b64": "!", "payload": None},
    ],
)
def test_a_line_that_is_no_record_is_named_and_nothing_is_written(tmp_path: Path, bad: dict[str, Any]) -> None:
    log = MemoryTopics()
    broken = record(**bad)
    if broken["payload"] is None:
        del broken["payload"]
    with pytest.raises(ConfigError, match=r"raw: line 3 is no exported raw record"):
        load_raw(log, "binance", write(tmp_path / "raw", record(), broken))
    assert log.topics() == []


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "raw", record())
    path.write_bytes(path.read_bytes() + b'{"topic":')
    with pytest.raises(ConfigError, match="line 3"):
        load_raw(MemoryTopics(), "binance", path)


def test_exports_of_topics_with_different_counts_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 and 4 partitions"):
        load_raw(MemoryTopics(), "binance", write(tmp_path / "raw", record(partitions=2), record(partitions=4)))


def test_raw_exports_are_told_from_captures_by_their_first_line(tmp_path: Path) -> None:
    assert is_raw_export(exported(filled(), tmp_path / "raw"))
    for capture in (
        b'{"stream":"btcusdt@trade","data":{}}\n',
        b'1723161253937085768 {"a":1}\n',
        b"",
        b"\n[1]\n",
        b'{"t":"header","format":2}',
    ):
        path = tmp_path / "capture"
        path.write_bytes(capture)
        assert not is_raw_export(path)


def test_an_exchange_without_a_topic_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"raw\.trades\.binance"):
        next(export_raw(MemoryTopics(), "binance"))
