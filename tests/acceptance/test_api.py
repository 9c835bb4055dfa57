"""The REST API as a client sees it: a real server process, real HTTP."""

from __future__ import annotations

import base64
import json
import re
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from jivs import bootstrap
from jivs.api.app import create
from jivs.domain.access import RIGHTS, Right, Role
from jivs.settings import Settings
from jivs.testing.servers import wait_for
from jivs.testing.service import ServiceProcess

PASSWORD = "seven brown foxes dig"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path_factory.mktemp("service"), workers=False) as running:
        yield running


@pytest.fixture
def anybody(service: ServiceProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url) as client:
        yield client


def login(client: httpx.Client, username: str, password: str) -> dict[str, str]:
    answer = client.post("/api/v1/auth/login", json={"username": username, "password": password})
    assert answer.status_code == 200, answer.text
    return answer.json()


Client = Callable[[Role], httpx.Client]


@pytest.fixture(scope="module")
def client(service: ServiceProcess) -> Iterator[Client]:
    """A logged-in client with a role."""
    made: dict[Role, httpx.Client] = {}
    admin = httpx.Client(base_url=service.url)
    admin.headers["Authorization"] = f"Bearer {login(admin, 'admin', service.password)['accessToken']}"
    made[Role.ADMIN] = admin

    def of(role: Role) -> httpx.Client:
        if role not in made:
            name = role.lower()
            answer = admin.post("/api/v1/users", json={"username": name, "password": PASSWORD, "roles": [role]})
            assert answer.status_code == 201, answer.text
            made[role] = httpx.Client(base_url=service.url)
            made[role].headers["Authorization"] = f"Bearer {login(made[role], name, PASSWORD)['accessToken']}"
        return made[role]

    yield of
    for one in made.values():
        one.close()


def test_the_first_password_is_printed_once(service: ServiceProcess, tmp_path: Path) -> None:
    with ServiceProcess(tmp_path, workers=False) as first:
        assert first.password
    assert first.process.returncode == 0
    with ServiceProcess(tmp_path, workers=False) as second:
        assert second.password == ""
        with httpx.Client(base_url=second.url) as client:
            assert login(client, "ADMIN", first.password)["roles"] == ["ADMIN"]
    assert (tmp_path / "jivs" / "keys.json").stat().st_mode & 0o077 == 0
    kept = b"".join(
        path.read_bytes() for path in (tmp_path / "jivs").rglob("*") if path.is_file() and path.name != "keys.json"
    )
    assert first.password.encode() not in kept


def test_health(anybody: httpx.Client) -> None:
    parts = {name: {"status": "UP"} for name in ("db", "diskSpace", "archives")}
    assert anybody.get("/actuator/health").json() == {"status": "UP", "components": parts}
    assert anybody.get("/actuator/health/liveness").json() == {"status": "UP"}
    assert anybody.get("/actuator/health/readiness").json() == {"status": "UP"}
    assert anybody.get("/actuator/info").json()["app"]["name"] == "jivs"


def test_a_session_from_login_to_logout(anybody: httpx.Client, service: ServiceProcess, client: Client) -> None:
    client(Role.VIEWER)
    session = login(anybody, "viewer", PASSWORD)
    assert session["tokenType"] == "Bearer"
    assert session["expiresIn"] == 900
    bearer = {"Authorization": f"Bearer {session['accessToken']}"}
    assert anybody.get("/api/v1/auth/me", headers=bearer).json()["roles"] == ["VIEWER"]
    renewed = anybody.post("/api/v1/auth/refresh", json={"refreshToken": session["refreshToken"]}).json()
    bearer = {"Authorization": f"Bearer {renewed['accessToken']}"}
    body = {"refreshToken": renewed["refreshToken"]}
    assert anybody.post("/api/v1/auth/logout", headers=bearer, json=body).status_code == 204
    assert anybody.get("/api/v1/auth/me", headers=bearer).status_code == 401
    assert anybody.post("/api/v1/auth/refresh", json=body).status_code == 401


