"""The Kafka log beside its contract: what a real broker does to topics, offsets, connections and headers."""

from __future__ import annotations

import os
import threading
import time

import pyarrow as pa
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, ResourceType

from connectors.topics.kafka import KafkaTopics
from market.errors import ConfigError, PositionLost, Refused
from tests.integration.kafka_log import (
    configure,
    delete,
    eventually,
    new_name,
    opened,
    read_some,
    recreate,
)
from tests.records import numbered, offsets, payloads, read_all, records
from tests.servers.kafka import Broker

# ------------------------------------------------------------------------------------------------------- topics change


def test_a_created_topic_has_the_settings_of_the_url(kafka_broker: Broker, admin: AdminClient) -> None:
    name = new_name()
    options = "retention.ms=86400000&compression.type=lz4&replication.factor=1&max.message.bytes=2000000"
    with opened(f"{kafka_broker.url}?{options}") as log:
        log.create(name, 5)
        assert log.partitions(name) == 5
    resource = ConfigResource(ResourceType.TOPIC, name)
    held = admin.describe_configs([resource])[resource].result()
    wanted = {
        "retention.ms": "86400000",
        "compression.type": "lz4",
        "max.message.bytes": "2000000",
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": "delete",
    }
    assert {key: held[key].value for key in wanted} == wanted


def test_a_topic_created_again_is_not_read_on(log: KafkaTopics, admin: AdminClient, topic: str) -> None:
    log.append(topic, {0: numbered(0, 10)})
    assert read_some(log, topic, 0, 0).num_rows == 10
    recreate(log, admin, topic, 2)
    with opened(f"kafka://{log._settings.servers}") as other:
        other.append(topic, {0: numbered(1_000, 30)})
    with pytest.raises(PositionLost, match=r"created again.*k2 recover"):
        eventually(lambda: log.read(topic, 0, 10, 100))
    with pytest.raises(PositionLost, match="created again"):
        log.read(topic, 0, 10, 100)


def test_a_topic_created_again_is_noticed_at_the_first_read_after_its_generation_was_given(
    log: KafkaTopics, admin: AdminClient, topic: str
) -> None:
    assert log.generation(topic)
    recreate(log, admin, topic, 2)
    with opened(f"kafka://{log._settings.servers}") as other:
        other.append(topic, {0: numbered(0, 5)})
    with pytest.raises(PositionLost, match="created again"):
        eventually(lambda: log.read(topic, 0, 0, 100))


def test_a_deleted_topic_is_a_lost_position(log: KafkaTopics, admin: AdminClient, topic: str) -> None:
    log.append(topic, {0: numbered(0, 10)})
    assert read_some(log, topic, 0, 0).num_rows == 10
    delete(admin, topic)
    with pytest.raises(PositionLost, match=r"was deleted.*k2 recover"):
        eventually(lambda: log.read(topic, 0, 10, 100))


def test_a_changed_partition_count_is_refused(log: KafkaTopics, admin: AdminClient, topic: str) -> None:
    log.append(topic, {0: numbered(0, 10)})
    assert read_some(log, topic, 0, 0).num_rows == 10
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result()
    with pytest.raises(Refused, match="has 3 partitions and had 2"):
        eventually(lambda: log.read(topic, 0, 10, 100))
    with pytest.raises(ConfigError, match="3 partitions and 2 were asked"):
        log.create(topic, 2)


def test_a_name_that_kafka_does_not_take_is_a_config_error(log: KafkaTopics) -> None:
    with pytest.raises(ConfigError):
        log.create("raw/trades", 1)


# ---------------------------------------------------------------------------------------------------------------- offsets


def test_an_expired_offset_is_lost(log: KafkaTopics, admin: AdminClient, topic: str) -> None:
    log.append(topic, {0: numbered(0, 100)})
    for future in admin.delete_records([TopicPartition(topic, 0, 40)]).values():
        future.result()
    assert log.start_offsets(topic) == [40, 0]
    with pytest.raises(PositionLost, match=r"offset 39 has expired.*40 up to 100.*k2 recover"):
        log.read(topic, 0, 39, 10)
    assert offsets(read_all(log, topic, 0)) == list(range(40, 100))


