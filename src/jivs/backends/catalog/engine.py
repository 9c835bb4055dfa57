"""The database behind the catalog: SQLite in a file, or PostgreSQL."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from jivs.backends.catalog import migrating
from jivs.backends.catalog.tables import HEAD, compatibility
from jivs.domain.audit import chained
from jivs.domain.source import Address
from jivs.errors import CatalogError, DriverMissingError, UserError
from jivs.ports.metrics import PoolUse

if TYPE_CHECKING:
    import psycopg

_LOG = logging.getLogger(__name__)
_BUSY_MS = 30_000
_FROZEN_MS = 2_000
"""A transaction in which nothing happens for so long is ended by PostgreSQL, and with it its locks: its process stands
still, or was cut off, and others have leases to renew meanwhile. (In SQLite only the process itself can end it.)
"""

_CUT_MS = 10_000
"""A server that acknowledges nothing for so long is gone, whatever the wire says."""

APPLICATION = "jivs catalog"
"""What PostgreSQL calls our connections."""


_MOST_OF_SQLITE = 16
"""One connection writes at a time, and readers beyond a few per core gain nothing; each costs descriptors and a cache."""

_KEPT = 8

_NAMED = 5
"""So many who have connections are named in the log when there is none left."""

_TRUSTED_SECONDS = 0.5
"""A connection that was used so lately is used again without asking whether it still lives."""

_LEAK_SECONDS = 10.0
"""Each transaction is short: a connection that is used for so long was forgotten somewhere, or waits for something."""

_FULL = ("disk is full", "No space left on device")
"""As SQLite and PostgreSQL say it."""


Question = tuple[str, tuple[Any, ...]]
"""A statement with ``?`` for its values, and these."""


@dataclass(frozen=True, kw_only=True)
class PoolLimits:
    """How many connections there may be, how many are opened at the start, how many seconds are waited for a free one."""

    maximum: int = 16
    minimum: int = 0
    seconds: float = 30.0


class Engine:
    """Short transactions, each on a connection of the pool. Raises CatalogError where the database does not answer."""

    def __init__(self, address: Address, pool: PoolLimits | None = None) -> None:
        self.shown = address.database if address.scheme == "sqlite" else address.shown
        self._sqlite = address.scheme == "sqlite"
        self._threads = threading.local()
        given = pool or PoolLimits()
        self._limits = given
        self._most = min(given.maximum, _MOST_OF_SQLITE) if self._sqlite else given.maximum
        self._waiting = 0
        self._counting = threading.Lock()
        self._held: dict[object, tuple[str, float]] = {}
        least = min(given.minimum, self._most)
        kept = max(least, min(_KEPT, self._most))
        with self._clear_errors("cannot be used"):
            if self._sqlite:
                _make_file(Path(address.database))
            url = f"sqlite:///{address.database}" if self._sqlite else _postgresql_url(address, given.seconds)
            # Who waited for a lock has to see what came before, whatever the database is set to.
            level: dict[str, Any] = {} if self._sqlite else {"isolation_level": "READ COMMITTED"}
            try:
                self._engine = sa.create_engine(
                    url,
                    **level,
                    poolclass=sa.pool.QueuePool,
                    pool_size=kept,
                    max_overflow=self._most - kept,
                    pool_timeout=given.seconds,
                    hide_parameters=True,
                )
            except ImportError as error:
                raise missing_driver(error) from None
            # What only reads needs no transaction: to begin and to end one are two more ways to the server and back.
            self._reading = self._engine if self._sqlite else self._engine.execution_options(isolation_level="AUTOCOMMIT")
            sa.event.listen(self._engine, "connect", _prepare if self._sqlite else _bound)
            if not self._sqlite:
                sa.event.listen(self._engine, "checkin", _used)
                sa.event.listen(self._engine, "checkout", _alive)
            self._migrate()
        if least:
            threading.Thread(target=self._fill, args=(least,), name="pool", daemon=True).start()

    def _fill(self, least: int) -> None:
        """Open connections before they are needed."""
        with ExitStack() as held:
            try:
                while (found := self.use()).active + found.idle < least:
                    held.enter_context(self._connection())
            except (sa.exc.SQLAlchemyError, OSError) as error:
                opened = self.use().active
                _LOG.warning(
                    "The catalog %s lets us open %d connections, not %d: %s", self.shown, opened, least, _reason(error)
                )

    @contextmanager
    def _connection(self, *, reading: bool = False) -> Iterator[sa.Connection]:
        with self._counting:
            self._waiting += 1
        try:
            connection = (self._reading if reading else self._engine).connect()
        finally:
            with self._counting:
                self._waiting -= 1
        with connection, self._noted():
            try:
                yield connection
            except BaseException:
                if reading and self._sqlite:  # what was not read to its end keeps an old state, in which nobody can write
                    connection.invalidate()
                raise

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Who has a connection, and since when; a line in the log about one that was had for too long."""
        key, thread, began = object(), threading.current_thread().name, time.monotonic()
        self._held[key] = thread, began
        try:
            yield
        finally:
            del self._held[key]
            took = time.monotonic() - began
            if took > _LEAK_SECONDS:
                _LOG.warning("A connection to the catalog %s was in use for %.0f s, by %s.", self.shown, took, thread)

    def _holders(self) -> str:
        now = time.monotonic()
        oldest = sorted(self._held.copy().values(), key=lambda one: one[1])
        return ", ".join(f"{thread} for {now - began:.1f} s" for thread, began in oldest[:_NAMED])

    def use(self) -> PoolUse:
        """How the pool is used now."""
        pool = self._engine.pool
        assert isinstance(pool, sa.pool.QueuePool)
        return PoolUse(active=pool.checkedout(), idle=pool.checkedin(), pending=self._waiting, limit=self._most)

    def ping(self) -> dict[str, str | int]:
        """What answers, and after how many milliseconds."""
        began = time.perf_counter()
        with self.read() as connection:
            connection.execute(sa.select(1))
            version = ".".join(str(part) for part in connection.dialect.server_version_info or ())
        product = "SQLite" if self._sqlite else "PostgreSQL"
        return {"database": f"{product} {version}".strip(), "milliseconds": round((time.perf_counter() - began) * 1e3)}

    def _migrate(self) -> None:
        """Bring the schema up, unless a newer JiVS has: then work on that one's, if it allows it. So workers of two versions
        work side by side, and a rollout can be undone.
        """
        with self._connection() as connection:
            if self._fits(connection):
                return
        if self._sqlite:
            with self.write() as connection:
                if not self._fits(connection):
                    migrating.upgrade(connection)
            return
        with self._connection() as connection:
            try:
                migrating.wait_for_turn(connection)
                if not self._fits(connection):
                    connection.rollback()
                    migrating.upgrade_beside_others(connection)
            finally:
                connection.invalidate()  # its settings and its lock end with it

    def _fits(self, connection: sa.Connection) -> bool:
        """Whether the schema is ours, or a newer one that our code may work on. Raises UserError for one that it may not."""
        version = migrating.version(connection)
        if version is None or version <= HEAD:
            return version == HEAD
        oldest = connection.execute(sa.select(sa.func.max(compatibility.c.oldest))).scalar()
        if oldest is None or oldest > HEAD:
            raise UserError(f"The catalog {self.shown} belongs to a newer JiVS (schema {version}): upgrade JiVS.")
        _LOG.info("The catalog %s has schema %s, of a newer JiVS that lets this one work on it.", self.shown, version)
        return True

    @contextmanager
    def _clear_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except sa.exc.TimeoutError as error:
            raise CatalogError(
                f"Connection pool exhausted: all {self._most} connections to the catalog were in use for "
                f"{self._limits.seconds:g} s. Raise HIKARI_MAXIMUM_POOL_SIZE, or HIKARI_CONNECTION_TIMEOUT.",
                detail=f"in use by {self._holders()}",
            ) from error
        except (sa.exc.OperationalError, sa.exc.InterfaceError, OSError) as error:
            reason = _reason(error)
            full = any(sign in reason for sign in _FULL)
            act = "free some space" if full else "check that it is there, or set DATABASE_URL"
            raise CatalogError(
                f"The catalog {self.shown} {what}: {reason}. To go on, {act}.",
                detail=type(error).__name__,
            ) from error
        except sa.exc.DatabaseError as error:
            if isinstance(error, (sa.exc.IntegrityError, sa.exc.ProgrammingError)):
                raise
            raise CatalogError(f"The catalog {self.shown} {what}: {_reason(error)}.", detail=type(error).__name__) from error

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection to read with."""
        with self._clear_errors("cannot be read"), self._connection(reading=True) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction: all of the block, or nothing. On SQLite it begins as a writer: it waits instead of failing."""
        with self._clear_errors("cannot be written"), self._connection() as connection:
            if not self._sqlite:
                with connection.begin():
                    yield connection
                return
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")

    @property
    def embedded(self) -> bool:
        """Whether it is in a file of this machine: reading a row takes microseconds and waits for nobody."""
        return self._sqlite

    def fetch(self, *asked: Question) -> list[list[tuple[Any, ...]]]:
        """The rows of each SELECT, by the shortest way there is: all of them are sent to a server together."""
        if not self._sqlite:
            with self.read() as connection:
                return _piped(connection, asked)
        with self._clear_errors("cannot be read"):
            try:
                return [self._own().execute(sql, values).fetchall() for sql, values in asked]
            except sqlite3.Error as error:
                raise sa.exc.OperationalError("SELECT", (), error) from error

    def _own(self) -> sqlite3.Connection:
        """This thread's connection for ``fetch``."""
        connection: sqlite3.Connection | None = getattr(self._threads, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.shown, isolation_level=None)
            connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
            connection.execute("PRAGMA query_only=ON")
            self._threads.connection = connection
        return connection

    def lock(self, connection: sa.Connection, *numbers: int) -> None:
        """Let others who ask for these numbers wait until the transaction ends. SQLite has one writer at a time anyway."""
        if not self._sqlite:
            connection.exec_driver_sql(f"SELECT {', '.join(['pg_advisory_xact_lock(%s)'] * len(numbers))}", numbers)

    def locking(self, number: int) -> list[Question]:
        """The statement that does."""
        return [] if self._sqlite else [("SELECT pg_advisory_xact_lock(?)", (number,))]

    def together(self, connection: sa.Connection, *asked: Question) -> list[list[tuple[Any, ...]]]:
        """The rows of each statement, in the caller's transaction, on one way to a server and back."""
        if not self._sqlite:
            return _in_one_message(connection, asked)
        done = [connection.exec_driver_sql(sql, values) for sql, values in asked]
        return [[tuple(row) for row in one] if one.returns_rows else [] for one in done]

    def at_once(self, *asked: Question) -> list[list[tuple[Any, ...]]]:
        """As ``together``, in a transaction of their own: all of them, or nothing."""
        if self._sqlite:
            with self.write() as connection:
                return self.together(connection, *asked)
        with self._clear_errors("cannot be written"), self._connection(reading=True) as connection:
            return _in_one_message(connection, asked)  # which is one transaction where there was no BEGIN

    def insert(self, table: sa.Table) -> Any:
        """An INSERT that knows ON CONFLICT."""
        if self._sqlite:
            return sqlite.insert(table)
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)

    def close(self) -> None:
        """Give back all connections."""
        self._engine.dispose()


