"""A catalog in PostgreSQL as a whole: ``pg_dump`` and ``psql``, on the tables of the catalog and no others."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from jivs.backends.catalog import settling, soundness, trail
from jivs.backends.catalog.engine import APPLICATION, Engine
from jivs.backends.catalog.tables import HEAD, metadata
from jivs.domain.audit import Deed
from jivs.domain.source import Address
from jivs.errors import ConflictError, DriverMissingError, FatalError, UnreachableError, UsageError, UserError

_BLOCK = 1 << 20
_CONNECT_SECONDS = 10
_TABLES = (*(table.name for table in metadata.sorted_tables), "alembic_version")
_DUMP = ("pg_dump", "--clean", "--if-exists", "--no-owner", "--no-privileges", "--encoding=UTF8")
_LOAD = ("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--single-transaction", "--file=-")
_ATTEMPTS = 20
# Who uses the catalog meanwhile locks its tables in another order. To give up all locks, and to ask for them again, loses
# nothing; the tables go when nobody else can wait for us any more.
_CLEAR = f"""
DO $jivs$
DECLARE present text := (
  SELECT string_agg(t, ', ') FROM unnest('{{{",".join(_TABLES)}}}'::text[]) t WHERE to_regclass(t) IS NOT NULL
);
BEGIN
  FOR attempt IN 1..{_ATTEMPTS} LOOP
    BEGIN
      EXECUTE coalesce('LOCK TABLE ' || present || ' IN ACCESS EXCLUSIVE MODE', 'SELECT');
      RETURN;
    EXCEPTION WHEN deadlock_detected THEN
      IF attempt = {_ATTEMPTS} THEN RAISE; END IF;
    END;
  END LOOP;
END $jivs$;
DROP TABLE IF EXISTS {", ".join(_TABLES)} CASCADE;
"""
_OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"


class PostgresUpkeep:
    """``environment`` makes that of a child from what it is to have besides our own."""

    kind = "postgresql"
    newest = HEAD

    def __init__(self, address: Address, environment: Callable[[dict[str, str]], dict[str, str]]) -> None:
        self._address = address
        self._environment = environment

    @property
    def shown(self) -> str:
        return self._address.shown

    def skew(self) -> float:
        with self._connected() as connection:
            before = time.time()
            theirs = float(_value(connection, "SELECT extract(epoch FROM clock_timestamp())"))
            return theirs - (before + time.time()) / 2

    def room(self) -> tuple[int, int]:
        with self._connected() as connection:
            used = _value(connection, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
            limits = [f"current_setting('{name}')::int" for name in ("max_connections", "superuser_reserved_connections")]
            return int(_value(connection, f"SELECT {' - '.join(limits)}")), int(used) - 1

    def covers(self, path: str) -> bool:  # noqa: ARG002 - none of its files is ours to write
        return False

    def version(self) -> str:
        with self._connected() as connection:
            return _version(connection)

    def save(self, write: Callable[[bytes], object]) -> str:
        with self._connected() as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            version = _version(connection)
            if not version:
                raise UsageError(f"There is no catalog at {self.shown}: nothing can be saved. Set DATABASE_URL.")
            if version > HEAD:
                raise UserError(f"The catalog {self.shown} belongs to a newer JiVS (schema {version}): save it with that.")
            snapshot = _value(connection, "SELECT pg_export_snapshot()")
            tables = [f"--table={name}" for name in _TABLES]
            with self._child([*_DUMP, f"--snapshot={snapshot}", *tables], stdout=subprocess.PIPE) as child:
                assert child.stdout is not None
                while block := child.stdout.read(_BLOCK):
                    write(block)
        return version

    def in_use(self) -> str:
        with self._connected() as connection:
            name = self._address.options.get("application_name", APPLICATION)
            others = int(_value(connection, _OTHERS, (name,)))
        return f"{others} connections of JiVS are open" if others else ""

    def load(self, saved: BinaryIO, *, force: bool) -> None:
        if (present := self.version()) > HEAD:
            raise UserError(
                f"The catalog {self.shown} belongs to a newer JiVS (schema {present}), and has tables that this one does "
                "not know: restore into an empty database."
            )
        if not force and (others := self.in_use()):
            raise ConflictError(f"The catalog {self.shown} is in use ({others}): stop what uses it, then restore again.")
        with self._child(_LOAD, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
            assert child.stdin is not None
            try:
                child.stdin.write(_CLEAR.encode())
                shutil.copyfileobj(saved, child.stdin, _BLOCK)
                child.stdin.write(b"\nRESET search_path;\n" + _settle())
                child.stdin.close()
            except BrokenPipeError:
                pass  # it has ended, and its exit code and message say why

    def set_aside(self) -> str:
        raise ConflictError(f"The catalog {self.shown} cannot be read: make an empty database, and restore into that.")

    def upgrade(self) -> None:
        Engine(self._address).close()

    def record(self, at: float, deed: Deed) -> None:
        engine = Engine(self._address)
        with engine.write() as connection:
            trail.append(engine, connection, at, deed)
        engine.close()

    def faults(self) -> Iterator[str]:
        with self._connected() as connection:
            version = _version(connection)
            for name in _TABLES:
                yield from _unreadable(connection, name)
        if version == HEAD:
            engine = Engine(self._address)
            yield from soundness.faults(engine)
            engine.close()

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        address = self._address
        try:
            with psycopg.connect(
                self._conninfo(),
                password=address.password.reveal() or None,
                application_name=f"{APPLICATION} upkeep",
                autocommit=True,
            ) as connection:
                yield connection
        except psycopg.OperationalError as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UnreachableError(
                f"The catalog {self.shown} cannot be used: {reason}. Check that it is there, or set DATABASE_URL.",
                detail=type(error).__name__,
            ) from None

    def _conninfo(self) -> str:
        """Without the password: it stands on a command line."""
        address = self._address
        given = {"host": address.host, "port": address.port, "dbname": address.database, "user": address.username}
        known = {name: value for name, value in given.items() if value}
        return make_conninfo("", **{"connect_timeout": _CONNECT_SECONDS, **known, **address.options})

    @contextmanager
    def _child(
        self, command: Sequence[str], stdin: int | None = None, stdout: int | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """One of PostgreSQL's programs. Raises what its end means."""
        program = shutil.which(command[0])
        if program is None:
            raise DriverMissingError(
                f"{command[0]} is not installed: install PostgreSQL's client programs (postgresql-client), of the server's "
                "version or newer."
            )
        password = self._address.password.reveal()
        environment = self._environment({"PGPASSWORD": password} if password else {})
        with tempfile.TemporaryFile() as said:
            child = subprocess.Popen(  # noqa: S603 - PostgreSQL's program, found on the path
                [program, *command[1:], f"--dbname={self._conninfo()}"],
                env=environment,
                stdin=stdin,
                stdout=stdout,
                stderr=said,
            )
            try:
                yield child
            except BaseException:
                child.kill()
                raise
            finally:
                code = child.wait()
                for pipe in (child.stdin, child.stdout):
                    if pipe is not None:
                        pipe.close()
            said.seek(0)
            if code:
                raise _ended(command[0], code, said.read(8000).decode(errors="replace"), password)


