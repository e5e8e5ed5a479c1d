"""A process that appends to or tails a topic log: `topic_child.py append|tail URL TOPIC …`. Reports on stdout, a line a step."""

from __future__ import annotations

import sys
import time

from connectors.topics.registry import open_topics
from tests.records import numbered, payloads


def append(url: str, topic: str, first: int, count: int, size: int) -> None:
    """Append `count` times `size` numbered records to partitions 0 and 1; print each acknowledged number."""
    log = open_topics(url)
    for i in range(first, first + count):
        log.append(topic, {0: numbered(i * size, size), 1: numbered(i * size, size)})
        print(i, flush=True)
    log.close()


def tail(url: str, topic: str, partition: int, total: int, max_records: int) -> None:
    """Follow a partition from offset 0 until `total` records were seen; print each payload."""
    log = open_topics(url)
    at = 0
    print("ready", flush=True)
    while at < total:
        batch = log.read(topic, partition, at, max_records)
        if batch is None:
            time.sleep(0.005)
            continue
        at = batch.column("offset")[-1].as_py() + 1
        sys.stdout.write("".join(f"{p.decode()}\n" for p in payloads([batch])))
    sys.stdout.flush()
    log.close()


if __name__ == "__main__":
    what, where, name, *numbers = sys.argv[1:]
    {"append": append, "tail": tail}[what](where, name, *map(int, numbers))
