"""HTTP/1.1 with bounds: the parser keeps whatever a head brings, so the head is bounded before it; and what is answered at
once is sent at once.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 32 << 10
"""Bytes of a request's first line and headers."""

HEAD_SECONDS = 20.0
"""For a head to come whole."""

_TOO_LARGE = (
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    f"The address and the headers have more than {LARGEST_HEAD} bytes.",
)
_TOO_SLOW = (HTTPStatus.REQUEST_TIMEOUT, f"The address and the headers took more than {HEAD_SECONDS:.0f} seconds to come.")


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


class Bounded(HttpToolsProtocol):
    """Refuses a head that is too large (431) or takes too long (408)."""

    _received = 0
    _tail = b""
    _waiting: asyncio.TimerHandle | None = None
    _in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the one above it
        """A client has come."""
        super().connection_made(cast("asyncio.Transport", Gathering(transport, self.loop)))

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """It is whole."""
        self._in_head = False
        self._received = 0
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next bytes begin another one."""
        self._in_head = True
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
                self._waiting = self.loop.call_later(HEAD_SECONDS, self._refuse, *_TOO_SLOW)
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        if self._waiting is not None:
            self._waiting.cancel()
        super().connection_lost(exc)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        if not self.transport.is_closing():
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
