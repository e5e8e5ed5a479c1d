"""Every exception of this project, sorted by what the caller must do.

    PipelineError
    ├── TransientError            retry: bounded, with back-off; then the process stops and resumes
    │   ├── SourceDisconnected    a topic log cannot be reached
    │   ├── SinkUnavailable       a store cannot be reached (`retry_after` seconds, if known)
    │   └── CommitConflict        another commit won; start over from the new head
    └── FatalError                stop: the message says what to do (exit code in `exit_code`)
        ├── ConfigError           2: a setting, file or argument is wrong
        │   └── RecordRefused     2: a topic log will never take this record as it is set up
        ├── Refused               3: not safe to go on
        │   ├── Locked            3: another process holds the recovery folder or the home
        │   ├── Fenced            3: a newer writer has taken this table; this process must stop
        │   └── PositionLost      3: the log or a table no longer has what the position needs
        ├── SchemaMismatch        4: a table or saved state has another shape than this version writes
        └── InvariantViolation    4: our own bug

Bad input is not an exception: it is a `market.trade.Rejected` value.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Root of everything this project raises on purpose."""

    exit_code = 4


class TransientError(PipelineError):
    """Retrying the same call may succeed."""


class SourceDisconnected(TransientError):
    """A topic log cannot be reached."""


class SinkUnavailable(TransientError):
    """A store cannot be reached or did not say what became of a request."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CommitConflict(TransientError):
    """Another commit landed first."""


class FatalError(PipelineError):
    """Retrying cannot help; the message names the way out."""


class ConfigError(FatalError):
    """A setting, a file or an argument is wrong."""

    exit_code = 2


class RecordRefused(ConfigError):
    """A topic log will not take this record, whoever sends it again: it is too large, or its partition does not exist."""


class Refused(FatalError):
    """The request is understood and would be unsafe."""

    exit_code = 3


class Locked(Refused):
    """Another process holds what this one needs."""


class Fenced(Refused):
    """A newer writer owns the table."""


class PositionLost(Refused):
    """The log or a table no longer has what the saved position needs."""


class SchemaMismatch(FatalError):
    """Stored data has another shape than this version writes."""


class InvariantViolation(FatalError):
    """A bug of ours."""
