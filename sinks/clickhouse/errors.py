"""What the ClickHouse driver raises, in our terms: the one table for this adapter."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import urllib3.exceptions
from clickhouse_connect.driver import exceptions as driver

from market.errors import ConfigError, FatalError, InvariantViolation, PipelineError, SchemaMismatch, SinkUnavailable

# Codes of the server (src/Common/ErrorCodes.cpp there) that decide more than the driver's class does.
RETRY_CODES: Final = frozenset(
    {
        32,  # ATTEMPT_TO_READ_AFTER_EOF: so does a body that a stopping server cuts short
        33,  # CANNOT_READ_ALL_DATA: likewise
        117,  # INCORRECT_DATA: likewise ("the Arrow stream is empty")
        159,  # TIMEOUT_EXCEEDED
        164,  # READONLY: a replica that lost its coordination
        173,  # CANNOT_ALLOCATE_MEMORY
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        236,  # ABORTED: the server is shutting down
        241,  # MEMORY_LIMIT_EXCEEDED
        242,  # TABLE_IS_READ_ONLY
        243,  # NOT_ENOUGH_SPACE
        252,  # TOO_MANY_PARTS: merges have to catch up
        285,  # TOO_FEW_LIVE_REPLICAS
        319,  # UNKNOWN_STATUS_OF_INSERT
        394,  # QUERY_WAS_CANCELLED
        425,  # SYSTEM_ERROR
        439,  # CANNOT_SCHEDULE_TASK
        999,  # KEEPER_EXCEPTION
    }
)
CONFIG_CODES: Final = frozenset(
    {
        192,  # UNKNOWN_USER
        193,  # WRONG_PASSWORD
        194,  # REQUIRED_PASSWORD
        195,  # IP_ADDRESS_NOT_ALLOWED
        497,  # ACCESS_DENIED
        516,  # AUTHENTICATION_FAILED
    }
)
SCHEMA_CODES: Final = frozenset(
    {
        16,  # NO_SUCH_COLUMN_IN_TABLE
        47,  # UNKNOWN_IDENTIFIER
        53,  # TYPE_MISMATCH
        60,  # UNKNOWN_TABLE
        70,  # CANNOT_CONVERT_TYPE
        81,  # UNKNOWN_DATABASE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        636,  # CANNOT_EXTRACT_TABLE_STRUCTURE: of a table that is gone
    }
)
# First match wins; a test walks the driver's exceptions and finds each of them here.
BY_CLASS: Final[tuple[tuple[type[BaseException], type[PipelineError]], ...]] = (
    (driver.OperationalError, SinkUnavailable),  # transport: what became of the request is unknown
    (driver.StreamCompleteException, InvariantViolation),
    (driver.ProgrammingError, InvariantViolation),
    (driver.DataError, InvariantViolation),
    (driver.NotSupportedError, InvariantViolation),
    (driver.InterfaceError, InvariantViolation),
    (driver.IntegrityError, FatalError),
    (driver.InternalError, FatalError),
    (driver.DatabaseError, FatalError),  # the server refused; its code may say more
    (driver.ClickHouseError, FatalError),
    (urllib3.exceptions.HTTPError, SinkUnavailable),  # while a streamed answer is read
    (OSError, SinkUnavailable),
)


def mapped(error: BaseException, what: str) -> PipelineError:
    """Return our exception for one of the driver's; `what` says what was being done."""
    code = getattr(error, "code", None)
    kind = next((ours for theirs, ours in BY_CLASS if isinstance(error, theirs)), FatalError)
    if isinstance(error, driver.DatabaseError) and code is not None:
        if code in RETRY_CODES:
            kind = SinkUnavailable
        elif code in CONFIG_CODES:
            kind = ConfigError
        elif code in SCHEMA_CODES:
            kind = SchemaMismatch
        elif kind is SinkUnavailable:
            kind = FatalError
    text = " ".join(str(error).split())
    return kind(f"ClickHouse, {what}: {text[:600]}")


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise our exceptions instead of the driver's."""
    try:
        yield
    except PipelineError:
        raise
    except (driver.ClickHouseError, driver.StreamCompleteException, urllib3.exceptions.HTTPError, OSError) as error:
        raise mapped(error, what) from error
