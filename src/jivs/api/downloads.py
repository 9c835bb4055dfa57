"""Files as answers: in bounded memory, in parts, and let go when the client leaves."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import BinaryIO
from urllib.parse import quote

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_BLOCK = 256 << 10
_PATIENCE = 60.0
"""Seconds for which a client may take nothing before it is cut off."""

_RANGE = re.compile(r"bytes=(?P<first>\d{0,18})-(?P<last>\d{0,18})")
_PLAIN = re.compile(r"[^A-Za-z0-9._-]")


class Stream(Response):
    """``count`` bytes of a reader that is opened when they are sent, and closed whatever happens."""

    def __init__(
        self, opened: Callable[[], BinaryIO], count: int, *, media_type: str, headers: dict[str, str], status: int = 200
    ) -> None:
        super().__init__(status_code=status, media_type=media_type, headers={**headers, "Content-Length": str(count)})
        self._opened = opened
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handle = await run_in_threadpool(self._opened)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._send(handle, Request(scope, receive), send)
        finally:
            await run_in_threadpool(handle.close)

    async def _send(self, handle: BinaryIO, request: Request, send: Send) -> None:
        left = self._count
        while left:
            block = await run_in_threadpool(handle.read, min(_BLOCK, left))
            if not block or await request.is_disconnected():
                break
            left -= len(block)
            with anyio.move_on_after(_PATIENCE) as patience:
                await send({"type": "http.response.body", "body": block, "more_body": True})
            if patience.cancelled_caught:
                break
        else:
            await send({"type": "http.response.body", "body": b""})


def unchanged(request: Request, tag: str) -> bool:
    """Whether the client has this version already: ``If-None-Match`` (RFC 9110, section 13.1.2)."""
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or tag in (one.strip().removeprefix("W/") for one in given.split(","))


def part(request: Request, tag: str, size: int) -> tuple[int, int] | None:
    """The first byte and the number of bytes that ``Range`` asks for; None for the whole (RFC 9110, section 14).

    Several ranges, and what cannot be understood, are the whole. Raises HTTPException 416 for a range outside.
    """
    match = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", "").lower())
    condition = request.headers.get("if-range")
    if match is None or (condition is not None and condition.strip() != tag) or match["first"] == match["last"] == "":
        return None
    if match["first"] == "":
        first, last = max(0, size - int(match["last"])), size - 1
    else:
        first, last = int(match["first"]), min(size - 1, int(match["last"] or size - 1))
        if match["last"] and int(match["last"]) < first:
            return None
    if first > last:
        headers = {"Content-Range": f"bytes */{size}"}
        raise HTTPException(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"The file has {size} bytes.", headers)
    return first, last - first + 1


def attachment(path: str) -> str:
    """``Content-Disposition`` for a file (RFC 6266): whatever its name is, it stays a name."""
    name = path.rpartition("/")[2]
    return f"attachment; filename=\"{_PLAIN.sub('_', name)}\"; filename*=UTF-8''{quote(name, safe='')}"
