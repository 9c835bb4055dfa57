"""A catalog in an SQLite file as a whole: SQLite's online backup API in both directions."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from jivs.backends.catalog import settling, soundness, trail
from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.tables import HEAD
from jivs.domain.audit import Deed
from jivs.domain.source import Address
from jivs.errors import ConflictError, DamagedError, UnreachableError, UsageError, UserError

_BUSY_SECONDS = 5.0
_BLOCK = 1 << 20
_LEAVING_SECONDS = 3.0


class SqliteUpkeep:
    """The file of the catalog, and those that SQLite keeps beside it."""

    kind = "sqlite"
    newest = HEAD

    def __init__(self, address: Address) -> None:
        self._address = address
        self._path = Path(address.database).absolute()

    @property
    def shown(self) -> str:
        return str(self._path)

    def skew(self) -> float:
        return 0.0

    def room(self) -> tuple[int, int]:
        return 0, 0

    def covers(self, path: str) -> bool:
        beside = [self._path.with_name(self._path.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
        mine = [*beside, self._path.with_name("keys.json")]
        return Path(path).resolve() in {file.resolve() for file in mine}

    def version(self) -> str:
        if not self._path.exists() or not self._path.stat().st_size:
            return ""
        with self._opened() as connection:
            return _version(connection)

    def save(self, write: Callable[[bytes], object]) -> str:
        if not self.version():
            raise UsageError(f"There is no catalog at {self.shown}: nothing can be saved. Set DATABASE_URL.")
        with _beside(self._path) as copy:
            with self._opened() as connection, closing(sqlite3.connect(copy, isolation_level=None)) as target:
                connection.backup(target)  # in one step: what is written meanwhile waits for nobody, and is not in it
                target.execute("PRAGMA journal_mode=DELETE")
                _require_sound(target, self.shown)
                version = _version(target)
            if version > HEAD:
                raise UserError(f"The catalog {self.shown} belongs to a newer JiVS (schema {version}): save it with that.")
            with copy.open("rb") as file:
                while block := file.read(_BLOCK):
                    write(block)
        return version

    def in_use(self) -> str:
        if not self._path.exists():
            return ""
        end = time.monotonic() + _LEAVING_SECONDS
        while not self._alone():
            if time.monotonic() > end:  # a process that has just ended leaves its locks behind for a moment
                return "other processes have it open"
            time.sleep(0.1)
        return ""

    def _alone(self) -> bool:
        """Whether nobody else has the file open: only then SQLite lets go of its write-ahead log."""
        try:
            with closing(sqlite3.connect(self._path, isolation_level=None, timeout=0)) as connection:
                connection.execute("PRAGMA journal_mode=DELETE")
                connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            return False
        except sqlite3.DatabaseError:  # no database: nobody can use it
            return True
        return True

    def load(self, saved: BinaryIO, *, force: bool) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with _beside(self._path) as fresh:
            with fresh.open("wb") as file:
                shutil.copyfileobj(saved, file, _BLOCK)
            with closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
                _require_sound(connection, "the backup")
                if not (version := _version(connection)):
                    raise DamagedError("There is no catalog in the backup.")
                connection.execute("BEGIN")
                for statement in settling.statements(version):
                    connection.execute(statement)
                connection.execute("COMMIT")
                self._put(connection, force=force)

    def _put(self, fresh: sqlite3.Connection, *, force: bool) -> None:
        """In one transaction of the catalog's own: whoever has it open sees the old state, and then the new one."""
        if not self._path.exists():
            for suffix in ("-wal", "-shm", "-journal"):  # SQLite would take the log of a file that is gone for this one's
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with self._opened() as target:
            if not force:
                self._hold(target)
            fresh.backup(target)
            target.execute("PRAGMA locking_mode=NORMAL")
            target.execute("PRAGMA journal_mode=WAL")

    def _hold(self, connection: sqlite3.Connection) -> None:
        """Nobody else opens it until this connection is closed."""
        try:
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
        except sqlite3.OperationalError:
            raise ConflictError(f"The catalog {self.shown} is in use: stop what uses it, then restore again.") from None

    def set_aside(self) -> str:
        aside = self._path.with_name(f"{self._path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        for suffix in ("-wal", "-shm", "-journal", ""):
            file = self._path.with_name(self._path.name + suffix)
            if file.exists():
                file.rename(aside.with_name(aside.name + suffix))
        return str(aside)

    def upgrade(self) -> None:
        Engine(self._address).close()

    def record(self, at: float, deed: Deed) -> None:
        engine = Engine(self._address)
        with engine.write() as connection:
            trail.append(engine, connection, at, deed)
        engine.close()

    def faults(self) -> Iterator[str]:
        with self._opened() as connection:
            for (line,) in connection.execute("PRAGMA integrity_check(10)"):
                if line != "ok":
                    yield f"SQLite finds damage: {line}."
            version = _version(connection)
            orphans = connection.execute("PRAGMA foreign_key_check").fetchall() if version != HEAD else []
        for table, row, other, _ in orphans[:10]:
            yield f"Row {row} of {table} names a row of {other} that is not there."
        if version == HEAD:
            engine = Engine(self._address)
            yield from soundness.faults(engine)
            engine.close()

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The catalog's file, which has to be there."""
        try:
            found = sqlite3.connect(f"{self._path.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=_BUSY_SECONDS)
            with closing(found) as connection:
                yield connection
        except sqlite3.OperationalError as error:
            raise UnreachableError(f"The catalog {self.shown} cannot be used: {error}.", detail=repr(error)) from error
        except sqlite3.DatabaseError as error:
            raise DamagedError(
                f"The catalog {self.shown} is damaged: {error}. Restore a backup with jivs db restore.", detail=repr(error)
            ) from error


def _version(connection: sqlite3.Connection) -> str:
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
    found = connection.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
    return str(found[0]) if found else ""


def _require_sound(connection: sqlite3.Connection, what: str) -> None:
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        raise DamagedError(f"SQLite finds damage in {what}: {found}.")


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name for a file beside another, for its owner only; it is gone at the end."""
    file = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield file
    finally:
        for suffix in ("", "-journal"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
