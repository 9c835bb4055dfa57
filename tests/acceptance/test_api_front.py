"""The short way to the most frequent answers gives what the long way gives."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from jivs import bootstrap
from jivs.api import app as application
from jivs.api.front import Front
from jivs.api.rates import Rates
from jivs.domain.access import Role
from jivs.domain.source import Secret
from jivs.operations import users
from jivs.ports.service import Service
from jivs.settings import Settings

API = "/api/v1/extractions"


class Counted(Front):
    """Counts what it answers itself."""

    answered = 0

    async def _answer(self, scope: Scope) -> Any:
        found = await super()._answer(scope)
        Counted.answered += found is not None
        return found


class Idle:
    """In its place: nothing is answered early."""

    def __init__(self, app: ASGIApp, service: Service, rates: Rates) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


Client = httpx.AsyncClient


@pytest.fixture(params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, state: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setenv("JIVS_FILE_ROOTS", str(state))
    if request.param == "postgresql":
        monkeypatch.setenv("DATABASE_URL", request.getfixturevalue("pg"))
        monkeypatch.setenv("JWT_SECRET", "s" * 40)
        monkeypatch.setenv("ENCRYPTION_KEY", "A" * 43 + "=")
    made = bootstrap.build_service(Settings())
    users.first_admin(made)
    return made


@pytest.fixture
def both(service: Service, monkeypatch: pytest.MonkeyPatch) -> tuple[Client, Client]:
    """The short way and the long way to one service, logged in as its admin."""
    clients = []
    admin = service.accounts().named("admin")
    assert admin is not None
    token = users._session(service, admin, "", int(service.clock.now().timestamp())).access_token
    for way in (Counted, Idle):
        monkeypatch.setattr(application, "Front", way)
        app = application.create(service, origins=[])
        headers = {"Authorization": f"Bearer {token}"}
        clients.append(Client(transport=httpx.ASGITransport(app), base_url="http://x", headers=headers))
    return clients[0], clients[1]


def same(short: httpx.Response, long: httpx.Response) -> bool:
    def plain(answer: httpx.Response) -> Any:
        body = answer.json() if answer.content else {}
        if answer.status_code >= 400:
            body.pop("traceId")
        return answer.status_code, body, list(body), answer.headers.get("etag"), answer.headers.get("content-type")

    assert plain(short) == plain(long)
    return True


async def drive(service: Service, short: Client, long: Client, folder: Path) -> None:
    source = {"name": "s", "url": f"sqlite:///{folder / 's.db'}"}
    assert (await short.post("/api/v1/sources", json=source)).status_code == 201
    for number in range(5):
        body = {
            "name": f'x{number} "ünï" \\ \u2028',
            "sourceId": 1,
            "tables": ["a.*", 'b"'],
            "where": "id > 1",
            "extractionQuery": "select 'é'",
        }
        assert (await short.post(API, json=body)).status_code == 201
    queries = ["", "?limit=2", "?limit=2&cursor=1", "?cursor=3", "?cursor=5", "?limit=200", "?limit=201", "?limit=0", "?limit=x", "?limit=2&limit=3",
               "?name=x1", "?cursor=99999999999999999999", "?limit=%32", "?sort=id", "?nonsense=1", "?limit=2&",
               "?page=0&size=2", "?page=0", "?size=3&page=0", "?page=1&size=2", "?size=2", "?page=0&limit=2", "?page=0&size=0",
               "?page=0&size=201", "?page=0&cursor=2"]  # fmt: skip
    paths = [API + query for query in queries]
    ids = ["1", "5", "6", "0", "01", "x", "1?x=1", "99999999999999999999", "1/", "-1", "１", "1%30"]
    statistics = ["1/statistics", "9/statistics", "1/statistics?x=1", "1/statistics/"]
    paths += [f"{API}/{last}" for last in ids + statistics]
    answered = Counted.answered

    async def compare() -> None:
        for path in paths:
            assert same(await short.get(path), await long.get(path)), path

    await compare()
    assert Counted.answered - answered == 12
    await short.post(f"{API}/1/start")
    await compare()
    assert (await short.get(f"{API}/1")).json()["status"] == "PENDING"
    tag = (await short.get(f"{API}/2")).headers["etag"]
    changed = {"name": "changed", "sourceId": 1}
    assert (await long.put(f"{API}/2", json=changed, headers={"If-Match": tag})).status_code == 200
    renamed = {"name": "renamed", "url": source["url"]}
    assert (await long.put("/api/v1/sources/1", json=renamed, headers={"If-Match": '"1"'})).status_code == 200
    assert (await long.delete(f"{API}/5")).status_code == 204
    assert (await long.post(API, json={"name": "new", "sourceId": 1})).status_code == 201
    await compare()
    shown = (await short.get(f"{API}/2")).json()
    assert (shown["name"], shown["sourceName"]) == ("changed", "renamed")


@pytest.mark.anyio
async def test_both_ways_answer_the_same(service: Service, both: tuple[Client, Client], state: Path) -> None:
    await drive(service, *both, state)


@pytest.mark.anyio
async def test_nobody_gets_more_by_the_short_way(service: Service, both: tuple[Client, Client]) -> None:
    short, long = both
    token = short.headers["Authorization"]
    for header, ending in itertools.product(
        ("", "Bearer", "Bearer x", "Basic eDp5", token + "x", token.lower(), "Bearer é"), ("", "/1")
    ):
        headers = {"Authorization": header.encode()}
        assert same(await short.get(API + ending, headers=headers), await long.get(API + ending, headers=headers))
    user = users.add(service, "admin", "eve", Secret("a few words that nobody guesses"), frozenset({Role.VIEWER}))
    mine = users._session(service, user, "", int(service.clock.now().timestamp())).access_token
    headers = {"Authorization": f"Bearer {mine}"}
    assert (await short.get(API, headers=headers)).status_code == 200
    users.change_roles(service, "admin", user.id, user.version, frozenset({Role.VIEWER}), active=False)
    assert (await short.get(API, headers=headers)).status_code == 401


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
