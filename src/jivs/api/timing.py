"""Around every request: its trace, how long it took, and a line in the log."""

from __future__ import annotations

import logging
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jivs import logs
from jivs.api.traces import trace_of
from jivs.ports.metrics import Metrics
from jivs.ports.tracing import Tracing

UNKNOWN = "other"
"""The route of requests for which there is none, and the method of those that HTTP does not know."""

EXTRACTIONS = "/api/v1/extractions"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LOG = logging.getLogger("jivs.access")


def route(scope: Scope) -> str:
    """The template of the route that a request was given to: there are a few of them, however many paths are asked for."""
    early: str | None = scope.get("jivs.route")
    found = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    return early or getattr(found, "path_format", None) or UNKNOWN


class Timed:
    """Middleware in plain ASGI, the outermost one. A stream of events is timed until it begins; it and downloads are no
    requests of the extraction API to the metrics.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        logs.TRACE.set(trace_of(scope))
        status, seconds, streamed = 500, 0.0, False

        async def noting(message: Message) -> None:
            nonlocal status, seconds, streamed
            if message["type"] == "http.response.start":
                status = message["status"]
                for name, value in message["headers"]:
                    if name == b"content-type" and value.startswith(b"text/event-stream"):
                        streamed, seconds = True, perf_counter() - began
                    elif name == b"content-disposition":
                        streamed = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            template = route(scope)
            method = scope["method"] if scope["method"] in _METHODS else UNKNOWN
            seconds = seconds or perf_counter() - began
            extraction = not streamed and template.startswith(EXTRACTIONS)
            self._metrics.request(method, template, status, seconds, extraction=extraction)
            if _LOG.isEnabledFor(logging.INFO):
                _tell(scope, method, template, status, seconds)


def _tell(scope: Scope, method: str, template: str, status: int, seconds: float) -> None:
    """No path and no query string: they may hold what belongs into no log."""
    user = scope.get("jivs.user", "")
    about: dict[str, Any] = {
        "method": method,
        "route": template,
        "status": status,
        "ms": round(seconds * 1e3, 1),
        "user": user,
    }
    _LOG.info("%s %s %d %.1f ms %s", method, template, status, seconds * 1e3, user or "-", extra=about)


class Traced:
    """Middleware that gives each request a span; there only where spans go somewhere."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parent = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"), "")
        method = scope["method"] if scope["method"] in _METHODS else UNKNOWN
        with self._tracing.span(method, traceparent=parent, server=True, http__request__method=method) as span:
            scope["jivs.trace"] = span.trace_id

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.note(http__response__status_code=message["status"])
                    if message["status"] >= 500:
                        span.fail(str(message["status"]))
                await send(message)

            try:
                await self._app(scope, receive, noting)
            finally:
                template = route(scope)
                span.rename(f"{method} {template}")
                span.note(http__route=template)