def _ended(program: str, code: int, said: str, password: str) -> Exception:
    reason = " ".join((said.replace(password, "***") if password else said).split())
    if code < 0:
        return FatalError(f"{program} was ended by signal {-code}. Nothing was changed: try again.")
    if "server version" in reason:
        return DriverMissingError(f"{program} is older than the server: install that of its version. It says: {reason}")
    return UnreachableError(f"{program} failed, and nothing was changed: {reason}", detail=f"exit code {code}")


def _settle() -> bytes:
    """What the restored catalog forgets, each as far as its schema goes."""
    parts = []
    for since, statement in settling.STATEMENTS:
        condition = f"(SELECT version_num >= '{since}' FROM alembic_version)"
        parts.append(f"DO $jivs$ BEGIN IF {condition} THEN\n{statement};\nEND IF; END $jivs$;\n")
    return "".join(parts).encode()


def _version(connection: psycopg.Connection[Any]) -> str:
    if _value(connection, "SELECT to_regclass('alembic_version')::text") is None:
        return ""
    found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(found[0]) if found else ""


def _value(connection: psycopg.Connection[Any], query: str, parameters: tuple[object, ...] = ()) -> Any:
    row = connection.execute(query, parameters or None).fetchone()
    assert row is not None
    return row[0]


def _unreadable(connection: psycopg.Connection[Any], name: str) -> Iterator[str]:
    """Read every value of a table."""
    if _value(connection, "SELECT to_regclass(%s)::text", (name,)) is None:
        return
    try:
        connection.execute(sql.SQL("SELECT sum(length(t::text)) FROM {} t").format(sql.Identifier(name))).fetchone()
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        yield f"Table {name} cannot be read: {' '.join(str(error).split())}."
