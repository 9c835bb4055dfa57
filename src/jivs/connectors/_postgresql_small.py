"""Many small tables of PostgreSQL together: one statement where each alone would cost several round trips."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jivs.connectors._postgresql_catalog import qualified
from jivs.domain.schema import TableName
from jivs.errors import TransientError

if TYPE_CHECKING:
    import psycopg

GET_IN_MS = 500
REWRITTEN = "was truncated, rewritten or dropped while it was read"
_AT_ONCE = 100
_BESIEGED_SECONDS = 15.0


def get_in(connection: psycopg.Connection[Any], names: Sequence[TableName]) -> bool:
    """Take the tables' locks in a reader, or find somebody waiting in front of one of them."""
    from psycopg import errors

    listed = ", ".join(map(qualified, names))
    usual = connection.execute("show lock_timeout").fetchall()[0][0]
    try:
        connection.execute(
            f"savepoint jivs; set local lock_timeout = {GET_IN_MS}; lock table {listed} in access share mode; "
            f"set local lock_timeout = '{usual}'; release savepoint jivs"
        )
    except errors.LockNotAvailable:
        connection.execute("rollback to savepoint jivs")
        return False
    return True


class Besieged:
    """Tables in front of which somebody waits, as a reader found: for a while no other has to find it out, each part of a
    table by waiting for itself.
    """

    def __init__(self) -> None:
        self._until: dict[TableName, float] = {}

    def __call__(self, connection: psycopg.Connection[Any], name: TableName) -> bool:
        """Whether the table has to be left to the holder of the snapshot; if not, the reader has its lock."""
        if time.monotonic() < self._until.get(name, 0.0):
            return True
        if get_in(connection, [name]):
            return False
        self._until[name] = time.monotonic() + _BESIEGED_SECONDS
        return True


def require_in(connection: psycopg.Connection[Any], names: Sequence[TableName]) -> None:
    """Raises TransientError where one of them has to be left to the holder of the snapshot."""
    if names and not get_in(connection, names):
        raise TransientError("Somebody waits for one of the tables.")


def renew(connection: psycopg.Connection[Any], snapshot: str) -> None:
    """A new transaction in the same snapshot: the locks on the tables read so far are given back.

    A server has room for some thousand locks; readers of 10,000 tables would take more.
    """
    connection.execute(f"commit; begin isolation level repeatable read read only; set transaction snapshot '{snapshot}'")


def counts(connection: psycopg.Connection[Any], sources: Sequence[str]) -> list[int]:
    """The rows of each FROM clause."""
    out: list[int] = []
    for start in range(0, len(sources), _AT_ONCE):
        part = sources[start : start + _AT_ONCE]
        query = " union all ".join(f"select {number} as n, count(*) {source}" for number, source in enumerate(part))
        out += [row[1] for row in connection.execute(f"{query} order by n").fetchall()]
    return out


def rewritten(connection: psycopg.Connection[Any], oids: Sequence[int]) -> set[int]:
    """Those of the tables whose files are others now than in the snapshot."""
    query = (
        "select c.oid::bigint from pg_class c where c.oid = any(%s::oid[])"
        " and c.relfilenode is distinct from pg_relation_filenode(c.oid)"
    )
    return {row[0] for row in connection.execute(query, (list(oids),))}
