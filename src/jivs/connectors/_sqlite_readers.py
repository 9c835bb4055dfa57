"""SQLite read by the compiled part: several connections in one state of the database."""

from __future__ import annotations

import os
import queue
import struct
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from jivs.connectors._sqlite_values import Take, Text, as_text, class_name, misfit
from jivs.domain.fingerprint import Fingerprint
from jivs.domain.quarantine import QuarantinedValue
from jivs.domain.schema import ArchiveType
from jivs.ports.connector import Chunk
from jivs.wire import sqlite as compiled
from jivs.wire.native import Form, Limits

_LOCK_SECONDS = 1.0
_INDEX_HEADER = 96


class Descriptors:
    """Descriptors of a database's files, shared by all sessions of this process that read the same file.

    Closing any descriptor of a file gives back the process's locks on it (fcntl(2)), SQLite's among them, and then others
    would overwrite what is being read. So files are told apart by device and inode, whatever their paths, and nobody closes
    one before all have let go, their connections closed. (A program that has other connections to the database in the same
    process must not use this library on it.)
    """

    _lock = threading.Lock()
    _open: ClassVar[dict[tuple[int, int], tuple[list[int], int]]] = {}
    """Device and inode -> descriptors, sessions."""

    def __init__(self, database: Path) -> None:
        self._path = database
        self._mine: dict[tuple[int, int], int] = {}
        self._held: tuple[int, int] | None = None

    def _get(self, path: str) -> tuple[tuple[int, int], int]:
        """The file that a path leads to now, and a descriptor of it. Raises OSError."""
        with self._lock:
            found = os.stat(path)  # noqa: PTH116 - as fstat below
            key = found.st_dev, found.st_ino
            if key not in self._open:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                opened = os.fstat(descriptor)
                key = opened.st_dev, opened.st_ino
                descriptors, sessions = self._open.get(key, ([], 0))
                self._open[key] = [*descriptors, descriptor], sessions
            if key not in self._mine:
                descriptors, sessions = self._open[key]
                self._open[key] = descriptors, sessions + 1
                self._mine[key] = descriptors[0]
            return key, self._mine[key]

    def hold(self) -> None:
        """Hold the file that the path leads to now."""
        try:
            self._held = self._get(str(self._path))[0]
        except OSError:
            self._held = None

    def same(self) -> bool:
        """Whether the path still leads to the file that is held: then connections opened meanwhile lead to it, too."""
        try:
            found = os.stat(self._path)  # noqa: PTH116
        except OSError:
            return self._held is None
        return self._held == (found.st_dev, found.st_ino)

    @property
    def database(self) -> int | None:
        """The descriptor of the file that is held."""
        return self._mine[self._held] if self._held is not None else None

    def log_index(self) -> bytes | None:
        """The header of the index of the write-ahead log now: another one after every commit; None where there is no index.

        Source: SQLite, "WAL-mode File Format", section 2.1.
        """
        try:
            return os.pread(self._get(f"{self._path}-shm")[1], _INDEX_HEADER, 0)
        except OSError:
            return None

    def close(self) -> None:
        """Let go; the own connections to the database have to be closed before. Twice is no error."""
        with self._lock:
            for key in self._mine:
                descriptors, sessions = self._open.pop(key)
                if sessions > 1:
                    self._open[key] = descriptors, sessions - 1
                    continue
                for descriptor in descriptors:
                    os.close(descriptor)
            self._mine.clear()
            self._held = None


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A table with row ids: its first page, its columns in order, the one that is the row id, and those that hold reals."""

    root: int
    columns: tuple[str, ...]
    row_id: str | None
    reals: frozenset[str]


class Readers:
    """Connections that are in the same read transaction, each lent to one thread at a time."""

    def __init__(self) -> None:
        self._all: list[compiled.Database] = []
        self._free: queue.SimpleQueue[compiled.Database] = queue.SimpleQueue()
        self._file: compiled.File | None = None

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

    def open_pages(self, descriptor: int | None) -> None:
        """Read plain tables from the file's pages, if there are readers and the file is such that they keep writers out."""
        if self._all and descriptor is not None:
            with suppress(OSError):
                self._file = compiled.File(descriptor)

    def pages(self, table: Stored, wanted: Sequence[str]) -> compiled.Pages | None:
        """Columns of a table as its pages have them, if they can be read from there."""
        if self._file is None or not self._file.readable:
            return None
        return compiled.Pages(
            file=self._file,
            root=table.root,
            declared=len(table.columns),
            places=tuple(-1 if name == table.row_id else table.columns.index(name) for name in wanted),
            reals=tuple(name in table.reals for name in wanted),
        )

    def close(self) -> None:
        """Give all of them back."""
        for database in self._all:
            database.close()
        self._all = []
        self._free = queue.SimpleQueue()
        self._file = None

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
        self,
        source: str | compiled.Pages,
        takes: Sequence[Take],
        limits: Limits,
        refuse: Callable[[int], None],
        ask: Callable[[int], None],
    ) -> Generator[Chunk, None, None]:
        """The rows of a query, or of pages of which a census was taken."""
        with self._lease() as database:
            for rows in database.read(source, _types(takes), _forms(takes), limits, refuse, _misfit, ask):
                yield Chunk(batch=rows.batch, values=rows.misfits)

    def census(self, sources: Sequence[str | compiled.Pages], columns: int) -> tuple[int, list[dict[str, int]]]:
        """The number of rows, and how many values of each class the columns have, over all of the sources."""

        def one(source: str | compiled.Pages) -> list[dict[str, int]]:
            with self._lease() as database:
                return database.census(source, columns)

        with ThreadPoolExecutor(len(self._all)) as pool:
            found = list(pool.map(one, sources))
        rows = sum(sum(part[0].values()) for part in found)
        return rows, [
            {
                name: count
                for name in compiled.CLASSES
                if name != "null" and (count := sum(part[column][name] for part in found))
            }
            for column in range(columns)
        ]

    def fingerprint(self, query: str, takes: Sequence[Take], most: int, ask: Callable[[int], None]) -> Fingerprint | None:
        """The fingerprint of a query's rows; None if a value's text can be made in Python only."""
        with self._lease() as database:
            return database.fingerprint(query, _types(takes), _forms(takes), most, ask)


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