def test_an_offset_that_expires_before_it_is_fetched_is_lost(log: KafkaTopics, admin: AdminClient, topic: str) -> None:
    # More than the client holds, so that the end of it is still to be fetched when it expires.
    frames = [os.urandom(1 << 20) for _ in range(100)]
    for i in range(0, 100, 20):
        log.append(topic, {0: records(frames[i : i + 20])})
    first = read_some(log, topic, 0, 0, 1)
    for future in admin.delete_records([TopicPartition(topic, 0, 98)]).values():
        future.result()
    batches = [first]

    def read_on() -> None:
        while True:
            batches.append(read_some(log, topic, 0, batches[-1].column("offset")[-1].as_py() + 1, 7))

    with pytest.raises(PositionLost, match=r"has expired.*98 up to 100.*k2 recover"):
        read_on()
    assert offsets(batches) == list(range(len(offsets(batches))))


def test_retention_of_the_url_expires_records(kafka_broker: Broker) -> None:
    name = new_name()
    with opened(f"{kafka_broker.url}?retention.ms=300") as log:
        log.create(name, 1)
        log.append(name, {0: numbered(0, 10)})
        if not kafka_broker.owned:  # ours checks every few ms; the user's may outlast any test
            pytest.skip("your broker may check retention once in five minutes only")
        eventually(lambda: log.start_offsets(name) == [10] or None)
        assert log.expire(name, {0: 10}, 1 << 60) == 0
        assert log.end_offsets(name) == [10]
        assert log.read(name, 0, 10, 10) is None


def test_transactions_leave_holes_that_are_read_over(kafka_broker: Broker, log: KafkaTopics, topic: str) -> None:
    producer = Producer({"bootstrap.servers": kafka_broker.address, "transactional.id": topic})
    producer.init_transactions(30)
    for first, commits in ((0, True), (5, False), (10, True), (15, False)):
        producer.begin_transaction()
        for i in range(first, first + 5):
            producer.produce(topic, b"%d" % i, partition=0)
        producer.flush()
        (producer.commit_transaction if commits else producer.abort_transaction)(30)
    batches = read_all(log, topic, 0)
    assert payloads(batches) == [b"%d" % i for i in (*range(5), *range(10, 15))]
    assert offsets(batches) == [*range(5), *range(12, 17)]
    assert log.end_offsets(topic) == [17, 0], "marks and what was taken back are no records"
    assert log.read(topic, 0, 17, 10) is None
    log.append(topic, {0: numbered(99, 1)})
    assert offsets([read_some(log, topic, 0, 17)]) == [24]
    assert offsets(read_all(log, topic, 0, offset=6)) == [*range(12, 17), 24], "a position in a hole goes on after it"


def test_a_partition_of_nothing_but_marks_ends_where_it_starts(kafka_broker: Broker, log: KafkaTopics, topic: str) -> None:
    producer = Producer({"bootstrap.servers": kafka_broker.address, "transactional.id": topic})
    producer.init_transactions(30)
    producer.begin_transaction()
    for i in range(200):
        producer.produce(topic, b"%d" % i, partition=1)
    producer.flush()
    producer.abort_transaction(30)
    assert log.end_offsets(topic) == [0, 0]
    assert log.read(topic, 1, 0, 10) is None


