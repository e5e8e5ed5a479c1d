"""What pyiceberg and what it stands on may raise, sorted by what we do about it. One table, one function."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import sqlalchemy.exc as sql
from pyiceberg import exceptions as ice

from market.errors import CommitConflict, ConfigError, InvariantViolation, PipelineError, SchemaMismatch, SinkUnavailable

CONFLICT: Final = (
    ice.CommitFailedException,
    ice.ValidationException,  # a file to replace is gone, or was changed meanwhile
    ice.ConditionalCheckFailedException,
)
UNAVAILABLE: Final = (
    ice.CommitStateUnknownException,
    ice.ServiceUnavailableError,
    ice.ServerError,
    ice.TooManyRequestsError,
    ice.AuthorizationExpiredError,  # the next attempt logs in again
    ice.WaitingForLockException,
    ice.NoSuchPlanTaskError,
    ice.DynamoDbError,
    sql.OperationalError,  # `database is locked`, disk full
    sql.TimeoutError,
    sql.InterfaceError,
    pa.ArrowCancelled,
    OSError,  # files, sockets, object stores, and every error of `requests`
)
CONFIGURATION: Final = (
    ice.UnauthorizedError,
    ice.ForbiddenError,
    ice.OAuthError,
    ice.BadRequestError,
    ice.NoSuchPropertyException,
    ice.NotInstalledError,
    ice.SignError,
    sql.ArgumentError,
    sql.NoSuchModuleError,
)
SHAPE: Final = (
    ice.NoSuchTableError,
    ice.NoSuchIcebergTableError,
    ice.NoSuchNamespaceError,
    ice.NoSuchViewError,
    ice.NoSuchIdentifierError,
    ice.TableAlreadyExistsError,
    ice.ViewAlreadyExistsError,
    ice.NamespaceAlreadyExistsError,
    ice.NamespaceNotEmptyError,
    ice.ResolveError,
    sql.ProgrammingError,
)
BUG: Final = (
    ice.ValidationError,
    ice.GenericDynamoDbError,
    ice.RESTError,  # what the more special ones above do not cover
    sql.SQLAlchemyError,
    pa.ArrowException,
)
REACTIONS: Final[tuple[tuple[tuple[type[Exception], ...], type[PipelineError]], ...]] = (
    (CONFLICT, CommitConflict),
    (UNAVAILABLE, SinkUnavailable),
    (CONFIGURATION, ConfigError),
    (SHAPE, SchemaMismatch),
    (BUG, InvariantViolation),
)


def translate(error: Exception, doing: str) -> PipelineError:
    """Return our error for a driver's.

    Args:
        error: what a driver raised; an error of ours is returned as it is.
        doing: what was tried, to begin the message: `commit cold.silver_trades`.
    """
    if isinstance(error, PipelineError):
        return error
    message = f"{doing}: {type(error).__name__}: {_first_line(error)}"
    for drivers, ours in REACTIONS:
        if isinstance(error, drivers):
            if ours is SchemaMismatch:
                message += ". The cold store lacks a table that should be there: was it dropped? `k2 recover` prepares it again"
            if "database is locked" in message:
                message += ". A process holds the catalog file and does not let go: a frozen flow? `k2 run --take-over` ends it"
            return ours(message)
    return InvariantViolation(message)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:400]
