"""Every error that JiVS raises on purpose.

    JivsError
    ├── UserError            the caller can put it right           exit 2
    │   ├── UsageError           wrong argument, unknown table, refused SQL
    │   ├── SettingsError        a setting that cannot work
    │   ├── DriverMissingError   an optional package is not installed
    │   ├── ArchiveFormatError   not an archive, or one of a newer format
    │   ├── NotFoundError        there is nothing of this name or number
    │   ├── UnauthenticatedError nobody knows who asks
    │   ├── ForbiddenError       who asks may not
    │   ├── PreconditionError    it has to be said what the change is based on
    │   ├── TooManyError         too often; it says when to come back
    │   └── OverLimitError       it takes more time or memory than the service gives
    ├── TransientError       worth trying again                    exit 5
    │   ├── UnreachableError     source or target does not answer, or broke off
    │   │   └── CatalogError         the catalog does not answer, or is full
    │   ├── StoreError           the archive's store cannot be used: disk full, access denied
    │   └── SnapshotLostError    the source's snapshot is gone; a resume takes a new one
    ├── IntegrityError       the proof failed                      exit 3
    │   ├── DamagedError         the archive is not what its manifest says
    │   └── RowTooLargeError     a row does not fit the memory limit
    ├── SchemaChangedError   the source's structure changed        exit 4
    ├── ConflictError        somebody else was first
    │   ├── AlreadyExistsError   write-once object exists with other bytes
    │   └── FencedError          a newer owner holds the lease
    ├── InterruptedRunError  stopped on request, resumable         exit 130
    └── FatalError           a defect of JiVS or of the machine    exit 1

An error carries one sentence for the user (what happened, to which object, what to do next) and, separately, a
detail for the log. Neither ever holds a secret.
"""

from __future__ import annotations


class JivsError(Exception):
    """Base of all errors raised on purpose."""

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class UserError(JivsError):
    """The caller can put it right."""


class UsageError(UserError):
    """A wrong argument, an unknown table, refused SQL."""


class SettingsError(UserError):
    """A setting that cannot work."""


class DriverMissingError(UserError):
    """An optional package is not installed."""


class ArchiveFormatError(UserError):
    """The folder is not an archive, or one of a newer format."""


class NotFoundError(UserError):
    """There is nothing of this name or number."""


class UnauthenticatedError(UserError):
    """Nobody knows who asks."""


class ForbiddenError(UserError):
    """Who asks may not."""


class PreconditionError(UserError):
    """It has to be said what a change is based on."""


class TooManyError(UserError):
    """Too often; worth trying again after ``seconds``."""

    def __init__(self, message: str, *, seconds: int = 60) -> None:
        super().__init__(message)
        self.seconds = seconds


class OverLimitError(UserError):
    """It takes more time or memory than the service gives to one request."""


class TransientError(JivsError):
    """Worth trying again."""


class UnreachableError(TransientError):
    """A source or target does not answer, or broke off."""


class CatalogError(UnreachableError):
    """The catalog does not answer, or is full."""


class StoreError(TransientError):
    """The archive's store cannot be used."""


class SnapshotLostError(TransientError):
    """The snapshot of the source is gone."""


class IntegrityError(JivsError):
    """The proof failed."""


class DamagedError(IntegrityError):
    """The archive is not what its manifest says."""


class RowTooLargeError(IntegrityError):
    """A row does not fit the memory limit."""


class SchemaChangedError(JivsError):
    """The structure of the source changed."""


class ConflictError(JivsError):
    """Somebody else was first."""


class AlreadyExistsError(ConflictError):
    """A write-once object exists already with other bytes."""


class FencedError(ConflictError):
    """A newer owner holds the lease."""


class InterruptedRunError(JivsError):
    """Stopped on request; the run can be resumed."""


class FatalError(JivsError):
    """A defect of JiVS or of the machine."""
