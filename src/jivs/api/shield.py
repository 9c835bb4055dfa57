"""What stands before every route: limits on bodies and headers, and headers that keep browsers from harm."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jivs.api.traces import trace_of

LARGEST_BODY = 1 << 20
"""Bytes; no request of this API needs more."""

_TOO_LARGE = f"The body is too large: at most {LARGEST_BODY} bytes, with a Content-Length that is a number."
_HEADERS = [
    (name.encode(), value.encode())
    for name, value in {
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
        "cache-control": "no-store",
    }.items()
]
"""OWASP, REST Security Cheat Sheet and HTTP Headers Cheat Sheet. A route that sets one of them itself is left alone."""


class Shield:
    """Middleware in plain ASGI: it sees every byte of a body before the application does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = trace_of(scope)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                added = [*_HEADERS, (b"x-trace-id", trace.encode())]
                message["headers"] = [*message["headers"], *(one for one in added if one[0] not in present)]
            await send(message)

        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            await _refuse(scope, answer, trace)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > LARGEST_BODY:
                raise HTTPException(413, _TOO_LARGE)
            return message

        await self._app(scope, limited, answer)


async def _refuse(scope: Scope, send: Any, trace: str) -> None:
    body = json.dumps(
        {
            "type": "urn:jivs:problem:too-large",
            "title": HTTPStatus.REQUEST_ENTITY_TOO_LARGE.phrase,
            "status": 413,
            "detail": _TOO_LARGE,
            "instance": scope["path"],
            "traceId": trace,
        }
    ).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
