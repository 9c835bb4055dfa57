"""SQLite's C interface: rows of a statement to Arrow, a census of classes, and the row hash, compiled.

The library is the one that Python's own module uses; connections are opened here, read-only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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


class _Cursor(ctypes.Structure):
    _fields_ = (
        ("statement", ctypes.c_void_p),
        ("standing", ctypes.c_int32),
        ("code", ctypes.c_int32),
        ("need", ctypes.c_int64),
    )


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
    def _prepared(self, query: str) -> Iterator[_Cursor]:
        statement = ctypes.c_void_p()
        text = query.encode()
        code = self._sqlite.sqlite3_prepare_v2(self._handle, text, len(text), ctypes.byref(statement), None)
        if code:
            self._raise()
        try:
            yield _Cursor(statement.value, 0, 0, 0)
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

    def census(self, query: str, columns: int) -> list[dict[str, int]]:
        """How many values of each class each column of the query has."""
        counts = (ctypes.c_int64 * max(1, 5 * columns))()
        with self._prepared(query) as cursor:
            count = ctypes.c_int32(columns)
            self._ended(State(self._compiled.jivs_sqlite_census(ctypes.byref(cursor), self._table, count, counts)))
        return [{name: counts[5 * column + number] for number, name in enumerate(CLASSES)} for column in range(columns)]

    def read(
        self,
        query: str,
        types: Sequence[ArchiveType],
        forms: Sequence[Form],
        limits: Limits,
        check: Callable[[int], None],
        misfit: Callable[[int, int, str, bytes], QuarantinedValue],
    ) -> Iterator[Decoded]:
        """The rows of a query in batches within the limits.

        ``check`` is called with the size of a row above ``limits.heavy``; it may raise. ``misfit`` makes the record of a
        value of another class than its column's, from row, column, class and bytes (of a number: 8, as the machine
        has them).
        """
        builder = Builder(types, forms)
        heavy = limits.heavy
        try:
            with self._prepared(query) as cursor:
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
        finally:
            builder.close()

    def fingerprint(self, query: str, types: Sequence[ArchiveType], forms: Sequence[Form]) -> Fingerprint | None:
        """The fingerprint of a query's rows, from the library's values, without Arrow in between.

        None if a value is of another class than its column's: only the caller can make its text.
        """
        rows, total = ctypes.c_int64(), ctypes.c_uint64()
        with self._prepared(query) as cursor:
            state = State(
                self._compiled.jivs_sqlite_hash(
                    ctypes.byref(cursor),
                    self._table,
                    ctypes.c_int32(len(types)),
                    ctypes.byref(specs(types, forms)),
                    ctypes.byref(rows),
                    ctypes.byref(total),
                )
            )
            self._ended(state)
        return None if state is State.STRANGE else Fingerprint.of(rows.value, total.value)
