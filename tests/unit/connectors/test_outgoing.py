"""Records put together are appended a partition at a time."""

from __future__ import annotations

from connectors.live.outgoing import Outgoing, by_partition, chunks_of


def test_each_partition_gets_its_own_records_in_order() -> None:
    homes = [2, 0, 1, 2, 0, 2, 1]
    records = [Outgoing("", b"%d" % n, n, partition=home) for n, home in enumerate(homes)]
    found = by_partition([*chunks_of("t", 4, records[:3]), *chunks_of("t", 4, records[3:])])
    payloads = {home: batch.column("payload").to_pylist() for home, batch in found.items()}
    assert payloads == {home: [b"%d" % n for n, to in enumerate(homes) if to == home] for home in (0, 1, 2)}
