"""Bringing the catalog's schema up: in a file at once, in PostgreSQL beside those who work on it.

There, each revision is a transaction of its own: one that held the locks of two would wait in a circle with those who take
them the other way round. None waits long for a lock, for everybody else waits behind it, and leases are short; it is
tried again. What takes time, an index on a table that has grown, is built ``CONCURRENTLY``.
"""

from __future__ import annotations

import logging
import math
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa

from jivs.backends.catalog.tables import HEAD, OLDEST, compatibility
from jivs.errors import UnreachableError

_LOG = logging.getLogger(__name__)

_MIGRATING = 0x6A697673
"""The advisory lock of whoever migrates."""

_NOTED = "0007"
"""The first revision with a table for it."""

_LOCK_MS = 500
_AGAIN_SECONDS = 0.2
_GIVE_UP_SECONDS = 300.0
_IN_THE_WAY = {"55P03", "40P01"}
"""PostgreSQL's names (SQLSTATE) of a lock that was not had in time, and of a circle of those who wait."""


class Operations(Protocol):
    """Alembic's, as far as they are needed here."""

    def execute(self, sqltext: str) -> object:
        """Execute a statement."""


@contextmanager
def _without_colours() -> Iterator[None]:
    """Alembic loads Mako, and that the grammars of a dozen languages, to colour errors in templates that nobody here has: a
    third of what bringing up a new catalog costs.
    """
    name = "mako.ext.pygmentplugin"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment] # as Python notes that a module is not there
    try:
        yield
    finally:
        sys.modules.pop(name, None)


def upgrade(connection: sa.Connection) -> None:
    """Bring the schema up, within the transaction at hand if there is one."""
    with _without_colours():
        from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def version(connection: sa.Connection) -> str | None:
    """The revision that the schema has; None where there is no schema yet."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return str(found) if found is not None else None


def note(connection: sa.Connection, revision: str) -> None:
    """Write down which code may work on the schema, in the transaction of each revision that brings it nearer to ours."""
    if revision >= _NOTED:
        connection.execute(compatibility.delete())
        connection.execute(compatibility.insert().values(oldest=OLDEST))


@contextmanager
def patiently(operations: Operations) -> Iterator[None]:
    """Statements in whose way nobody is, and who may wait for others for as long as those take."""
    operations.execute("SET lock_timeout = 0")
    try:
        yield
    finally:
        operations.execute(f"SET lock_timeout = {_LOCK_MS}")


def wait_for_turn(connection: sa.Connection) -> None:
    """Nobody else migrates while this connection is open. Who waits asks now and then: to wait in a statement would hold up
    the one who builds an index, who waits for all statements that have begun.
    """
    told = False
    while True:
        got = connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({_MIGRATING})").scalar()
        connection.commit()
        if got:
            return
        if not told:
            _LOG.warning("Another process brings the catalog's schema up: this one waits for it.")
            told = True
        time.sleep(_AGAIN_SECONDS)


def upgrade_beside_others(connection: sa.Connection) -> None:
    """Bring the schema of PostgreSQL up, on a connection that has its turn. Raises UnreachableError where others use a table
    all the time.
    """
    _LOG.info("The catalog's schema is brought up to %s.", HEAD)
    connection.exec_driver_sql(f"SET idle_in_transaction_session_timeout = 0; SET lock_timeout = {_LOCK_MS}")
    connection.commit()
    end = math.inf
    reached: str | None = ""
    while True:
        try:
            upgrade(connection)
            connection.commit()
        except sa.exc.OperationalError as error:
            connection.rollback()
            if getattr(error.orig, "sqlstate", "") not in _IN_THE_WAY:
                raise
            if (now := version(connection)) != reached:  # the first refusal: what came before may have taken its time
                end, reached = time.monotonic() + _GIVE_UP_SECONDS, now
            connection.commit()
            if time.monotonic() > end:
                raise UnreachableError(
                    f"The catalog's schema cannot be brought up: for {_GIVE_UP_SECONDS:.0f} s others, a backup for example, "
                    "have used a table that has to be changed. Start JiVS again when they have ended."
                ) from error
            time.sleep(random.uniform(_AGAIN_SECONDS, 3 * _AGAIN_SECONDS))  # noqa: S311 - for nobody's secret
        else:
            return
