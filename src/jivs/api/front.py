"""The requests that come most often, answered before the framework sees them: lists of extractions by cursor, the first page
of them, one, and its statistics.

What is shown of an extraction is cached as bytes under its version and its source's; each answer asks the catalog which
versions those are, and for the newest run, so that none is ever old. Whatever is not plain (another parameter, a token
that has to be verified, an error) goes on to the framework, which answers the same more slowly: a test holds the two
against each other. Where the catalog is on another machine, the requests that wait for it are answered together.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from jivs.api.deps import etag
from jivs.api.extractions import extraction_out, statistics_body
from jivs.api.rates import Rates
from jivs.domain.access import Right, User
from jivs.domain.extraction import Extraction
from jivs.errors import JivsError
from jivs.operations import users
from jivs.ports.cache import CacheName, Miss
from jivs.ports.extractions import Head
from jivs.ports.service import Service

_LIST = "/api/v1/extractions"
_ONE = re.compile(r"/api/v1/extractions/([1-9][0-9]{0,17})(/statistics)?")
_QUERY = re.compile(rb"(limit|cursor|page|size)=([0-9]{1,18})")
_LONGEST_LIST = 200
_MOST_AT_ONCE = 64
Answer = tuple[bytes, str]
"""A body and its ETag, if it has one."""


class _What(StrEnum):
    """What is asked for, as the log and the metrics name it."""

    LIST = _LIST
    PAGE = f"{_LIST}?page=0"
    ONE = f"{_LIST}/{{extraction_id}}"
    STATISTICS = f"{_LIST}/{{extraction_id}}/statistics"

    @property
    def route(self) -> str:
        """The route that it is of."""
        return self.partition("?")[0]


@dataclass(frozen=True, eq=False)
class _Asked:
    """The extractions above an id: all of a list or page, or what is with the next id."""

    scope: Scope
    token: str
    what: _What
    after: int
    limit: int


class Front:
    """Middleware in plain ASGI."""

    def __init__(self, app: ASGIApp, service: Service, rates: Rates) -> None:
        self._app = app
        self._service = service
        self._rates = rates
        self._waiting: list[tuple[_Asked, asyncio.Future[Answer | None]]] = []
        self._looking: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"].startswith(_LIST):
            found = await self._answer(scope)
            if found is not None:
                await _send(send, *found)
                return
        await self._app(scope, receive, send)

    async def _answer(self, scope: Scope) -> Answer | None:
        """None: the framework says it."""
        asked = _asked(scope)
        if asked is None:
            return None
        if self._service.embedded:
            return self._look([asked])[0]
        answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_for_all())
        return await answer

    async def _look_for_all(self) -> None:
        """All that wait at once, and then those that came meanwhile: a thread for each would take several times as long."""
        while self._waiting:
            taken, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
            found: Sequence[Answer | Exception | None]
            try:
                found = await run_in_threadpool(self._look, [asked for asked, _ in taken])
            except Exception as error:  # whoever waits raises it
                found = [error] * len(taken)
            for (_, answer), one in zip(taken, found, strict=True):
                if answer.done():  # its client has left
                    continue
                if isinstance(one, Exception):
                    answer.set_exception(one)
                else:
                    answer.set_result(one)
        self._looking = None

    def _look(self, everybody: Sequence[_Asked]) -> list[Answer | None]:
        """What is answered to each."""
        answers: list[Answer | None] = [None] * len(everybody)
        allowed: list[tuple[int, _Asked, User]] = []
        for number, asked in enumerate(everybody):
            with suppress(JivsError):
                user, _ = users.authenticate(self._service, asked.token)
                if user.may(Right.READ):
                    allowed.append((number, asked, user))
        with suppress(JivsError):
            kept = self._service.extractions()
            found = kept.heads([(asked.after, asked.limit + 1) for _, asked, _ in allowed])
            total = kept.count() if any(asked.what is _What.PAGE for _, asked, _ in allowed) else 0
            for (number, asked, user), heads in zip(allowed, found, strict=True):
                body = self._body(asked, heads, total)
                if body is None:
                    continue
                with suppress(JivsError):
                    self._rates.take(user.id)  # what is not answered here, the framework counts
                    asked.scope["jivs.user"], asked.scope["jivs.route"] = user.username, asked.what.route
                    answers[number] = body
        return answers

    def _body(self, asked: _Asked, heads: list[Head], total: int) -> Answer | None:
        shown, more = heads[: asked.limit], len(heads) > asked.limit
        single = asked.what in {_What.ONE, _What.STATISTICS}
        if single and (not shown or shown[0].id != asked.after + 1):
            return None
        if asked.what is _What.STATISTICS:
            return statistics_body(self._service, shown[0].id), ""
        known = self._known(shown)
        if known is None:
            return None
        items = b",".join(_shown(head, rest) for head, rest in zip(shown, known, strict=True))
        if asked.what is _What.ONE:
            return items, etag(shown[0].version)
        if asked.what is _What.LIST:
            following = str(shown[-1].id).encode() if more else b"null"
            rest = b'%b,"page":null,"size":null,"total":null,"totalPages":null' % following
        else:
            rest = b'null,"page":0,"size":%d,"total":%d,"totalPages":%d' % (asked.limit, total, -(-total // asked.limit))
        return b'{"items":[%b],"nextCursor":%b}' % (items, rest), ""

    def _known(self, heads: Sequence[Head]) -> list[bytes] | None:
        """What is shown of extractions whose ids follow each other; None if one was changed in this moment."""
        cache = self._service.cache
        found = [cache.get(CacheName.EXTRACTION_CONFIGS, _key(head)) for head in heads]
        if not any(isinstance(one, Miss) for one in found):
            return [one for one in found if isinstance(one, bytes)]
        page = self._service.extractions().page(after=heads[0].id - 1, limit=len(heads))
        loaded = {
            _key(Head(one.id, one.version, one.source_version, one.updated_at.timestamp(), "", "")): _without_run(one)
            for one in page
        }
        for one in found:
            if isinstance(one, Miss) and one.key in loaded:
                cache.put(one, loaded[one.key])
        values = [loaded.get(one.key) if isinstance(one, Miss) else one for one in found]
        return [value for value in values if value is not None] if None not in values else None


def _key(head: Head) -> str:
    """Names what is shown: whatever changes it, changes the key."""
    return f"{head.id}.{head.version}.{head.source_version}.{head.changed_at!r}"


def _asked(scope: Scope) -> _Asked | None:
    """None if it is not plain."""
    path, query = scope["path"], scope["query_string"]
    token = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    if not token.startswith(b"Bearer ") or not token.isascii():
        return None
    text = token[7:].decode()
    if path == _LIST:
        given = _parameters(query)
        if given is None:
            return None
        if "page" in given:
            return _Asked(scope, text, _What.PAGE, after=0, limit=given.get("size", 20))
        return _Asked(scope, text, _What.LIST, after=given.get("cursor", 0), limit=given.get("limit", 50))
    one = _ONE.fullmatch(path)
    if one is None or query:
        return None
    return _Asked(scope, text, _What.STATISTICS if one[2] else _What.ONE, after=int(one[1]) - 1, limit=1)


def _parameters(query: bytes) -> dict[str, int] | None:
    """``limit`` and ``cursor``, or the first ``page`` and its ``size``; None if there is anything else in the query."""
    given: dict[str, int] = {}
    for part in query.split(b"&") if query else ():
        match = _QUERY.fullmatch(part)
        if match is None or (name := match[1].decode()) in given:
            return None
        given[name] = int(match[2])
    plain = given.keys() <= {"limit", "cursor"} or (given.keys() <= {"page", "size"} and given.get("page") == 0)
    sizes = given.get("limit", 1), given.get("size", 1)
    return given if plain and all(1 <= size <= _LONGEST_LIST for size in sizes) else None


def _without_run(one: Extraction) -> bytes:
    """The body of an extraction behind its first two fields, which its newest run decides."""
    text = extraction_out(one).model_dump_json(by_alias=True, exclude={"status", "last_run_id"})
    return text.encode()[1:]


def _shown(head: Head, rest: bytes) -> bytes:
    return b'{"status":"%b","lastRunId":"%b",%b' % ((head.last_state or "NEW").encode(), head.last_run.encode(), rest)


async def _send(send: Send, body: bytes, tag: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if tag:
        headers.append((b"etag", tag.encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