def missing_driver(error: ImportError) -> DriverMissingError:
    """What a catalog in PostgreSQL needs."""
    return DriverMissingError(
        f"DATABASE_URL needs a package that is not installed ({error.name}): pip install 'jivs[postgresql]'"
    )


def _postgresql_url(address: Address, seconds: float) -> sa.URL:
    return sa.URL.create(
        "postgresql+psycopg",
        username=address.username or None,
        password=address.password.reveal() or None,
        host=address.host or None,
        port=address.port,
        database=address.database or None,
        query={
            "connect_timeout": str(max(2, round(seconds))),
            "fallback_application_name": APPLICATION,
            "tcp_user_timeout": str(_CUT_MS),
            "keepalives_idle": "5",
            "keepalives_interval": "2",
            "keepalives_count": "3",
            **address.options,
        },
    )


def _make_file(path: Path) -> None:
    """The catalog's file, if it is not there: it has hashes of passwords, so only its owner reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _prepare(connection: Any, _record: Any) -> None:
    # busy_timeout before any other PRAGMA: switching to WAL already needs the lock it waits for.
    connection.isolation_level = None
    for pragma in (f"busy_timeout={_BUSY_MS}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    connection.create_function("chained", 3, chained, deterministic=True)


def _bound(connection: Any, _record: Any) -> None:
    """Let PostgreSQL notice, too, that the wire was cut: nobody would tell it, and it would keep locks for two hours."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SET idle_in_transaction_session_timeout = {_FROZEN_MS}; SET tcp_keepalives_idle = 5; "
            "SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; "
            "SET default_transaction_isolation = 'read committed'"  # of what goes there without a BEGIN
        )
    connection.commit()