def test_a_refresh_token_in_two_hands_ends_the_session(anybody: httpx.Client, client: Client) -> None:
    client(Role.VIEWER)
    session = login(anybody, "viewer", PASSWORD)
    body = {"refreshToken": session["refreshToken"]}
    renewed = anybody.post("/api/v1/auth/refresh", json=body).json()
    assert anybody.post("/api/v1/auth/refresh", json=body).status_code == 401
    assert anybody.post("/api/v1/auth/refresh", json={"refreshToken": renewed["refreshToken"]}).status_code == 401
    deeds = client(Role.ADMIN).get("/api/v1/audit", params={"actor": "viewer"}).json()["items"]
    assert deeds[0]["action"] == "token.reused"


def forged(token: str, **changed: object) -> str:
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    return f"{head}.{base64.urlsafe_b64encode(json.dumps({**claims, **changed}).encode()).decode().rstrip('=')}.{signature}"


def test_forged_and_broken_tokens_are_nobody(anybody: httpx.Client, client: Client) -> None:
    client(Role.VIEWER)
    token = login(anybody, "viewer", PASSWORD)["accessToken"]
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    bad = [
        "x", "a.b.c", token[:-2], token + "A", forged(token, sub="1"), forged(token, exp=9**12),
        f"{none}.{token.split('.')[1]}.", "A" * 5000, token.replace(".", ".."),
    ]  # fmt: skip
    for one in bad:
        raw = f"Bearer {one}".encode()
        answer = anybody.get("/api/v1/auth/me", headers={"Authorization": raw})
        assert answer.status_code in {400, 401, 431}, one
    assert anybody.get("/api/v1/auth/me", headers={"Authorization": f"Basic {token}"}).status_code == 401
    assert anybody.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_logins_are_throttled_whoever_is_right(anybody: httpx.Client, client: Client) -> None:
    admin = client(Role.ADMIN)
    assert (
        admin.post("/api/v1/users", json={"username": "throttled", "password": PASSWORD, "roles": ["VIEWER"]}).status_code
        == 201
    )
    wrong = {"username": "Throttled", "password": "not this one, sorry"}
    codes = [anybody.post("/api/v1/auth/login", json=wrong).status_code for _ in range(5)]
    assert codes == [401] * 5
    answer = anybody.post("/api/v1/auth/login", json={"username": "throttled", "password": PASSWORD})
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0


def test_an_address_that_guesses_is_closed_and_what_expired_is_swept_at_a_start(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path) as first, httpx.Client(base_url=first.url) as client:
        guesses = [{"username": f"guess{number}", "password": "x"} for number in range(50)]
        assert {client.post("/api/v1/auth/login", json=guess).status_code for guess in guesses} == {401}
        right = {"username": "admin", "password": first.password}
        assert client.post("/api/v1/auth/login", json=right).status_code == 429
    with sqlite3.connect(tmp_path / "jivs" / "catalog.db") as connection:
        connection.execute("insert into revoked_tokens values ('old', 1.0), ('new', 99999999999.0)")
    with ServiceProcess(tmp_path), sqlite3.connect(tmp_path / "jivs" / "catalog.db") as connection:
        wait_for(lambda: connection.execute("select token_id from revoked_tokens").fetchall() == [("new",)], 20)


def test_a_flood_of_logins_leaves_others_alone(tmp_path: Path) -> None:
    def attempt(number: int) -> int:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            return client.post("/api/v1/auth/login", json={"username": f"flood{number}", "password": "x"}).status_code

    with ServiceProcess(tmp_path, workers=False) as service, httpx.Client(base_url=service.url, timeout=5) as anybody:
        with ThreadPoolExecutor(60) as pool:
            attempts = [pool.submit(attempt, number) for number in range(120)]
            while not all(one.done() for one in attempts):
                assert anybody.get("/actuator/health").status_code == 200
        codes = {one.result() for one in attempts}
    assert 429 in codes
    assert codes <= {401, 429}


