"""SQLite's C interface: rows of a statement to Arrow, a census of classes, and the row hash, compiled.

The library is the one that Python's own module uses; connections are opened here, read-only. Plain tables of files in
rollback mode are read from their pages, while a connection's read lock keeps writers out.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jivs.domain.fingerprint import Fingerprint
from jivs.domain.quarantine import QuarantinedValue
from jivs.domain.schema import ArchiveType
from jivs.wire.native import Builder, Decoded, Form, Limits, State, available, required, specs

CLASSES = ("integer", "real", "text", "blob", "null")
_OPEN_READONLY, _OPEN_URI, _OPEN_NOMUTEX = 0x1, 0x40, 0x8000
_FUNCTIONS = (
    "sqlite3_step",
    "sqlite3_column_value",
    "sqlite3_value_type",
    "sqlite3_value_int64",
    "sqlite3_value_double",
    "sqlite3_value_text",
    "sqlite3_value_blob",
    "sqlite3_value_bytes",
)


class SqliteError(Exception):
    """The library's error, with its message."""


class StrangeError(SqliteError):
    """Pages that are not as the format says, or hold what only the library reads, like rows older than a column."""


class _Cursor(ctypes.Structure):
    _fields_ = (
        ("statement", ctypes.c_void_p),
        ("walk", ctypes.c_void_p),
        ("standing", ctypes.c_int32),
        ("need", ctypes.c_int64),
    )


class File:
    """The pages of a database. Source: SQLite, "Database File Format", section 1.3."""

    def __init__(self, descriptor: int) -> None:
        """To be looked at under the read lock of a connection. Raises OSError."""
        self.descriptor = descriptor
        head = os.pread(descriptor, 100, 0).ljust(100, b"\0")
        size = int.from_bytes(head[16:18], "big")
        self.page_size = 65536 if size == 1 else size
        self.reserved = head[20]
        self.pages = os.fstat(descriptor).st_size // max(1, self.page_size)
        rollback, utf8 = head[18:20] == b"\1\1", int.from_bytes(head[56:60], "big") == 1
        self.readable = head.startswith(b"SQLite format 3\0") and rollback and utf8


@dataclass(frozen=True, kw_only=True)
class Pages:
    """Rows of a table with row ids, from the file's pages.

    ``root``: its first page; ``declared``: how many columns it has; ``places``: which of them are wanted, -1 for the row id;
    ``reals``: whether whole numbers of a wanted column are reals that were stored short; ``low`` and ``high``: row ids, both
    included; ``largest``: bytes of a row.
    """

    file: File
    root: int
    declared: int
    places: tuple[int, ...]
    reals: tuple[bool, ...]
    low: int = -(2**63)
    high: int = 2**63 - 1
    largest: int = 2**31 - 1


@cache
def _library() -> ctypes.CDLL | None:
    """The SQLite that Python's own module is linked with."""
    import _sqlite3

    try:
        found = ctypes.CDLL(str(Path(_sqlite3.__file__)))
        for name in (*_FUNCTIONS, "sqlite3_open_v2", "sqlite3_prepare_v2", "sqlite3_finalize", "sqlite3_interrupt"):
            getattr(found, name)
    except (OSError, AttributeError):  # linked into Python itself, and hidden
        return None
    found.sqlite3_errmsg.restype = ctypes.c_char_p
    return found


def usable() -> bool:
    """Whether the compiled part can work with this Python's SQLite."""
    return available() and _library() is not None


