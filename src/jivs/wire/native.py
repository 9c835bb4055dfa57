"""The compiled part, where it was built: gathering COPY rows without the interpreter's lock.

Without it everything works the same, slower; ``available()`` tells, and ``jivs --version`` says so.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

_LIBRARY = Path(__file__).with_name("_native.so")
_MORE, _END, _FAILED, _HELD = range(4)


class _Held(ctypes.Structure):
    _fields_ = (("row", ctypes.c_void_p), ("length", ctypes.c_int64))


@cache
def _library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(_LIBRARY))
    except OSError:
        return None


@cache
def _libpq() -> ctypes.CDLL | None:
    """The libpq that psycopg loaded into this process: a connection belongs to that one and no other."""
    try:
        with Path("/proc/self/maps").open(encoding="utf-8", errors="replace") as maps:
            paths = {line.split(None, 5)[5].strip() for line in maps if "/libpq" in line}
    except OSError:
        return None
    return ctypes.CDLL(paths.pop()) if len(paths) == 1 else None


def available() -> bool:
    """Whether the compiled part is there."""
    return _library() is not None


def can_gather() -> bool:
    """Whether it can be used with the libpq of this process (psycopg has been imported)."""
    return available() and _libpq() is not None


class CopyFailedError(Exception):
    """libpq reports an error on the stream; the connection's result holds it."""


def _led_buffer(lead: bytes, capacity: int) -> pa.Buffer:
    buffer = pa.allocate_buffer(len(lead) + capacity)
    ctypes.memmove(buffer.address, lead, len(lead))
    return buffer


def gather(
    connection: int, *, lead: bytes, most_bytes: int, most_rows: int, heavy: int, check: Callable[[int], None]
) -> Iterator[tuple[pa.Buffer, int]]:
    """Whole rows of a COPY in progress, as (bytes, number of rows) of up to ``most_bytes`` and ``most_rows``.

    ``connection`` is the address of the PGconn. ``check`` is called with the size of each row above ``heavy`` before it
    is copied; it may raise. ``lead`` stands in front of the rows of each buffer, which is overwritten by the next step.
    Raises CopyFailedError.
    """
    library, libpq = _library(), _libpq()
    assert library is not None
    assert libpq is not None
    function: Any = library.jivs_gather
    get = ctypes.cast(libpq.PQgetCopyData, ctypes.c_void_p)
    release = ctypes.cast(libpq.PQfreemem, ctypes.c_void_p)
    held, used, rows = _Held(None, 0), ctypes.c_int64(), ctypes.c_int64()
    capacity, bound = most_bytes, heavy
    buffer = _led_buffer(lead, capacity)
    try:
        while True:
            state = function(
                ctypes.c_void_p(connection),
                get,
                release,
                ctypes.c_void_p(buffer.address + len(lead)),
                ctypes.c_int64(capacity),
                ctypes.c_int64(most_rows),
                ctypes.c_int64(bound),
                ctypes.byref(held),
                ctypes.byref(used),
                ctypes.byref(rows),
            )
            bound = heavy
            if rows.value:
                yield buffer.slice(0, len(lead) + used.value), rows.value
            if state == _END:
                return
            if state == _FAILED:
                raise CopyFailedError
            if state == _HELD:
                if held.length > heavy:
                    check(held.length)
                    bound = held.length
                if held.length > capacity:
                    capacity = held.length
                    buffer = _led_buffer(lead, capacity)
    finally:
        if held.row:
            libpq.PQfreemem(ctypes.c_void_p(held.row))
