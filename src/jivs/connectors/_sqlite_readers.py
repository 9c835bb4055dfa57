"""SQLite read by the compiled part: several connections in one state of the database."""

from __future__ import annotations

import os
import queue
import struct
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from jivs.connectors._sqlite_values import Take, Text, as_text, class_name, misfit
from jivs.domain.fingerprint import Fingerprint
from jivs.domain.quarantine import QuarantinedValue
from jivs.domain.schema import ArchiveType
from jivs.ports.connector import Chunk
from jivs.wire import sqlite as compiled
from jivs.wire.native import Form, Limits

_LOCK_SECONDS = 1.0
_INDEX_HEADER = 96


class LogIndex:
    """The header of the index of a write-ahead log: another one after every commit.

    Source: SQLite, "WAL-mode File Format", section 2.1. The file stays open as long as this process has connections to the
    database: closing any descriptor of it would give back the process's locks on it (fcntl(2)), SQLite's among them, and
    then others would overwrite what is being read.
    """

    def __init__(self, database: Path) -> None:
        self._path = f"{database.resolve()}-shm"
        self._file = -1

    def state(self) -> bytes | None:
        """The header now; None where there is no index."""
        if self._file < 0:
            try:
                self._file = os.open(self._path, os.O_RDONLY)
            except OSError:
                return None
        return os.pread(self._file, _INDEX_HEADER, 0)

    def close(self) -> None:
        """Close the file; all connections to the database have to be closed before."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Readers:
    """Connections that are in the same read transaction, each lent to one thread at a time."""

    def __init__(self) -> None:
        self._all: list[compiled.Database] = []
        self._free: queue.SimpleQueue[compiled.Database] = queue.SimpleQueue()

    def __bool__(self) -> bool:
        return bool(self._all)

    def open(self, uri: str, many: int) -> None:
        """Begin to read over so many connections. Raises SqliteError."""
        for _ in range(many):
            database = compiled.Database(uri, _LOCK_SECONDS)
            self._all.append(database)
            database.execute("pragma query_only = on")
            database.execute("begin")
            database.execute("select count(*) from sqlite_schema")
            self._free.put(database)

    def close(self) -> None:
        """Give all of them back."""
        for database in self._all:
            database.close()
        self._all = []
        self._free = queue.SimpleQueue()

    def interrupt(self) -> None:
        """Make calls in progress end soon with an error."""
        for database in self._all:
            database.interrupt()

    @contextmanager
    def _lease(self) -> Iterator[compiled.Database]:
        database = self._free.get()
        try:
            yield database
        finally:
            self._free.put(database)

    def can_read(self, takes: Sequence[Take]) -> bool:
        """Whether columns are read by these connections: texts of reals are made in Python only."""
        return bool(self._all) and not any(take.reals for take in takes)

    def read(
        self, query: str, takes: Sequence[Take], limits: Limits, refuse: Callable[[int], None]
    ) -> Generator[Chunk, None, None]:
        """The rows of a query."""
        with self._lease() as database:
            for rows in database.read(query, _types(takes), _forms(takes), limits, refuse, _misfit):
                yield Chunk(batch=rows.batch, values=rows.misfits)

    def census(self, queries: Sequence[str], columns: int) -> tuple[int, list[dict[str, int]]]:
        """The number of rows, and how many values of each class the columns have, over all of the queries."""

        def one(query: str) -> list[dict[str, int]]:
            with self._lease() as database:
                return database.census(query, columns)

        with ThreadPoolExecutor(len(self._all)) as pool:
            found = list(pool.map(one, queries))
        rows = sum(sum(part[0].values()) for part in found)
        return rows, [
            {
                name: count
                for name in compiled.CLASSES
                if name != "null" and (count := sum(part[column][name] for part in found))
            }
            for column in range(columns)
        ]

    def fingerprint(self, query: str, takes: Sequence[Take]) -> Fingerprint | None:
        """The fingerprint of a query's rows; None if a value's text can be made in Python only."""
        with self._lease() as database:
            return database.fingerprint(query, _types(takes), _forms(takes))


def _types(takes: Sequence[Take]) -> list[ArchiveType]:
    return [ArchiveType(kind=take.kind) for take in takes]


def _forms(takes: Sequence[Take]) -> list[Form]:
    return [Form.ANY_CLASS if take.what == "text" else Form.NUMERIC if take.numeric else Form.PLAIN for take in takes]


def _misfit(row: int, column: int, class_: str, raw: bytes) -> QuarantinedValue:
    """The record of a value of another class than its column's."""
    value: object = raw
    if class_ == "integer":
        value = int.from_bytes(raw, "little", signed=True)
    elif class_ == "real":
        value = struct.unpack("<d", raw)[0]
    elif class_ == "text":
        value = Text(raw)
    return misfit_of(row, column, value)


def misfit_of(row: int, column: int, value: object) -> QuarantinedValue:
    """The same for a value as Python's module gives it."""
    return QuarantinedValue(
        row=row,
        column=column,
        original=bytes(value) if isinstance(value, bytes) else as_text(value),
        canonical=misfit(value),
        reason=f"a value of class {class_name(value)} in a column of another",
    )