class Database:
    """A connection; used by one thread at a time, but for ``interrupt``."""

    def __init__(self, uri: str, timeout: float) -> None:
        """Open ``file:...?mode=ro``. ``timeout``: seconds to wait for a lock. Raises SqliteError."""
        library: Any = _library()
        self._sqlite = library
        self._compiled = required()
        handle = ctypes.c_void_p()
        flags = _OPEN_READONLY | _OPEN_URI | _OPEN_NOMUTEX
        code = self._sqlite.sqlite3_open_v2(uri.encode(), ctypes.byref(handle), flags, None)
        self._handle: ctypes.c_void_p | None = handle
        if code:
            try:
                self._raise()
            finally:
                self.close()
        self._sqlite.sqlite3_busy_timeout(handle, int(timeout * 1000))
        self._table = (ctypes.c_void_p * len(_FUNCTIONS))(
            *(ctypes.cast(getattr(self._sqlite, name), ctypes.c_void_p) for name in _FUNCTIONS)
        )

    def _raise(self) -> None:
        message = self._sqlite.sqlite3_errmsg(self._handle) or b"no memory"
        raise SqliteError(message.decode(errors="replace"))

    def interrupt(self) -> None:
        """Make a call in progress end soon with an error."""
        if self._handle is not None:
            self._sqlite.sqlite3_interrupt(self._handle)

    def close(self) -> None:
        """Give the connection back."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._sqlite.sqlite3_close_v2(handle)

    @contextmanager
    def _rows(self, source: str | Pages) -> Iterator[_Cursor]:
        """A cursor before the rows of a query or of pages."""
        with self._prepared(source) if isinstance(source, str) else self._walk(source) as cursor:
            yield cursor

    @contextmanager
    def _walk(self, pages: Pages) -> Iterator[_Cursor]:
        file, count = pages.file, len(pages.places)
        tree = self._compiled.jivs_tree_new(
            ctypes.c_int(file.descriptor),
            ctypes.c_uint32(file.page_size),
            ctypes.c_uint32(file.reserved),
            ctypes.c_uint32(min(file.pages, 2**32 - 2)),
            ctypes.c_int32(pages.declared),
            ctypes.c_int32(count),
            (ctypes.c_int32 * max(1, count))(*pages.places),
            (ctypes.c_uint8 * max(1, count))(*pages.reals),
        )
        if not tree:
            raise MemoryError
        tree = ctypes.c_void_p(tree)
        try:
            low, high, largest = map(ctypes.c_int64, (pages.low, pages.high, pages.largest))
            self._ended(State(self._compiled.jivs_tree_seek(tree, ctypes.c_uint32(pages.root), low, high, largest)))
            yield _Cursor(None, tree, 0, 0)
        finally:
            self._compiled.jivs_tree_free(tree)

    @contextmanager
    def _prepared(self, query: str) -> Iterator[_Cursor]:
        statement = ctypes.c_void_p()
        text = query.encode()
        code = self._sqlite.sqlite3_prepare_v2(self._handle, text, len(text), ctypes.byref(statement), None)
        if code:
            self._raise()
        try:
            yield _Cursor(statement.value, None, 0, 0)
        finally:
            self._sqlite.sqlite3_finalize(statement)

    def execute(self, query: str) -> None:
        """Run a statement to its end; its rows are dropped."""
        with self._prepared(query) as cursor:
            self._ended(State(self._compiled.jivs_sqlite_census(ctypes.byref(cursor), self._table, ctypes.c_int32(0), None)))

    def _ended(self, state: State) -> None:
        if state is State.ASIDE:
            self._raise()
        if state is State.NO_MEMORY:
            raise MemoryError
        if state is State.STRANGE:
            raise StrangeError("database disk image is malformed, or cannot be read")

    def census(self, source: str | Pages, columns: int) -> list[dict[str, int]]:
        """How many values of each class each column has. Raises SqliteError; StrangeError where only the library reads."""
        counts = (ctypes.c_int64 * max(1, 5 * columns))()
        with self._rows(source) as cursor:
            count = ctypes.c_int32(columns)
            self._ended(State(self._compiled.jivs_sqlite_census(ctypes.byref(cursor), self._table, count, counts)))
        return [{name: counts[5 * column + number] for number, name in enumerate(CLASSES)} for column in range(columns)]

    def read(
        self,
        source: str | Pages,
        types: Sequence[ArchiveType],
        forms: Sequence[Form],
        limits: Limits,
        check: Callable[[int], None],
        misfit: Callable[[int, int, str, bytes], QuarantinedValue],
        ask: Callable[[int], None],
    ) -> Iterator[Decoded]:
        """The rows of a query, or of pages of which a census was taken, in batches within the limits.

        ``check`` is called with the size of a row above ``limits.heavy``; it may raise. ``misfit`` makes the record of a
        value of another class than its column's, from row, column, class and bytes (of a number: 8, as the machine
        has them). ``ask`` is called before each batch with the rows that it may have at most.
        """
        builder = Builder(types, forms)
        heavy = limits.heavy
        try:
            with self._rows(source) as cursor:
                ask(limits.rows)
                while True:
                    state = State(
                        self._compiled.jivs_sqlite_read(
                            ctypes.byref(cursor), self._table, builder.pointer, ctypes.byref(limits)
                        )
                    )
                    self._ended(state)
                    limits.heavy = heavy
                    if state is State.HEAVY:
                        check(cursor.need)
                        limits.heavy = cursor.need
                        continue
                    if builder.rows:
                        yield builder.take(lambda row, column, raw: misfit(row, column, CLASSES[raw[0] - 1], raw[1:]))
                    if state is State.END:
                        return
                    ask(limits.rows)
        finally:
            builder.close()

    def fingerprint(
        self, query: str, types: Sequence[ArchiveType], forms: Sequence[Form], most: int, ask: Callable[[int], None]
    ) -> Fingerprint | None:
        """The fingerprint of a query's rows, from the library's values, without Arrow in between; before each ``most`` of
        them ``ask`` is called with that.

        None if a value is of another class than its column's: only the caller can make its text.
        """
        count = total = 0
        state, wanted = State.FULL, specs(types, forms)
        rows, sums = ctypes.c_int64(), ctypes.c_uint64()
        with self._prepared(query) as cursor:
            while state is State.FULL:
                ask(most)
                state = State(
                    self._compiled.jivs_sqlite_hash(
                        ctypes.byref(cursor),
                        self._table,
                        ctypes.c_int32(len(types)),
                        ctypes.byref(wanted),
                        ctypes.c_int64(most),
                        ctypes.byref(rows),
                        ctypes.byref(sums),
                    )
                )
                if state is State.STRANGE:
                    return None
                self._ended(state)
                count, total = count + rows.value, total + sums.value
        return Fingerprint.of(count, total)
