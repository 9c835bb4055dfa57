"""``Idempotency-Key``: a request that is sent again is answered as the first one was, and nothing happens twice.

Source: IETF draft "The Idempotency-Key HTTP Header Field". A key belongs to a user and to one request; it is kept for a day.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from jivs.api.document import IDEMPOTENCY_KEY
from jivs.domain.access import Right, User
from jivs.errors import ConflictError, UnauthenticatedError, UsageError
from jivs.operations import users
from jivs.ports.accounts import CARRIED_OUT, KEY, Replayed
from jivs.ports.service import Service

_KEPT = ("content-type", "location", "etag")
_LONGEST = 255


class Idempotent(APIRoute):
    """A route whose POST may be sent again with the same key."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **given: Any) -> None:
        if "POST" in (given.get("methods") or ()):
            own = given.get("openapi_extra") or {}
            given["openapi_extra"] = {**own, "parameters": [*own.get("parameters", ()), IDEMPOTENCY_KEY]}
        super().__init__(path, endpoint, **given)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, behind the record of keys."""
        handle, right = super().get_route_handler(), _right(self.dependant)

        async def replaying(request: Request) -> Response:
            key = request.headers.get("idempotency-key")
            if request.method != "POST" or key is None:
                return await handle(request)
            if not 1 <= len(key) <= _LONGEST or not key.isascii() or not key.isprintable():
                raise UsageError(f"Idempotency-Key: send 1 to {_LONGEST} printable characters of ASCII, a UUID for example.")
            service: Service = request.app.state.service
            user, scope, digest = await _identity(service, request, key)
            if right is not None and not user.may(right):
                return await handle(request)  # which refuses it
            before = await run_in_threadpool(service.accounts().claim_key, scope, digest)
            if before is not None:
                request.app.state.rates.take(user.id)
                return _again(before, digest)
            answering = KEY.set(scope)
            try:
                response = await handle(request)
            except BaseException:
                await run_in_threadpool(service.accounts().drop_key, scope)
                raise
            finally:
                KEY.reset(answering)
            headers = {name: response.headers[name] for name in _KEPT if name in response.headers}
            done = Replayed(digest=digest, status=response.status_code, headers=headers, body=bytes(response.body).decode())
            await run_in_threadpool(service.accounts().finish_key, scope, done)
            return response

        return replaying


def _right(dependant: Dependant) -> Right | None:
    """The right that a route asks for."""
    for one in dependant.dependencies:
        right: Right | None = getattr(one.call, "right", None) or _right(one)
        if right is not None:
            return right
    return None


async def _identity(service: Service, request: Request, key: str) -> tuple[User, str, str]:
    """Whose key it is, and what it is for."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise UnauthenticatedError("Log in first.")
    user, _claims = await run_in_threadpool(users.authenticate, service, token)
    said = hashlib.sha256(f"{request.method} {request.url.path}?{request.url.query}\n".encode() + await request.body())
    digest = service.tokens.digest(said.hexdigest())  # keyed: the body may have a password that somebody could guess
    return user, hashlib.sha256(f"{user.id}\n{key}".encode()).hexdigest(), digest


def _again(before: Replayed, digest: str) -> Response:
    if before.digest != digest:
        raise UsageError(
            "This Idempotency-Key was sent with another request: take a new one for each. (If it was the same, JWT_SECRET "
            "has been changed since: look whether it was carried out.)"
        )
    if not before.status:
        raise ConflictError("The first request with this Idempotency-Key is still being answered: send it again later.")
    if before.status == CARRIED_OUT:
        raise ConflictError(
            f"The first request with this Idempotency-Key was carried out ({before.body}), and is not again. Its answer is "
            "on its way, or was lost with the process that gave it: look at what it made."
        )
    return Response(before.body, status_code=before.status, headers={**before.headers, "Idempotent-Replayed": "true"})
