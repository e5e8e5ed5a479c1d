"""What every topic log refuses, in the same words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from connectors.topics.base import APPEND_SCHEMA
from market.errors import ConfigError, InvariantViolation, PositionLost, RecordRefused


def unknown_topic(topic: str, known: Iterable[str], where: str) -> ConfigError:
    """Return the error for a topic that does not exist."""
    names = ", ".join(sorted(known)) or "none"
    return ConfigError(f"there is no topic {topic} in {where} (topics: {names}); `k2 load` or `k2 feed` creates it")


def check_partitions(topic: str, wanted: int, existing: int | None = None) -> None:
    """Raise `ConfigError` for a count that is not positive or not the one the topic was created with."""
    if wanted < 1:
        raise ConfigError(f"{topic}: a topic needs at least one partition, not {wanted}")
    if existing is not None and existing != wanted:
        raise ConfigError(
            f"{topic} has {existing} partitions and {wanted} were asked for; the count is fixed for a topic's life: "
            f"set it back to {existing}, or start a new home"
        )


def check_partition(topic: str, partition: int, count: int) -> None:
    """Raise `RecordRefused`, a `ConfigError`, for a partition that the topic does not have."""
    if not 0 <= partition < count:
        raise RecordRefused(f"{topic} has partitions 0 to {count - 1}, not {partition}")


def check_records(topic: str, records: Mapping[int, pa.RecordBatch], count: int) -> None:
    """Raise for records that are not of this topic's partitions or not in the append schema."""
    for partition, batch in records.items():
        check_partition(topic, partition, count)
        if not batch.schema.equals(APPEND_SCHEMA):
            raise InvariantViolation(
                f"{topic}/{partition}: records to append have the columns {batch.schema.names}, not {APPEND_SCHEMA.names}"
            )


def check_position(topic: str, partition: int, offset: int, start: int, end: int) -> None:
    """Raise `PositionLost` when the log does not hold `offset` and never will at this position.

    Raises:
        PositionLost: `offset` is outside `[start, end]`; `end` itself is where the next record will stand.
    """
    if offset < start:
        raise PositionLost(
            f"{topic}/{partition}: offset {offset} has expired, the log holds {start} up to {end}; "
            "records were dropped that this reader has not seen: `k2 recover` names the ways on"
        )
    if offset > end:
        raise PositionLost(
            f"{topic}/{partition}: offset {offset} is past the end, the log holds {start} up to {end}; "
            "it is not the log this position was saved for, or it was restored from a backup: `k2 recover` names the ways on"
        )
