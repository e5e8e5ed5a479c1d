from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from connectors.topics import kafka_errors
from connectors.topics.kafka_errors import ERRORS, reaction, translated
from market.errors import (
    ConfigError,
    FatalError,
    Fenced,
    InvariantViolation,
    PipelineError,
    PositionLost,
    RecordRefused,
    SourceDisconnected,
)


def driver_codes() -> dict[str, int]:
    # Names are upper case, the client's own begin with an underscore.
    found = {name: getattr(KafkaError, name) for name in dir(KafkaError) if name.lstrip("_")[:1].isupper() and not name.startswith("__")}
    return {name: code for name, code in found.items() if isinstance(code, int)}


def test_every_code_of_the_driver_has_a_reaction() -> None:
    codes = driver_codes()
    assert len(codes) > 150
    assert sorted(name for name, code in codes.items() if code not in ERRORS) == []


def test_no_code_is_in_two_groups() -> None:
    groups = (
        kafka_errors._RETRY,
        kafka_errors._CONFIGURE,
        kafka_errors._LOST,
        kafka_errors._FENCED_OUT,
        kafka_errors._DAMAGED,
        kafka_errors._NEVER,
    )
    names = [name for group in groups for name in group.split()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._TRANSPORT, SourceDisconnected),
        (KafkaError._ALL_BROKERS_DOWN, SourceDisconnected),
        (KafkaError.NOT_LEADER_FOR_PARTITION, SourceDisconnected),
        (KafkaError.NOT_ENOUGH_REPLICAS, SourceDisconnected),
        (KafkaError._AUTHENTICATION, ConfigError),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, ConfigError),
        (KafkaError.MSG_SIZE_TOO_LARGE, RecordRefused),
        (KafkaError._AUTO_OFFSET_RESET, PositionLost),
        (KafkaError._LOG_TRUNCATION, PositionLost),
        (KafkaError._FENCED, Fenced),
        (KafkaError._FATAL, FatalError),
        (KafkaError.ILLEGAL_GENERATION, InvariantViolation),
    ],
)
def test_a_code_asks_for_its_reaction(code: int, kind: type[PipelineError]) -> None:
    assert reaction(KafkaError(code)) is kind


def test_a_code_that_nobody_knows_is_fatal() -> None:
    assert reaction(KafkaError(9_999)) is FatalError


def test_the_text_says_what_failed_and_why() -> None:
    error = translated(KafkaError(KafkaError._TRANSPORT, "connection refused"), "raw.trades.x/3 cannot be read")
    assert str(error) == "raw.trades.x/3 cannot be read: connection refused (_TRANSPORT)"
