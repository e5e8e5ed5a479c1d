"""Frontiers: how far a table has taken in each topic partition, and where a table keeps that.

Every commit of the writer repeats the whole frontier in its snapshot summary, as JSON:
`{"raw.trades.binance/3": {"generation": "…", "offset": 1234}}`. Commits by others (compaction) do not carry it, so it is
looked for from the head backwards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from market.errors import Refused

FRONTIER_KEY: Final = "stream.frontier"
EPOCH_KEY: Final = "writer.epoch"
COMMIT_KEY: Final = "commit.key"

TopicPartition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Position:
    """The first offset of a topic partition that a table has not taken in, and of which topic."""

    generation: str
    offset: int


Frontier = Mapping[TopicPartition, Position]


def to_json(frontier: Frontier) -> dict[str, dict[str, object]]:
    """Return the JSON shape of a frontier."""
    return {f"{topic}/{partition}": {"generation": p.generation, "offset": p.offset} for (topic, partition), p in sorted(frontier.items())}


def from_json(value: Mapping[str, Any]) -> dict[TopicPartition, Position]:
    """Return the frontier that a JSON object describes."""
    frontier: dict[TopicPartition, Position] = {}
    for name, position in value.items():
        topic, _, partition = name.rpartition("/")
        frontier[topic, int(partition)] = Position(str(position["generation"]), int(position["offset"]))
    return frontier


def newest_value(metadata: Any, key: str) -> str | None:
    """Return the newest value of a summary key, from the head of a table's history backwards; None when there is none."""
    snapshot = _newest_with(metadata, key)
    return None if snapshot is None else str(snapshot.summary[key])


def committed_frontier(metadata: Any, name: str) -> dict[TopicPartition, Position]:
    """Return the frontier of a table's head; empty for a table that was never written.

    Args:
        metadata: pyiceberg table metadata.
        name: of the table, for the message.

    Raises:
        Refused: the table holds rows, yet no snapshot says how far it came: everything would be written twice.
    """
    text = newest_value(metadata, FRONTIER_KEY)
    if text is not None:
        return from_json(json.loads(text))
    head = metadata.current_snapshot()
    if head is not None and head.summary is not None and int(head.summary["total-records"] or 0) > 0:
        raise Refused(
            f"{name} holds {head.summary['total-records']} rows, but none of its snapshots says how far it has taken in the raw topics: it was "
            "written by something else, or maintenance expired the newest of our snapshots. Drop the table, then `k2 recover` fills it again"
        )
    return {}


def last_commit_us(metadata: Any) -> int | None:
    """Return when the newest commit of a writer was made, epoch µs."""
    snapshot = _newest_with(metadata, FRONTIER_KEY)
    return None if snapshot is None else int(snapshot.timestamp_ms) * 1_000


def _newest_with(metadata: Any, key: str) -> Any:
    # By dict: pyiceberg's own walk is quadratic.
    by_id = {s.snapshot_id: s for s in metadata.snapshots}
    snapshot = metadata.current_snapshot()
    while snapshot is not None:
        if snapshot.summary is not None and snapshot.summary[key] is not None:
            return snapshot
        snapshot = by_id.get(snapshot.parent_snapshot_id)
    return None
