"""PostgreSQL's COPY in binary, from the bytes of the connection to Arrow, compiled.

The query goes out through libpq, and libpq gets to see how it ended; the messages between are read here. On a plain socket
they are received directly, many rows a call. On an encrypted one libpq hands them over row by row.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from jivs.wire.native import Builder, Decoded, Limits, MalformedError, State, Stream, available, required

_BUFFER = 256 << 10
_MOST_RETURNED = 64 << 10
_LARGEST_MESSAGE = 1 << 20
PGconn = Any
"""psycopg's ``pq.PGconn``; this ring knows no driver."""


class LostError(Exception):
    """The server closed the connection in the middle of a message."""


class _Held(ctypes.Structure):
    _fields_ = (("row", ctypes.c_void_p), ("length", ctypes.c_int64))


@cache
def _libpq() -> ctypes.CDLL | None:
    """The libpq that psycopg loaded into this process: a connection belongs to that one and no other."""
    try:
        with Path("/proc/self/maps").open(encoding="utf-8", errors="replace") as maps:
            paths = {line.split(None, 5)[5].strip() for line in maps if "/libpq" in line}
    except OSError:
        return None
    return ctypes.CDLL(paths.pop()) if len(paths) == 1 else None


def usable() -> bool:
    """Whether the compiled part can work with the libpq of this process (psycopg has been imported)."""
    return available() and _libpq() is not None


def read(
    pgconn: PGconn,
    queries: Sequence[str],
    builders: Sequence[Builder],
    limits: Limits,
    check: Callable[[int], None],
    failed: Callable[[Any], None],
) -> Iterator[tuple[int, Decoded]]:
    """The rows of ``COPY ... TO STDOUT (FORMAT binary)`` in batches within the limits, each with the number of its query.

    Several queries go out together, so that they cost one round trip. ``check`` is called with the size of a row above
    ``limits.heavy`` before it is received whole; it may raise. ``failed`` gets every result of libpq that is an error, to
    raise from. Left early, the connection has to be dropped. Raises MalformedError, LostError, MemoryError.
    """
    libpq: Any = _libpq()
    pointer = ctypes.c_void_p(pgconn.pgconn_ptr)
    if libpq.PQsslInUse(pointer) or libpq.PQgssEncInUse(pointer):
        for number, (query, builder) in enumerate(zip(queries, builders, strict=True)):
            for rows in _pull(pgconn, libpq, pointer, query, builder, limits, check, failed):
                yield number, rows
        return
    pgconn.send_query("; ".join(queries).encode())
    waiting = select.poll()  # select() knows no descriptor above 1023
    waiting.register(pgconn.socket, select.POLLIN | select.POLLOUT)
    while pgconn.flush():
        waiting.poll()
        pgconn.consume_input()
    with closing(Stream(pgconn.socket, capacity=_BUFFER)) as stream:
        aside = bytearray()
        for number, builder in enumerate(builders):
            for state in _states(stream, builder, limits, check):
                if state in {State.FULL, State.END}:
                    if builder.rows:
                        yield number, builder.take()
                    if state is State.END:
                        break
                elif _message(stream, aside) in b"EZ":
                    break
            if state is not State.END:
                break
        while _last_type(aside) != b"Z":
            _message(stream, aside)
    _give_back(pgconn, bytes(aside), failed)


def _states(stream: Stream, builder: Builder, limits: Limits, check: Callable[[int], None]) -> Iterator[State]:
    """Decode on and on; gives the states that the caller has to act upon."""
    function = required().jivs_pgcopy_read
    heavy = limits.heavy
    while True:
        state = State(function(stream.pointer, builder.pointer, ctypes.byref(limits)))
        builder.check(state)
        if state is State.HEAVY:
            check(stream.need)
            limits.heavy = stream.need
            continue
        limits.heavy = heavy
        if state in {State.CLOSED, State.LATE}:
            raise LostError
        yield state


def _message(stream: Stream, aside: bytearray) -> int:
    """Move one whole message that is no row out of the stream; its type. What libpq has to see goes to ``aside``."""
    while len(head := stream.peek(5)) < 5:
        _receive(stream, 5)
    size = int.from_bytes(head[1:], "big") + 1
    if not 5 <= size <= _LARGEST_MESSAGE:
        raise MalformedError("a message of an impossible length")
    while len(message := stream.peek(size)) < size:
        _receive(stream, size)
    stream.skip(size)
    if head[0] not in b"HdcNA":  # notices and notifications are of no interest to libpq either
        aside += message
        if len(aside) > _MOST_RETURNED:
            raise MalformedError("an answer of an impossible length")
    return head[0]


def _receive(stream: Stream, need: int) -> None:
    if stream.fill(need) is not State.MORE:
        raise LostError


def _last_type(messages: bytes | bytearray) -> bytes:
    """The type of the last of some whole messages."""
    position, last = 0, b""
    while position < len(messages):
        last = bytes(messages[position : position + 1])
        position += int.from_bytes(messages[position + 1 : position + 5], "big") + 1
    return last


def _give_back(pgconn: PGconn, messages: bytes, failed: Callable[[Any], None]) -> None:
    """Let libpq read how the query ended, through a socket that stands in for its own for that moment."""
    mine, theirs = socket.socketpair()
    kept = os.dup(pgconn.socket)
    try:
        mine.sendall(messages)
        theirs.setblocking(False)
        os.dup2(theirs.fileno(), pgconn.socket, inheritable=False)
        _finish(pgconn, failed)
    finally:
        os.dup2(kept, pgconn.socket, inheritable=False)
        os.close(kept)
        mine.close()
        theirs.close()


def _finish(pgconn: PGconn, failed: Callable[[Any], None]) -> None:
    failure = None
    while (result := pgconn.get_result()) is not None:
        if result.status == 3:  # PGRES_COPY_OUT: libpq could not go on reading
            raise LostError
        if result.status == 7:  # PGRES_FATAL_ERROR
            failure = result
    if failure is not None:
        failed(failure)


def _pull(
    pgconn: PGconn,
    libpq: Any,
    pointer: ctypes.c_void_p,
    query: str,
    builder: Builder,
    limits: Limits,
    check: Callable[[int], None],
    failed: Callable[[Any], None],
) -> Iterator[Decoded]:
    """Row by row through libpq, which decrypts them."""
    result = pgconn.exec_(query.encode())
    if result.status != 3:  # PGRES_COPY_OUT
        failed(result)
    function = required().jivs_pgcopy_pull
    get = ctypes.cast(libpq.PQgetCopyData, ctypes.c_void_p)
    release = ctypes.cast(libpq.PQfreemem, ctypes.c_void_p)
    held, heavy = _Held(None, 0), limits.heavy
    try:
        while True:
            state = State(function(pointer, get, release, ctypes.byref(held), builder.pointer, ctypes.byref(limits)))
            builder.check(state)
            limits.heavy = heavy
            if state is State.HEAVY:
                check(held.length)
                limits.heavy = held.length
                continue
            if builder.rows and state is not State.CLOSED:
                yield builder.take()
            if state is not State.FULL:
                break
    finally:
        if held.row:
            libpq.PQfreemem(ctypes.c_void_p(held.row))
    _finish(pgconn, failed)
