"""What ends with a session, and with a user's rights: every token, every stream, every answer that is kept."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from jivs.testing.servers import wait_for
from jivs.testing.service import ServiceProcess

PASSWORD = "seven small whales sing"
User = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path_factory.mktemp("service"), workers=False) as running:
        yield running


@pytest.fixture(scope="module")
def admin(service: ServiceProcess) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


@pytest.fixture
def user(service: ServiceProcess, admin: httpx.Client) -> Iterator[User]:
    """A new user who is logged in."""
    made: list[httpx.Client] = []

    def make(name: str, role: str = "DATA_ENGINEER") -> httpx.Client:
        answer = admin.post("/api/v1/users", json={"username": name, "password": PASSWORD, "roles": [role]})
        assert answer.status_code == 201, answer.text
        client = httpx.Client(base_url=service.url, timeout=30)
        made.append(client)
        login(client, name)
        return client

    yield make
    for one in made:
        one.close()


def login(client: httpx.Client, name: str) -> dict[str, str]:
    session: dict[str, str] = client.post("/api/v1/auth/login", json={"username": name, "password": PASSWORD}).json()
    client.headers["Authorization"] = f"Bearer {session['accessToken']}"
    return session


def me(client: httpx.Client, token: str = "") -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return client.get("/api/v1/auth/me", headers=headers).status_code


def remove(admin: httpx.Client, name: str) -> None:
    found = next(one for one in admin.get("/api/v1/users").json()["items"] if one["username"] == name)
    assert admin.delete(f"/api/v1/users/{found['id']}").status_code == 204


@pytest.mark.parametrize("sent", [True, False])
def test_a_logout_ends_every_token_of_its_session_and_no_other(user: User, sent: bool) -> None:
    name = f"leaver-{sent}"
    client = user(name)
    other = login(client, name)["accessToken"]
    session = login(client, name)
    first = session["accessToken"]
    renewed = client.post("/api/v1/auth/refresh", json={"refreshToken": session["refreshToken"]}).json()
    bearer = {"Authorization": f"Bearer {renewed['accessToken']}"}
    kept = {"refreshToken": renewed["refreshToken"]}
    ended = client.post("/api/v1/auth/logout", json=kept if sent else None, headers=bearer)
    assert ended.status_code == 204
    assert [me(client, token) for token in (first, renewed["accessToken"], other)] == [401, 401, 200]
    assert client.post("/api/v1/auth/refresh", json=kept).status_code == 401
    assert client.post("/api/v1/auth/logout", json=kept, headers={"Authorization": f"Bearer {other}"}).status_code == 422
    assert me(client, other) == 200


def test_a_refresh_token_that_was_used_twice_ends_the_access_tokens_too(user: User) -> None:
    client = user("stolen")
    session = login(client, "stolen")
    again = {"refreshToken": session["refreshToken"]}
    renewed = client.post("/api/v1/auth/refresh", json=again).json()
    assert me(client, renewed["accessToken"]) == 200
    assert client.post("/api/v1/auth/refresh", json=again).status_code == 401
    assert [me(client, token) for token in (session["accessToken"], renewed["accessToken"])] == [401, 401]


def test_a_listener_who_is_sent_away_hears_no_more(admin: httpx.Client, user: User) -> None:
    client, over = user("listener", "VIEWER"), threading.Event()

    def listen() -> None:
        with client.stream("GET", "/api/v1/events") as answer:
            for _ in answer.iter_lines():
                pass
        over.set()

    listening = threading.Thread(target=listen)
    listening.start()
    assert not over.wait(2.5), "as long as it may, it listens"
    remove(admin, "listener")
    assert over.wait(10)
    listening.join()


def test_an_answer_is_repeated_only_to_who_may_still_ask(admin: httpx.Client, user: User, service: ServiceProcess) -> None:
    client = user("demoted")
    admin.post("/api/v1/sources", json={"name": "s", "url": "postgresql://db.example/x"}).raise_for_status()
    body, key = {"name": "once", "sourceId": 1}, {"Idempotency-Key": "demoted-1"}
    assert client.post("/api/v1/extractions", json=body, headers=key).status_code == 201
    found = next(one for one in admin.get("/api/v1/users").json()["items"] if one["username"] == "demoted")
    read = admin.get(f"/api/v1/users/{found['id']}")
    change = {"roles": ["VIEWER"], "active": True}
    admin.put(read.request.url.path, json=change, headers={"If-Match": read.headers["ETag"]}).raise_for_status()
    login(client, "demoted")
    assert client.post("/api/v1/extractions", json=body, headers=key).status_code == 403


def test_of_many_guesses_at_once_five_are_checked(user: User) -> None:
    client = user("guessed")

    def guess(number: int) -> int:
        body = {"username": "guessed", "password": f"wrong wrong wrong {number}"}
        return client.post("/api/v1/auth/login", json=body).status_code

    with ThreadPoolExecutor(12) as pool:
        codes = list(pool.map(guess, range(30)))
    assert codes.count(401) <= 5
    assert set(codes) <= {401, 429}


def test_guesses_of_the_old_password_count_and_are_recorded(admin: httpx.Client, user: User) -> None:
    client = user("changing")
    own = client.get("/api/v1/auth/me").json()["id"]
    path = f"/api/v1/users/{own}/password"
    for number in range(5):
        body = {"oldPassword": f"wrong wrong wrong {number}", "newPassword": "nine green ducks sing"}
        assert client.put(path, json=body).status_code == 403
    right = {"oldPassword": PASSWORD, "newPassword": "nine green ducks sing"}
    assert client.put(path, json=right).status_code == 429
    trail = admin.get("/api/v1/audit", params={"actor": "changing", "limit": 50}).json()["items"]
    assert [one["action"] for one in trail].count("password.refused") == 5


def test_a_trail_of_nonsense_is_damage_and_harms_nothing_else(admin: httpx.Client, service: ServiceProcess) -> None:
    database = service.state / "jivs" / "catalog.db"
    with sqlite3.connect(database, timeout=10) as connection:
        [before] = connection.execute("select detail, actor, at, hash from audit where seq = 1")
        for column, nonsense in (("detail", "broken"), ("detail", "[]"), ("actor", b"\xff"), ("at", "x"), ("hash", b"\xff")):
            connection.execute(f"update audit set {column} = ? where seq = 1", (nonsense,))
            connection.commit()
            for answer in (admin.post("/api/v1/audit/verify"), admin.get("/api/v1/audit", params={"cursor": 3})):
                assert answer.status_code == 409, (column, nonsense, answer.text)
                assert "entry 1" in answer.json()["detail"]
            connection.execute("update audit set detail = ?, actor = ?, at = ?, hash = ? where seq = 1", before)
            connection.commit()
    assert admin.post("/api/v1/audit/verify").status_code == 200
    assert [admin.put("/api/v1/preferences", json={"a": number}).status_code < 500 for number in range(20)] == [True] * 20
    with sqlite3.connect(database, timeout=1, isolation_level=None) as connection:
        wait_for(lambda: connection.execute("pragma wal_checkpoint(truncate)").fetchone()[0] == 0, 5)


def test_nobody_is_sent_elsewhere(service: ServiceProcess) -> None:
    answer = httpx.get(f"{service.url}/api/v1/sources/", headers={"Host": "evil.example"})
    assert answer.status_code in {401, 404}
    assert "location" not in answer.headers
