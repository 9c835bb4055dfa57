"""PostgreSQL's errors as sentences."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

from jivs.connectors._sql import redact, see_off
from jivs.domain.source import Address
from jivs.errors import (
    FatalError,
    JivsError,
    SchemaChangedError,
    SnapshotLostError,
    TransientError,
    UnreachableError,
    UsageError,
)

if TYPE_CHECKING:
    import psycopg


class UntranslatableError(TransientError):
    """The server cannot convert a value to UTF-8."""


def unreachable(error: Exception, address: Address) -> JivsError:
    """The error for a connection that could not be made."""
    secrets = [address.password.reveal()]
    message = redact(str(error), secrets)
    where = address.shown
    if "authentication failed" in message or "no password supplied" in message:
        return UsageError(f"{where} refused the login of user {address.username}: check user and password.")
    if 'database "' in message and "does not exist" in message:
        return UsageError(f"{where}: the server has no such database. Check the name after the last slash.")
    if 'role "' in message and "does not exist" in message:
        return UsageError(f"{where}: the server has no user {address.username}.")
    return UnreachableError(
        f"{where} cannot be reached: {message}. Check host, port, TLS options and whether the server runs.",
        detail=message,
    )


def translated(error: psycopg.Error, address: Address) -> JivsError:
    """The error of ours that a server's error is."""
    from psycopg import errors

    where = address.shown
    message = redact(error.diag.message_primary or str(error), [address.password.reveal()])
    if isinstance(error, errors.InsufficientPrivilege):
        return UsageError(
            f"{where}: {message}. Grant the account SELECT (or BYPASSRLS where row security hides rows), or "
            "leave the table out with --exclude."
        )
    if isinstance(error, (errors.UndefinedTable, errors.UndefinedColumn)):
        return SchemaChangedError(f"{where}: {message}. The table changed, or the name is wrong.")
    if isinstance(error, errors.LockNotAvailable):
        return TransientError(
            f"{where}: {message}. Another session holds a table; try again later or set lock_timeout in the URL."
        )
    if isinstance(error, errors.UntranslatableCharacter | errors.CharacterNotInRepertoire):
        return UntranslatableError(f"{where}: {message}. Text will be read as the bytes that are stored.")
    if isinstance(error, errors.QueryCanceled):
        return TransientError(f"{where}: {message}. See statement_timeout in the URL.")
    if error.sqlstate is not None and (error.sqlstate[:2] in {"42", "0A"} or error.sqlstate == "25006"):
        return UsageError(f"{where}: {message}. Only one SELECT is possible here.")
    if isinstance(error, errors.InvalidParameterValue) and "snapshot" in message:
        return SnapshotLostError(f"{where}: the run's snapshot is gone. Go on with --resume.")
    if error.sqlstate is None or error.sqlstate[:2] in {"08", "57", "53", "58"}:
        return UnreachableError(f"{where} broke off: {message}. Try again, with --resume.")
    return FatalError(f"{where}: {message} (SQLSTATE {error.sqlstate}).")


def leave(connection: Any) -> None:
    """Close a connection; one that is idle is gone from the server when this returns."""
    from psycopg.pq import TransactionStatus

    idle = {TransactionStatus.IDLE, TransactionStatus.INTRANS, TransactionStatus.INERROR}
    if connection.info.transaction_status in idle:
        see_off(connection.fileno(), connection.close)
    else:
        connection.close()


def is_silent(connection: Any) -> bool:
    """Whether an idle connection has nothing to say. A server that ends it, or a wire that is cut, says so at once."""
    if connection.closed:
        return False
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    return not waiting.poll(0)
