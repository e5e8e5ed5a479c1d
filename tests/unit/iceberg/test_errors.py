"""Every exception of the drivers is mapped, so an upgrade cannot add one that nobody thought about."""

from __future__ import annotations

import inspect
from types import ModuleType

import pyarrow as pa
import pytest
import requests
import sqlalchemy.exc
from pyiceberg import exceptions as ice

from market.errors import CommitConflict, ConfigError, Fenced, InvariantViolation, PipelineError, SchemaMismatch, SinkUnavailable
from sinks.iceberg.errors import REACTIONS, translate


def exceptions_of(module: ModuleType) -> list[type[Exception]]:
    return [c for _, c in inspect.getmembers(module, inspect.isclass) if issubclass(c, Exception) and not issubclass(c, Warning)]


def instance(kind: type[Exception]) -> Exception:
    # Some demand arguments of their own; what counts is the class.
    error = kind.__new__(kind)
    error.args = ("told by the driver",)
    return error


@pytest.mark.parametrize("kind", exceptions_of(ice), ids=lambda k: k.__name__)
def test_every_pyiceberg_exception_is_listed(kind: type[Exception]) -> None:
    listed = [drivers for drivers, _ in REACTIONS if kind in drivers]
    assert listed, f"{kind.__name__} is not in the table"


@pytest.mark.parametrize(
    "kind", [pa.ArrowException, pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError], ids=lambda k: k.__name__
)
def test_arrow_exceptions_are_ours_to_mend(kind: type[Exception]) -> None:
    assert isinstance(translate(kind("x"), "write"), InvariantViolation)


@pytest.mark.parametrize(
    "kind", [k for k in exceptions_of(sqlalchemy.exc) if issubclass(k, sqlalchemy.exc.SQLAlchemyError)], ids=lambda k: k.__name__
)
def test_every_sqlalchemy_exception_is_covered(kind: type[Exception]) -> None:
    assert any(issubclass(kind, drivers) for drivers, _ in REACTIONS)


@pytest.mark.parametrize(
    "kind", [k for k in exceptions_of(requests.exceptions) if issubclass(k, requests.RequestException)], ids=lambda k: k.__name__
)
def test_network_trouble_is_worth_another_attempt(kind: type[Exception]) -> None:
    assert isinstance(translate(instance(kind), "commit"), SinkUnavailable)


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (ice.CommitFailedException("moved"), CommitConflict),
        (ice.CommitStateUnknownException("500"), SinkUnavailable),
        (ice.UnauthorizedError("who?"), ConfigError),
        (ice.NoSuchTableError("cold.x"), SchemaMismatch),
        (sqlalchemy.exc.OperationalError("UPDATE", {}, Exception("database is locked")), SinkUnavailable),
        (sqlalchemy.exc.IntegrityError("INSERT", {}, Exception("dup")), InvariantViolation),
        (OSError(28, "No space left on device"), SinkUnavailable),
        (KeyError("x"), InvariantViolation),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, Exception) else "",
)
def test_the_reaction_fits_the_error(error: Exception, ours: type[PipelineError]) -> None:
    mapped = translate(error, "commit cold.silver_trades")
    assert type(mapped) is ours
    assert str(mapped).startswith("commit cold.silver_trades: ")


def test_our_own_errors_pass_unchanged() -> None:
    error = Fenced("taken over")
    assert translate(error, "commit") is error


def test_a_message_is_one_line() -> None:
    assert "\n" not in str(translate(OSError("first\nsecond"), "read"))


def test_a_catalog_file_that_stays_locked_names_the_way_out() -> None:
    error = sqlalchemy.exc.OperationalError("UPDATE", {}, Exception("database is locked"))
    assert "--take-over" in str(translate(error, "commit"))
