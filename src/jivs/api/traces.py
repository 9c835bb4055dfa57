"""The trace id of a request, from its ``traceparent`` (W3C Trace Context) or a new one."""

from __future__ import annotations

import random
import re

from starlette.requests import HTTPConnection
from starlette.types import Scope

_PARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def trace_of(scope: Scope) -> str:
    """32 hex digits; the same for the whole request."""
    known: str | None = scope.get("jivs.trace")
    if known is None:
        match = next((_PARENT.fullmatch(value) for name, value in scope["headers"] if name == b"traceparent"), None)
        known = match[1].decode() if match and set(match[1]) != {ord("0")} else _new()
        scope["jivs.trace"] = known
    return known


def _new() -> str:
    # It has to be unlike others, not secret, and asking the kernel for each costs more; each fork gets a new seed.
    return f"{random.getrandbits(128):032x}"


def trace_id(request: HTTPConnection) -> str:
    """The same, of a request."""
    return trace_of(request.scope)