def test_a_new_password_ends_all_sessions(anybody: httpx.Client, client: Client) -> None:
    admin = client(Role.ADMIN)
    user = admin.post("/api/v1/users", json={"username": "renewed", "password": PASSWORD, "roles": ["VIEWER"]}).json()
    session = login(anybody, "renewed", PASSWORD)
    bearer = {"Authorization": f"Bearer {session['accessToken']}"}
    path, new = f"/api/v1/users/{user['id']}/password", "nine green ducks sing"
    for body, status in (
        ({"oldPassword": "wrong wrong wrong", "newPassword": new}, 403),
        ({"oldPassword": PASSWORD, "newPassword": "short"}, 422),
        ({"oldPassword": PASSWORD, "newPassword": "passwordpassword1"}, 422),
        ({"oldPassword": PASSWORD, "newPassword": "renewedrenewed12"}, 422),
        ({"oldPassword": PASSWORD, "newPassword": "1234567890123456"}, 422),
        ({"oldPassword": PASSWORD, "newPassword": new}, 204),
    ):
        answer = anybody.put(path, headers=bearer, json=body)
        assert answer.status_code == status, (body, answer.text)
        assert new not in answer.text
    assert anybody.get("/api/v1/auth/me", headers=bearer).status_code == 401
    assert anybody.post("/api/v1/auth/refresh", json={"refreshToken": session["refreshToken"]}).status_code == 401
    login(anybody, "renewed", new)
    viewer = client(Role.VIEWER)
    assert viewer.put(path, json={"newPassword": PASSWORD}).status_code == 403


