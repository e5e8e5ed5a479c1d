from __future__ import annotations

import inspect

import pytest
import urllib3.exceptions
from clickhouse_connect.driver import exceptions as driver

from market.errors import ConfigError, FatalError, InvariantViolation, PipelineError, SchemaMismatch, SinkUnavailable
from sinks.clickhouse.errors import BY_CLASS, CONFIG_CODES, RETRY_CODES, SCHEMA_CODES, mapped, translated

EXPECTED = {
    "ClickHouseError": FatalError,
    "Warning": FatalError,
    "Error": FatalError,
    "InterfaceError": InvariantViolation,
    "DatabaseError": FatalError,
    "DataError": InvariantViolation,
    "OperationalError": SinkUnavailable,
    "IntegrityError": FatalError,
    "InternalError": FatalError,
    "ProgrammingError": InvariantViolation,
    "NotSupportedError": InvariantViolation,
    "StreamClosedError": InvariantViolation,
    "StreamCompleteException": InvariantViolation,
    "StreamFailureError": SinkUnavailable,
}
FOUND = {
    name: kind
    for name, kind in inspect.getmembers(driver, inspect.isclass)
    if issubclass(kind, Exception) and kind.__module__ == driver.__name__
}


def made(kind: type[Exception]) -> Exception:
    return kind() if kind is driver.StreamClosedError else kind("text")


def test_no_exception_of_the_driver_is_unknown_to_us() -> None:
    assert set(FOUND) == set(EXPECTED), "the driver was updated: say what its new exceptions mean"


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_each_exception_of_the_driver_becomes_one_of_ours(name: str) -> None:
    assert type(mapped(made(FOUND[name]), "doing it")) is EXPECTED[name]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_nothing_of_the_driver_gets_through(name: str) -> None:
    with pytest.raises(PipelineError, match=r"^ClickHouse, doing it: "), translated("doing it"):
        raise made(FOUND[name])


@pytest.mark.parametrize(
    ("codes", "kind"), [(RETRY_CODES, SinkUnavailable), (CONFIG_CODES, ConfigError), (SCHEMA_CODES, SchemaMismatch), ({62}, FatalError)]
)
@pytest.mark.parametrize("theirs", [driver.DatabaseError, driver.OperationalError])
def test_the_servers_code_decides(theirs: type[driver.Error], codes: set[int], kind: type[PipelineError]) -> None:
    for code in codes:
        assert type(mapped(theirs("text", code=code), "x")) is kind


def test_code_lists_do_not_overlap() -> None:
    assert len(RETRY_CODES | CONFIG_CODES | SCHEMA_CODES) == len(RETRY_CODES) + len(CONFIG_CODES) + len(SCHEMA_CODES)


def test_a_broken_stream_or_socket_can_be_tried_again() -> None:
    for error in (urllib3.exceptions.ProtocolError("x"), ConnectionResetError("x"), TimeoutError("x")):
        assert type(mapped(error, "x")) is SinkUnavailable


def test_our_own_exceptions_pass_unchanged() -> None:
    with pytest.raises(SchemaMismatch, match=r"^mine$"), translated("x"):
        raise SchemaMismatch("mine")


def test_subclasses_come_before_their_bases() -> None:
    for place, (kind, _) in enumerate(BY_CLASS):
        assert not any(issubclass(kind, earlier) for earlier, _ in BY_CLASS[:place])
