"""MySQL's text protocol, from the bytes of a result set to Arrow, compiled.

The driver logs in and sends the query; from then on, up to the end of the result, the connection's bytes are read here.
"""

from __future__ import annotations

import ctypes
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from jivs.wire.native import Builder, Decoded, Limits, MalformedError, State, Stream, required

_BUFFER = 256 << 10
_LARGEST_MESSAGE = 64 << 10


class LostError(Exception):
    """The server closed the connection, or sent nothing for too long (``late``)."""

    def __init__(self, *, late: bool) -> None:
        super().__init__()
        self.late = late


class ServerError(Exception):
    """The server ended the result with an error; ``packet`` is what it sent."""

    def __init__(self, packet: bytes) -> None:
        super().__init__()
        self.packet = packet


def read(
    connection: socket.socket, fields: int, builder: Builder, limits: Limits, timeout: float, check: Callable[[int], None]
) -> Iterator[Decoded]:
    """The rows of a result whose query was sent on this socket, in batches within the limits.

    ``fields`` is the number of columns on the wire; ``timeout`` the longest wait for the next bytes, in seconds. ``check``
    is called with the size of a row above ``limits.heavy`` as far as it is known; it may raise. Left early, the connection
    has to be dropped. Raises LostError, ServerError, MalformedError, MemoryError.
    """
    library: Any = required()
    encrypted = isinstance(connection, ssl.SSLSocket)
    descriptor = -1 if encrypted else connection.fileno()
    connection.settimeout(timeout)
    result = ctypes.c_void_p(library.jivs_mysql_new(ctypes.c_int32(fields)))
    if not result.value:
        raise MemoryError
    heavy = limits.heavy
    try:
        with closing(Stream(descriptor, capacity=_BUFFER, timeout=timeout)) as stream:
            while True:
                state = State(library.jivs_mysql_read(stream.pointer, result, builder.pointer, ctypes.byref(limits)))
                builder.check(state)
                if state is State.MORE:
                    try:
                        count = stream.add(connection.recv_into)
                    except OSError as error:
                        raise LostError(late=isinstance(error, TimeoutError)) from error
                    if count == 0:
                        raise LostError(late=False)
                elif state is State.HEAVY:
                    check(stream.need)
                    limits.heavy = stream.need
                elif state is State.ASIDE:
                    raise ServerError(_error(stream))
                elif state in {State.CLOSED, State.LATE}:
                    raise LostError(late=state is State.LATE)
                else:
                    limits.heavy = heavy
                    if builder.rows:
                        yield builder.take()
                    if state is State.END:
                        return
    finally:
        library.jivs_mysql_free(result)


def _error(stream: Stream) -> bytes:
    """The payload of the error packet that the stream begins with."""
    size = int.from_bytes(stream.peek(3), "little")
    if not 3 <= size <= _LARGEST_MESSAGE:
        raise MalformedError("an error message of an impossible length")
    return stream.peek(size + 4)[4:]
