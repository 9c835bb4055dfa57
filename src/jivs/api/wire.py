"""HTTP/1.1 with bounds: the parser keeps whatever a head brings, so the head is bounded before it; and what is answered at
once is sent at once.
"""

from __future__ import annotations

import asyncio
import json
import resource
import secrets
import sys
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 32 << 10
"""Bytes of a request's first line and headers."""

HEAD_SECONDS = 20.0
"""For the first head to begin, and for each to come whole."""

BODY_SECONDS = 60.0
"""For a body to come whole."""

_SPARE_DESCRIPTORS = 256
"""For everything that is no connection of a client: the catalog, files of answers, processes."""

_TOO_LARGE = (
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    f"The address and the headers have more than {LARGEST_HEAD} bytes.",
)
_TOO_SLOW = (HTTPStatus.REQUEST_TIMEOUT, "The request took too long to come.")
_TOO_MUCH_BEHIND = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"More than {LARGEST_HEAD} bytes are around the body.")


_MOST_HELD = 64 << 10
"""Bytes that wait for those behind them: beyond, the transport has to see them to say when its client does not follow."""


class Gathering:
    """A transport that sends what is written in one step of the loop by one call of the system.

    The head and the body of an answer come one after the other. Sent apart they cost twice, and wake the client twice.
    """

    __slots__ = ("_bytes", "_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held: list[bytes] = []
        self._bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send it in a moment, with what comes until then."""
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(data)
        self._bytes += len(data)
        if self._bytes > _MOST_HELD:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        held, self._held, self._bytes = self._held, [], 0
        if held and not self._transport.is_closing():
            self._transport.write(b"".join(held))

    def close(self) -> None:
        """Send what waits, and close."""
        self.flush()
        self._transport.close()


def _most_connections() -> int:
    """As many as this process may have open files, less what it needs itself."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(1, soft - _SPARE_DESCRIPTORS, soft // 2)


class Bounded(HttpToolsProtocol):
    """Refuses a head, or what stands between and behind the parts of a body, that is too large (431), and whoever takes too
    long (408). While an answer is under way nothing is written into it: then the connection is closed.
    """

    _received = 0
    _beside = 0
    _tail = b""
    _waiting: asyncio.TimerHandle | None = None
    _in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the one above it
        """A client has come."""
        super().connection_made(cast("asyncio.Transport", Gathering(transport, self.loop)))
        if len(self.connections) > _most_connections():
            transport.abort()
        self._wait(HEAD_SECONDS)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """It is whole."""
        self._in_head = False
        self._received = self._beside = 0
        self._wait(BODY_SECONDS)
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of the head; what comes behind a body in parts is nobody's here."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Something of the body has come."""
        self._beside = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The next bytes begin another one."""
        self._in_head = True
        self._wait(None)
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._in_head:
            end = (self._tail + data).find(b"\r\n\r\n")
            self._tail = data[-3:] if end < 0 else b""
            self._received += len(data) if end < 0 else end
            if self._received > LARGEST_HEAD:
                self._refuse(*_TOO_LARGE)
                return
            if end < 0 and self._waiting is None:
                self._wait(HEAD_SECONDS)
        else:
            self._beside += len(data)
        super().data_received(data)
        if not self._in_head and self._beside > LARGEST_HEAD:
            self._refuse(*_TOO_MUCH_BEHIND)

    def send_400_response(self, msg: str) -> None:
        """What came is no request."""
        if self._answering:
            self.transport.close()
        else:
            super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._wait(None)
        super().connection_lost(exc)

    @property
    def _answering(self) -> bool:
        """Whether what is written now would stand in an answer, or in place of one that another request waits for."""
        if self.cycle is None or self.cycle.response_complete:
            return False
        return self._in_head or self.cycle.response_started

    def _wait(self, seconds: float | None) -> None:
        """For what is to come, so long at most."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = None if seconds is None else self.loop.call_later(seconds, self._refuse, *_TOO_SLOW)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        if self.transport.is_closing():
            return
        if not self._answering:
            self.transport.write(_refusal(status, detail))
        self.transport.close()


def _refusal(status: HTTPStatus, detail: str) -> bytes:
    """A problem, as all errors are; of the request nothing is known yet."""
    trace = secrets.token_hex(16)
    kind = f"urn:jivs:problem:{status.name.lower().replace('_', '-')}"
    said = {"type": kind, "title": status.phrase, "status": status, "detail": detail, "instance": "", "traceId": trace}
    body = json.dumps(said)
    head = (
        f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: application/problem+json\r\nx-trace-id: {trace}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return f"{head}{body}".encode()
