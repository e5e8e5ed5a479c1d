"""Where a partition's last record stands.

The broker's end offset also counts what is no record: the marks of transactions and what they took back. A reader that is
to stop at the end would wait for ever for a record before that offset, so the last record itself is looked for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connectors.topics.kafka_client import connect
from connectors.topics.kafka_errors import translated
from market.errors import SourceDisconnected

_FURTHER: Final = 64  # a search that found no record begins so many times further from the end


def ends(connection: Mapping[str, Any], topic: str, bounds: Sequence[tuple[int, int]], timeout_s: float) -> list[int]:
    """Return the offset after the last record, by partition.

    Args:
        connection: settings of the client.
        topic: its name.
        bounds: start and end offset of each partition by the broker.
        timeout_s: how long the whole search may take.

    Returns:
        Offsets between start and end; the start where a partition holds no record.
    """
    found = [start for start, _ in bounds]
    open_ends = {p: 1 for p, (start, end) in enumerate(bounds) if end > start}
    if not open_ends:
        return found
    config = {
        **connection,
        "group.id": "k2",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",  # retention may overtake the search
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 10,
    }
    consumer = connect(Consumer, config)
    deadline = time.monotonic() + timeout_s
    try:
        while open_ends:
            consumer.assign([TopicPartition(topic, p, max(bounds[p][0], bounds[p][1] - back)) for p, back in open_ends.items()])
            seen = _last_seen(consumer, topic, {p: bounds[p][1] for p in open_ends}, deadline)
            for p, back in list(open_ends.items()):
                found[p] = max(found[p], seen.get(p, 0))
                if p in seen or bounds[p][1] - back <= bounds[p][0]:
                    del open_ends[p]
                else:
                    open_ends[p] = back * _FURTHER
    finally:
        consumer.close()
    return found


def _last_seen(consumer: Consumer, topic: str, until: Mapping[int, int], deadline: float) -> dict[int, int]:
    # Reads each partition to its end; returns the offset after the last record of those in which there was one.
    seen: dict[int, int] = {}
    waiting = set(until)
    while waiting:
        if time.monotonic() > deadline:
            raise SourceDisconnected(f"the end of {topic} was not reached in time")
        for message in consumer.consume(1_000, 0.1):
            error, p = message.error(), message.partition()
            if error is None:
                seen[p] = message.offset() + 1
                if seen[p] >= until[p]:
                    waiting.discard(p)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                waiting.discard(p)
            elif not error.retriable():
                raise translated(error, f"{topic}/{p} cannot be read") from KafkaException(error)
    return seen
