"""The requests that come most often, answered before the framework sees them: lists of extractions by cursor, and one.

What is shown of an extraction is cached as bytes under its version and its source's; each answer asks the catalog which
versions those are, and for the newest run, so that none is ever old. Whatever is not plain (another parameter, a token
that has to be verified, an error) goes on to the framework, which answers the same more slowly: a test holds the two
against each other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from jivs.api.deps import etag
from jivs.api.extractions import extraction_out
from jivs.api.rates import Rates
from jivs.domain.access import Right
from jivs.domain.extraction import Extraction
from jivs.errors import JivsError
from jivs.operations import users
from jivs.ports.cache import CacheName, Miss
from jivs.ports.extractions import Head
from jivs.ports.service import Service

_LIST = "/api/v1/extractions"
_ONE = re.compile(r"/api/v1/extractions/([1-9][0-9]{0,17})")
_QUERY = re.compile(rb"(limit|cursor)=([0-9]{1,18})")
_LONGEST_LIST = 200
Answer = tuple[bytes, str]
"""A body and its ETag, if it has one."""


class Front:
    """Middleware in plain ASGI."""

    def __init__(self, app: ASGIApp, service: Service, rates: Rates) -> None:
        self._app = app
        self._service = service
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"].startswith(_LIST):
            found = await self._answer(scope)
            if found is not None:
                await _send(send, *found)
                return
        await self._app(scope, receive, send)

    async def _answer(self, scope: Scope) -> Answer | None:
        path, query = scope["path"], scope["query_string"]
        one = _ONE.fullmatch(path)
        given = _parameters(query) if path == _LIST else {}
        if (one is None and path != _LIST) or given is None or (one is not None and query):
            return None
        token = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        try:
            if self._service.embedded:
                return self._look(scope, token, one, given)
            return await run_in_threadpool(self._look, scope, token, one, given)
        except JivsError:
            return None  # the framework says it

    def _look(self, scope: Scope, token: bytes, one: re.Match[str] | None, given: dict[bytes, int]) -> Answer | None:
        if not token.startswith(b"Bearer ") or not token.isascii():
            return None
        user, _ = users.authenticate(self._service, token[7:].decode())
        if not user.may(Right.READ):
            return None
        scope["jivs.user"], scope["jivs.route"] = user.username, _LIST if one is None else f"{_LIST}/{{extraction_id}}"
        found = self._one(int(one[1])) if one is not None else self._list(given.get(b"cursor", 0), given.get(b"limit", 50))
        if found is not None:  # or the framework counts it
            self._rates.take(user.id)
        return found

    def _one(self, extraction_id: int) -> Answer | None:
        head = self._service.extractions().head(extraction_id)
        known = self._known([head]) if head is not None else None
        return (_shown(head, known[0]), etag(head.version)) if head is not None and known is not None else None

    def _list(self, cursor: int, limit: int) -> Answer | None:
        heads = self._service.extractions().heads(cursor, limit + 1)
        shown, more = heads[:limit], len(heads) > limit
        known = self._known(shown)
        if known is None:
            return None
        items = b",".join(_shown(head, rest) for head, rest in zip(shown, known, strict=True))
        following = str(shown[-1].id).encode() if more else b"null"
        nothing = b',"page":null,"size":null,"total":null,"totalPages":null}'
        return b'{"items":[' + items + b'],"nextCursor":' + following + nothing, ""

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


def _parameters(query: bytes) -> dict[bytes, int] | None:
    """``limit`` and ``cursor``; None if there is anything else in the query."""
    given: dict[bytes, int] = {}
    for part in query.split(b"&") if query else ():
        match = _QUERY.fullmatch(part)
        if match is None or match[1] in given:
            return None
        given[match[1]] = int(match[2])
    return given if 1 <= given.get(b"limit", 1) <= _LONGEST_LIST else None


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