def test_compaction_leaves_holes_that_are_read_over(log: KafkaTopics, admin: AdminClient, topic: str, kafka_broker: Broker) -> None:
    if not kafka_broker.owned:  # ours compacts at once; the user's may outlast any test
        pytest.skip("your broker may compact once in a while only")
    configure(admin, topic, cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.001")

    def holed() -> list[pa.RecordBatch] | None:
        log.append(topic, {0: records([b"x"], key="A"), 1: records([b"y"])})
        with opened(f"kafka://{log._settings.servers}") as fresh:
            batches = read_all(fresh, topic, 0)
        seen = offsets(batches)
        return batches if seen[-1] > len(seen) else None

    log.append(topic, {0: records([b"first"], key="first")})
    batches = eventually(holed)
    seen = offsets(batches)
    assert seen == sorted(set(seen))
    assert payloads(batches)[0] == b"first"
    assert batches[0].column("offset")[0].as_py() == 0


# ---------------------------------------------------------------------------------------------------------------- reading


def test_partitions_that_are_not_read_do_not_hold_up_the_others(log: KafkaTopics, topic: str) -> None:
    n = 130_000
    log.append(topic, {0: numbered(0, n), 1: numbered(n, n)})
    assert read_some(log, topic, 1, 0, 10).num_rows == 10
    assert payloads(read_all(log, topic, 0, 10_000)) == [b"%d" % i for i in range(n)]
    rest = read_all(log, topic, 1, 10_000, offset=10)
    assert payloads(rest) == [b"%d" % i for i in range(n + 10, 2 * n)]
    assert offsets(rest) == list(range(10, n))


def test_one_object_serves_several_threads(log: KafkaTopics, topic: str) -> None:
    log.append(topic, {0: numbered(0, 5_000), 1: numbered(5_000, 5_000)})
    seen: dict[int, list[bytes]] = {}
    threads = [threading.Thread(target=lambda p=p: seen.update({p: payloads(read_all(log, topic, p, 100))})) for p in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {p: [b"%d" % i for i in range(p * 5_000, p * 5_000 + 5_000)] for p in (0, 1)}


def test_append_times_are_the_brokers_clock(log: KafkaTopics, topic: str) -> None:
    before = time.time_ns() // 1_000
    log.append(topic, {0: records([b"an old recording"], received_us=1_500_000_000_000_000)})
    (batch,) = read_all(log, topic, 0)
    assert abs(batch.column("append_us")[0].as_py() - before) < 60_000_000
    assert batch.column("received_us")[0].as_py() == 1_500_000_000_000_000


def test_foreign_headers_and_keys_lose_nothing(kafka_broker: Broker, log: KafkaTopics, topic: str) -> None:
    given: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]] | None]] = [
        (b"BTC-USDT", b"frame", [("source", b"live"), ("received_us", b"1723161253937085")]),
        (None, None, None),
        (b"\xff\xfe", b"\xff", [("trace", b"\xff\x00"), ("source", b"live")]),
        (b"k", b"p", [("received_us", b"soon"), ("source", b"\xff"), ("kind", b"marker")]),
        (b"k", b"p", [("source", b"live"), ("source", b"refill"), ("received_us", b"5")]),
        (b"k", b"p", [("source", None), ("a", b"1"), ("b", b""), ("a", None)]),
        (b"k", b"p", [("received_us", b"0x10"), ("source", b"live")]),
        (b"k", b"p", [("received_us", b"-7"), ("source", b"live")]),
    ]
    producer = Producer({"bootstrap.servers": kafka_broker.address})
    for key, value, headers in given:
        producer.produce(topic, value, key, 0, headers=headers)
    producer.flush()
    rows = [row for batch in read_all(log, topic, 0) for row in batch.to_pylist()]
    assert [(r["source"], r["received_us"], r["kind"], r["extra_headers"]) for r in rows] == [
        ("live", 1_723_161_253_937_085, None, None),
        (None, None, None, None),
        ("live", None, None, '{"trace":{"b64":"/wA="},"k2.key":{"b64":"//4="}}'),
        (None, None, "marker", '{"received_us":"soon","source":{"b64":"/w=="}}'),
        ("live", 5, None, '{"source":"refill"}'),
        (None, None, None, '{"source":null,"a":["1",null],"b":""}'),
        ("live", None, None, '{"received_us":"0x10"}'),
        ("live", -7, None, None),
    ]
    assert [r["key"] for r in rows] == ["BTC-USDT", "", r"\xff\xfe", "k", "k", "k", "k", "k"]
    assert [r["payload"] for r in rows] == [b"frame", b"", b"\xff", b"p", b"p", b"p", b"p", b"p"]

    (first,) = read_all(log, topic, 0)
    log.append(topic, {1: first.select(["key", "source", "received_us", "kind", "extra_headers", "payload"])})
    (second,) = read_all(log, topic, 1)
    assert second.drop_columns(["offset", "append_us"]).equals(first.drop_columns(["offset", "append_us"])), (
        "writing it again changes nothing"
    )


# -------------------------------------------------------------------------------------------------------------- appending


def test_more_records_than_the_client_queues_are_appended_in_order(log: KafkaTopics, topic: str) -> None:
    log.append(topic, {1: numbered(0, 250_000)})
    assert log.end_offsets(topic) == [0, 250_000]
    assert payloads([read_some(log, topic, 1, 249_990)]) == [b"%d" % i for i in range(249_990, 250_000)]


def test_a_record_that_is_too_large_is_refused_by_name(kafka_broker: Broker, topic: str) -> None:
    with opened(f"{kafka_broker.url}?max.message.bytes=50000") as log:
        with pytest.raises(ConfigError, match=rf"{topic} cannot be written.*too large"):
            log.append(topic, {0: records([b"a", os.urandom(60_000)])})
        log.append(topic, {1: numbered(0, 3)})
        assert log.end_offsets(topic)[1] == 3


def test_a_record_that_the_broker_finds_too_large_is_refused_by_name(log: KafkaTopics, admin: AdminClient, topic: str) -> None:
    configure(admin, topic, max_message_bytes="50000")
    with pytest.raises(ConfigError, match=rf"{topic} cannot be written.*MSG_SIZE_TOO_LARGE"):
        log.append(topic, {0: records([os.urandom(60_000)])})
