"""What routes ask for: the service, who asks, and whether they may.

What only looks at the request is async: anything else is called in a thread, which costs more than it does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic.alias_generators import to_camel
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor

from jivs.domain.access import Right, User
from jivs.errors import ConflictError, ForbiddenError, PreconditionError, UnauthenticatedError, UsageError
from jivs.operations import users
from jivs.ports.secrets import Claims
from jivs.ports.service import Service

LARGEST = 2**63 - 1
"""The largest integer of the API."""

Id = Annotated[int, Field(ge=1, le=LARGEST, examples=[1], json_schema_extra={"format": "int64"})]
Count = Annotated[int, Field(ge=0, le=LARGEST, json_schema_extra={"format": "int64"})]

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _told_in_full(value: object) -> str:
    """Refuse numbers and what looks like one: they would be read as seconds or as milliseconds, by their size."""
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        return value
    raise ValueError("give a moment with its zone, such as 2026-11-30T02:30:00Z; in an address, + is written %2B")


Moment = Annotated[
    AwareDatetime,
    BeforeValidator(_told_in_full),
    Field(ge=datetime(1970, 1, 2, tzinfo=UTC), le=datetime(2200, 1, 1, tzinfo=UTC)),
]
"""A moment that users send (RFC 3339)."""

Estimate = Annotated[int, Field(ge=-1, le=LARGEST, json_schema_extra={"format": "int64"})]


class _IdConvertor(Convertor[str]):
    """What can be an id in a path: whatever else stands there is another path."""

    regex = "[1-9][0-9]{0,18}"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _IdConvertor())

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="accessToken",
    bearerFormat="JWT",
    description="The access token that POST /api/v1/auth/login gives, for 15 minutes. The names beside it are the rights "
    "that the caller's roles have to give.",
)


_LONGEST_ADDRESS = 100
"""Characters; a proxy may pass on what is none."""


class Model(BaseModel):
    """A body of the API: camelCase names, nothing that is not known."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", hide_input_in_errors=True)


class Given(Model):
    """A body that users send: no text in it has a NUL, which no text of PostgreSQL can have."""

    @model_validator(mode="before")
    @classmethod
    def _without_nul(cls, data: Any) -> Any:
        waiting = [("", data)]
        while waiting:
            name, one = waiting.pop()
            if isinstance(one, dict):
                waiting += [(str(key), found) for key, value in one.items() for found in (key, value)]
            elif isinstance(one, list):
                waiting += [(name, value) for value in one]
            elif isinstance(one, str) and "\0" in one:
                raise ValueError(f"{name}: a text has a NUL character")
        return data


def _text(value: SecretStr) -> SecretStr:
    """The value, which can be written as UTF-8: pydantic looks at that in texts that are no secrets only."""
    try:
        value.get_secret_value().encode()
    except UnicodeEncodeError:
        raise ValueError("it has half of a character (a lone surrogate)") from None
    return value


Hidden = Annotated[SecretStr, AfterValidator(_text)]
"""A text of a body that is shown nowhere."""


@dataclass(frozen=True)
class Caller:
    """Who asks."""

    user: User
    claims: Claims


async def service(request: Request) -> Service:
    """The service that this application was made for."""
    found: Service = request.app.state.service
    return found


ServiceDep = Annotated[Service, Depends(service)]


async def caller(
    request: Request, given: ServiceDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Caller:
    """Who asks; 401 if nobody knows."""
    if credentials is None:
        raise UnauthenticatedError(
            "Log in first: POST /api/v1/auth/login, and then send: Authorization: Bearer <accessToken>."
        )
    token = credentials.credentials
    found = users.at_hand(given, token)  # quicker than handing it to a thread
    if found is None:
        found = await run_in_threadpool(users.authenticate, given, token)
    who = Caller(*found)
    request.app.state.rates.take(who.user.id)
    request.scope["jivs.user"] = who.user.username  # for the log
    return who


CallerDep = Annotated[Caller, Depends(caller)]


def may(right: Right) -> Callable[[Caller], Awaitable[Caller]]:
    """A dependency: the caller, who has this right; 403 otherwise."""

    async def check(who: CallerDep) -> Caller:
        if not who.user.may(right):
            raise ForbiddenError(f"The roles of {who.user.username} do not give the right {right}.")
        return who

    check.right = right  # type: ignore[attr-defined] # a test walks all routes and reads it
    return check


ReaderDep = Annotated[Caller, Security(may(Right.READ), scopes=[Right.READ])]
QuerierDep = Annotated[Caller, Security(may(Right.QUERY), scopes=[Right.QUERY])]
WorkerDep = Annotated[Caller, Security(may(Right.WORK), scopes=[Right.WORK])]
AuditorDep = Annotated[Caller, Security(may(Right.AUDIT), scopes=[Right.AUDIT])]
AdminDep = Annotated[Caller, Security(may(Right.ADMINISTER), scopes=[Right.ADMINISTER])]


async def gone(request: Request) -> AsyncIterator[Event]:
    """Set when the client has left, or the service ends: work that only it waits for can end."""
    left = Event()
    waiting: set[Event] = request.app.state.waiting
    waiting.add(left)

    async def listen() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left.set()

    listening = asyncio.create_task(listen())
    try:
        yield left
    finally:
        listening.cancel()
        waiting.discard(left)


GoneDep = Annotated[Event, Depends(gone)]


async def address(request: Request) -> str:
    """Where a request comes from. Behind a proxy, uvicorn puts the client's address here if the proxy is trusted."""
    return request.client.host[:_LONGEST_ADDRESS] if request.client else "unknown"


AddressDep = Annotated[str, Depends(address)]


async def known_parameters(request: Request) -> None:
    """Refuse query parameters that the operation does not have, if it has any: whoever pages or filters by a name that is
    none would take the first page for all there is.
    """
    context = request.scope.get("fastapi", {}).get("effective_route_context") or request.scope["route"]
    known = _query_names(context.dependant)
    unknown = next((name for name in request.query_params if known and name not in known), None)
    if unknown is not None:
        raise UsageError(f"There is no query parameter {unknown!r} here, but {', '.join(sorted(known))}.")


def _query_names(dependant: Dependant) -> set[str]:
    own = {one.alias for one in dependant.query_params}
    return own.union(*(_query_names(one) for one in dependant.dependencies))


def etag(version: int) -> str:
    """The ETag of a version of something (RFC 9110, section 8.8.3)."""
    return f'"{version}"'


async def expected_version(
    if_match: Annotated[str | None, Header(alias="If-Match", description="The ETag that was read.")] = None,
) -> int:
    """The version that a change is for; 428 without one."""
    if if_match is None:
        raise PreconditionError("Send If-Match with the ETag that you read, so that no change of somebody else is lost.")
    text = if_match.strip().removeprefix("W/").strip('"')
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ConflictError("If-Match is no ETag of this object: read it again, and then change it.")
    return int(text)


VersionDep = Annotated[int, Depends(expected_version)]