def _piped(connection: sa.Connection, asked: Sequence[Question]) -> list[list[tuple[Any, ...]]]:
    """The rows of SELECTs, sent together."""
    with _driver(connection) as driver:
        try:
            with driver.pipeline() if len(asked) > 1 else nullcontext():  # to begin one takes a way there and back
                cursors = [driver.execute(sql.replace("?", "%s"), values) for sql, values in asked]
        except Exception as error:  # the driver may take what stood behind the one that failed for prepared
            connection.invalidate(error)
            raise
        return [cursor.fetchall() for cursor in cursors]


def _in_one_message(connection: sa.Connection, asked: Sequence[Question]) -> list[list[tuple[Any, ...]]]:
    """The rows of statements, which the server has all of, or none: a process that stops in between holds no lock."""
    import psycopg

    with _driver(connection) as driver, psycopg.ClientCursor(driver) as cursor:
        cursor.execute(
            "; ".join(sql.replace("?", "%s") for sql, _ in asked), tuple(value for _, values in asked for value in values)
        )
        found = []
        for _ in asked:
            found.append(cursor.fetchall() if cursor.description else [])
            cursor.nextset()
        return found


@contextmanager
def _driver(connection: sa.Connection) -> Iterator[psycopg.Connection[Any]]:
    """The driver's own connection; what it raises becomes what ``connection`` would raise."""
    import psycopg  # here, for whoever has a catalog in a file needs none

    driver = connection.connection.driver_connection
    assert driver is not None
    try:
        yield driver
    except psycopg.Error as error:
        if driver.broken:
            connection.invalidate(error)
        kind = sa.exc.IntegrityError if isinstance(error, psycopg.IntegrityError) else sa.exc.OperationalError
        raise kind("the catalog", (), error) from error


def _used(_connection: Any, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _alive(connection: Any, record: Any, _fairy: Any) -> None:
    """Ask the server, unless it answered a moment ago. Raises InvalidatePoolError: all are opened anew then."""
    if time.monotonic() - record.info.get("used", time.monotonic()) < _TRUSTED_SECONDS:
        return
    import psycopg

    connection.autocommit = True
    try:
        connection.execute("")
        connection.autocommit = False
    except psycopg.Error as error:
        raise sa.exc.InvalidatePoolError from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or getattr(error, "strerror", None) or type(error).__name__).strip()
