"""The trace id of a request, from its ``traceparent`` (W3C Trace Context) or a new one."""

from __future__ import annotations

import re
import secrets

from starlette.requests import HTTPConnection

_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def trace_id(request: HTTPConnection) -> str:
    """32 hex digits; the same for the whole request."""
    known: str | None = request.scope.get("jivs.trace")
    if known is None:
        match = _PARENT.fullmatch(request.headers.get("traceparent", ""))
        known = match[1] if match and set(match[1]) != {"0"} else secrets.token_hex(16)
        request.scope["jivs.trace"] = known
    return known