def test_users_are_changed_with_what_was_read(client: Client) -> None:
    admin = client(Role.ADMIN)
    made = admin.post("/api/v1/users", json={"username": "changed", "password": PASSWORD, "roles": ["VIEWER"]})
    path, tag = made.headers["Location"], made.headers["ETag"]
    body = {"roles": ["VIEWER", "COMPLIANCE_OFFICER"], "active": True}
    assert admin.put(path, json=body).status_code == 428
    assert admin.put(path, json=body, headers={"If-Match": '"77"'}).status_code == 409
    assert admin.put(path, json=body, headers={"If-Match": "*"}).status_code == 409
    changed = admin.put(path, json=body, headers={"If-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag
    assert admin.get(path).json()["roles"] == ["COMPLIANCE_OFFICER", "VIEWER"]
    assert admin.put(path, json=body, headers={"If-Match": tag}).status_code == 409
    again = {"username": "CHANGED", "password": PASSWORD, "roles": ["VIEWER"]}
    assert admin.post("/api/v1/users", json=again).status_code == 409
    assert admin.delete(path).status_code == 204
    assert admin.delete(path).status_code == 404
    me = admin.get("/api/v1/auth/me").json()["id"]
    assert admin.delete(f"/api/v1/users/{me}").status_code == 409


def test_users_are_listed_page_by_page(client: Client) -> None:
    admin = client(Role.ADMIN)
    for number in range(3):
        admin.post("/api/v1/users", json={"username": f"listed{number}", "password": PASSWORD, "roles": ["VIEWER"]})
    seen, cursor = [], 0
    while cursor is not None:
        page = admin.get("/api/v1/users", params={"cursor": cursor, "limit": 2}).json()
        seen += [user["id"] for user in page["items"]]
        assert len(page["items"]) <= 2
        cursor = page["nextCursor"]
    assert seen == sorted(set(seen))
    assert len(seen) >= 4
    assert "password" not in json.dumps(page).lower()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422), (b"{", 400), (b"[]", 422), (b"null", 422), (b'{"username": "x"}', 422), (b'{"username": 7, "password": "x"}', 422),
        (b'{"username": "x", "password": "x", "more": 1}', 422), (b'{"username": "\\ud800", "password": "x"}', 422),
        (b'{"username": "a\\u0000b", "password": "x"}', 401), (b'{"username": "' + b"x" * 3000 + b'", "password": "x"}', 422),
        (b'{"username": "\' or 1=1 --", "password": "x"}', 401), (b'{"username": "\\r\\nSet-Cookie: x", "password": "x"}', 401),
        (b"[" * 100_000, 400), (b'{"a": "' + b"x" * (2 << 20) + b'"}', 413), (b"\xff\xfe", 400),
        (b'{"username": "x", "password": ' + b"9" * 5000 + b"}", 400),
    ],
)  # fmt: skip
def test_bad_bodies_get_a_clear_answer(anybody: httpx.Client, body: bytes, status: int) -> None:
    answer = anybody.post("/api/v1/auth/login", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["detail"]
    assert re.fullmatch("[0-9a-f]{32}", problem["traceId"])
    assert problem["traceId"] == answer.headers["X-Trace-Id"]
    assert "Set-Cookie" not in answer.headers


def test_a_body_in_pieces_without_a_length_is_limited_too(anybody: httpx.Client) -> None:
    pieces = (b"x" * (64 << 10) for _ in range(40))
    answer = anybody.post("/api/v1/auth/login", content=pieces, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_nonsense_on_the_wire_does_no_harm(service: ServiceProcess, anybody: httpx.Client) -> None:
    place = urlsplit(service.url)
    assert place.hostname
    assert place.port
    for raw in (b"\x00\xff\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
                b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
                b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"):  # fmt: skip
        with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(4096)
        assert not answer or answer.split()[1][:1] == b"4", (raw[:40], answer)
    assert anybody.get("/actuator/health").status_code == 200


def test_every_answer_keeps_browsers_from_harm(anybody: httpx.Client) -> None:
    for path in ("/actuator/health", "/api/v1/users", "/nowhere", "/v3/api-docs"):
        answer = anybody.get(path)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "server" not in answer.headers
    assert anybody.get("/nowhere").json()["type"] == "urn:jivs:problem:not-found"
    assert anybody.delete("/api/v1/auth/login").json()["type"] == "urn:jivs:problem:method-not-allowed"
    trace = "0af7651916cd43dd8448eb211c80319c"
    given = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    assert anybody.get("/nowhere", headers=given).json()["traceId"] == trace


def test_other_sites_call_only_if_allowed(tmp_path: Path) -> None:
    with (
        ServiceProcess(tmp_path, CORS_ALLOWED_ORIGINS="https://console.example", workers=False) as running,
        httpx.Client(base_url=running.url) as client,
    ):
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        for origin, allowed in (("https://console.example", "https://console.example"), ("https://evil.example", None)):
            answer = client.options("/api/v1/auth/login", headers={"Origin": origin, **asked})
            assert answer.headers.get("Access-Control-Allow-Origin") == allowed
            assert "Access-Control-Allow-Credentials" not in answer.headers


PUBLIC = {
    ("POST", "/api/v1/auth/login"), ("POST", "/api/v1/auth/refresh"), ("GET", "/actuator/health"),
    ("GET", "/actuator/health/liveness"), ("GET", "/actuator/health/readiness"), ("GET", "/actuator/info"),
    ("GET", "/actuator/prometheus"),
}  # fmt: skip
PAGES = {("GET", "/swagger-ui.html"), ("GET", "/swagger-ui/start.js"), ("GET", "/swagger-ui/{name}")}
"""What shows the document, and is not in it."""
OWN = {
    ("POST", "/api/v1/auth/logout"), ("GET", "/api/v1/auth/me"), ("PUT", "/api/v1/users/{user_id}/password"),
    ("GET", "/api/v1/preferences"), ("PUT", "/api/v1/preferences"),
}  # fmt: skip
"""Routes for whoever is logged in."""


def rights_of(dependant: Any) -> set[Right]:
    found, open_ = set(), [dependant]
    while open_:
        one = open_.pop()
        if right := getattr(one.call, "right", None):
            found.add(right)
        open_ += one.dependencies
    return found


def routes() -> list[tuple[str, str, set[Right]]]:
    app = create(bootstrap.build_service(Settings()), origins=[])
    walked = [
        (method, route.path_format, rights_of(route.dependant))
        for included in app.routes
        for route in getattr(included, "effective_route_contexts", list)()
        for method in route.methods
    ]
    documented = {(method.upper(), path) for path, item in app.openapi()["paths"].items() for method in item}
    assert documented | PAGES == {(method, path) for method, path, _ in walked}
    return walked


def test_every_route_asks_every_role_for_its_right(service: ServiceProcess, client: Client, anybody: httpx.Client) -> None:
    walked = routes()
    assert len(walked) >= 14
    for method, path, rights in walked:
        if (method, path) in PUBLIC | PAGES:
            continue
        assert rights or (method, path) in OWN, f"{method} {path} asks for no right"
        url = re.sub(r"\{[a-z_]+\}", "999999", path)
        assert anybody.request(method, url).status_code == 401, (method, path)
        for role in Role:
            if (method, path) == ("POST", "/api/v1/auth/logout"):
                continue
            with client(role).stream(method, url) as answer:  # events have no end
                status = answer.status_code
            allowed = rights <= RIGHTS[role]
            assert (status != 403) is allowed or (method, path) in OWN, (method, path, role, status)
            assert status < 500


def test_the_trail_tells_everything_and_shows_what_was_changed(service: ServiceProcess, client: Client) -> None:
    admin = client(Role.ADMIN)
    page = admin.get("/api/v1/audit", params={"limit": 5}).json()
    assert len(page["items"]) == 5
    assert [item["seq"] for item in page["items"]] == list(range(page["items"][0]["seq"], page["items"][0]["seq"] - 5, -1))
    sound = admin.post("/api/v1/audit/verify").json()
    assert sound["entries"] >= page["items"][0]["seq"]
    assert admin.post("/api/v1/audit/verify", json=sound).json() == sound
    for noted, found in (({**sound, "entries": sound["entries"] + 9}, "was cut"), ({**sound, "hash": "f" * 64}, "anew")):
        answer = admin.post("/api/v1/audit/verify", json=noted)
        assert (answer.status_code, found in answer.json()["detail"]) == (409, True), answer.text
    for nonsense in ({"entries": 1}, {**sound, "hash": "F"}, {**sound, "entries": 0}):
        assert admin.post("/api/v1/audit/verify", json=nonsense).status_code == 422
    one = page["items"][2]
    for wanted in ({"action": one["action"]}, {"since": one["at"]}, {"until": one["at"]}, {"object": one["object"]}):
        items = admin.get("/api/v1/audit", params={**wanted, "limit": 200}).json()["items"]
        assert (one["seq"] in [item["seq"] for item in items]) is ("until" not in wanted)
        assert all(item["action"] == one["action"] for item in items) or "action" not in wanted
        assert all(item["at"] < one["at"] for item in items) or "until" not in wanted
        assert all(item["at"] >= one["at"] for item in items) or "since" not in wanted
    for wrong in ("yesterday", "2026-01-01T00:00:00", "0.5", "1700000000", "9" * 400):
        assert admin.get("/api/v1/audit", params={"since": wrong}).status_code == 422, wrong
    assert PASSWORD not in json.dumps(page)
    database = service.state / "jivs" / "catalog.db"
    for change, undo in (
        (
            "update audit set actor = actor || '!' where seq = 3",
            "update audit set actor = substr(actor, 1, length(actor) - 1) where seq = 3",
        ),
        ("update audit set seq = seq + 100000 where seq = 4", "update audit set seq = seq - 100000 where seq = 100004"),
    ):
        with sqlite3.connect(database, timeout=10) as connection:
            connection.execute(change)
        answer = admin.post("/api/v1/audit/verify")
        with sqlite3.connect(database, timeout=10) as connection:
            connection.execute(undo)
        assert answer.status_code == 409
        assert "entry" in answer.json()["detail"]
    assert admin.post("/api/v1/audit/verify").status_code == 200


def test_a_request_sent_again_happens_once(client: Client, anybody: httpx.Client) -> None:
    admin, engineer = client(Role.ADMIN), client(Role.DATA_ENGINEER)
    body = {"username": "again", "password": PASSWORD, "roles": ["VIEWER"]}
    key = {"Idempotency-Key": "7b8f"}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: admin.post("/api/v1/users", json=body, headers=key), range(6)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    again = admin.post("/api/v1/users", json=body, headers=key)
    first = next(answer for answer in answers if answer.status_code == 201)
    assert (again.status_code, again.text, again.headers["Location"]) == (201, first.text, first.headers["Location"])
    assert again.headers["Idempotent-Replayed"] == "true"
    assert admin.post("/api/v1/users", json={**body, "username": "b"}, headers=key).status_code == 422
    assert engineer.post("/api/v1/users", json=body, headers=key).status_code == 403
    assert anybody.post("/api/v1/users", json=body, headers=key).status_code == 401
    for bad in ("", "x" * 300):
        assert admin.post("/api/v1/users", json=body, headers={"Idempotency-Key": bad}).status_code == 422
    wrong = {"Idempotency-Key": "retry"}
    assert admin.post("/api/v1/users", json={**body, "username": "c", "password": "short"}, headers=wrong).status_code == 422
    assert admin.post("/api/v1/users", json={**body, "username": "c"}, headers=wrong).status_code == 201


def test_many_at_once(service: ServiceProcess, client: Client) -> None:
    admin = client(Role.ADMIN)

    def make(number: int) -> int:
        body = {"username": f"many{number % 10}", "password": PASSWORD, "roles": ["VIEWER"]}
        return admin.post("/api/v1/users", json=body).status_code

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(make, range(30)))
    assert sorted(codes) == [201] * 10 + [409] * 20
    assert admin.post("/api/v1/audit/verify").status_code == 200


def test_a_service_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path) as first, httpx.Client(base_url=first.url) as client:
        session = login(client, "admin", first.password)
        bearer = {"Authorization": f"Bearer {session['accessToken']}"}
        body = {"username": "ada", "password": PASSWORD, "roles": ["VIEWER"]}
        assert client.post("/api/v1/users", json=body, headers=bearer).status_code == 201
        first.kill()
        for _ in range(100):  # the API's process ends with the one that is killed
            try:
                client.get("/actuator/health")
            except httpx.TransportError:
                break
            time.sleep(0.1)
        else:
            pytest.fail("the API outlives jivs serve")
    with ServiceProcess(tmp_path, workers=False) as second, httpx.Client(base_url=second.url) as client:
        assert len(client.get("/api/v1/users", headers=bearer).json()["items"]) == 2
    assert second.process.returncode == 0


def test_settings_that_cannot_work_are_named(tmp_path: Path, pg: str) -> None:
    for given, sentence in (
        ({"JWT_SECRET": "short"}, "JWT_SECRET is too short"),
        ({"ENCRYPTION_KEY": "short!"}, "ENCRYPTION_KEY is no base64"),
        ({"ENCRYPTION_KEY": "AAAA"}, "ENCRYPTION_KEY has 3 bytes"),
        ({"DATABASE_URL": pg}, "JWT_SECRET and ENCRYPTION_KEY have to be set"),
        ({"DATABASE_URL": "mysql://x@y/z"}, "DATABASE_URL"),
        ({"JIVS_SERVER_ADDRESS": "192.0.2.1"}, "192.0.2.1"),
    ):
        with pytest.raises(RuntimeError, match=sentence) as raised:
            ServiceProcess(tmp_path / "state", **given, workers=False).start()
        assert "short!" not in str(raised.value)
    folder = tmp_path / "open" / "jivs"
    folder.mkdir(parents=True)
    (folder / "keys.json").write_text("{}")
    (folder / "keys.json").chmod(0o644)
    with pytest.raises(RuntimeError, match="chmod 600"):
        ServiceProcess(tmp_path / "open", workers=False).start()
