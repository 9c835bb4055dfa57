"""Sources over the REST API: kept, tried and looked at, their passwords never given away."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from jivs.testing.servers import PostgresServer
from jivs.testing.service import ServiceProcess

CANARY = "c4n4ry-s3cr3t-%/@:é"
KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in range(2)]


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("roots")
    (folder / "data").mkdir()
    (folder / "data" / "a.csv").write_text("id,name\n1,x\n")
    with sqlite3.connect(folder / "data" / "s.db") as connection:
        connection.execute("create table t (a)")
    connection.close()
    (folder / "outside.csv").write_text("id\n1\n")
    (folder / "data" / "link.csv").symlink_to(folder / "outside.csv")
    (folder / "data" / "linked").symlink_to(folder)
    return folder


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, roots: Path) -> Iterator[ServiceProcess]:
    state = tmp_path_factory.mktemp("service")
    settings = {"JIVS_FILE_ROOTS": str(roots / "data"), "ENCRYPTION_KEY": KEYS[0], "LOG_LEVEL": "DEBUG"}
    with ServiceProcess(state, **settings, workers=False) as running:
        yield running


@contextmanager
def logged_in(service: ServiceProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=30) as client:
        answer = client.post("/api/v1/auth/login", json={"username": "admin", "password": service.password})
        client.headers["Authorization"] = f"Bearer {answer.json()['accessToken']}"
        yield client


@pytest.fixture(scope="module")
def admin(service: ServiceProcess) -> Iterator[httpx.Client]:
    with logged_in(service) as client:
        yield client


@pytest.fixture
def guarded(pg: str, postgres: PostgresServer) -> Iterator[dict[str, str]]:
    """A source with a password that is a canary."""
    place = urlsplit(pg)
    user = f"reader_{place.path.removeprefix('/')}"
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute(psycopg.sql.SQL("create role {} login password {}").format(psycopg.sql.Identifier(user), CANARY))
        connection.execute("create table seen (id int)")
        connection.execute(f"grant select on seen to {user}")
    yield {"url": f"postgresql://{place.hostname}:{place.port}{place.path}", "username": user, "password": CANARY}
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute(f"drop owned by {user}; drop role {user}")


def test_a_source_from_making_to_deleting(admin: httpx.Client, guarded: dict[str, str]) -> None:
    made = admin.post("/api/v1/sources", json={"name": "Sales", **guarded, "maxConnections": 3})
    assert made.status_code == 201, made.text
    path, tag = made.headers["Location"], made.headers["ETag"]
    shown = made.json()
    assert (shown["name"], shown["kind"], shown["hasPassword"], shown["maxConnections"]) == ("Sales", "postgresql", True, 3)
    assert shown["url"] == guarded["url"]
    tried = admin.post(f"{path}/test").json()
    assert tried["success"], tried
    assert tried["product"] == "PostgreSQL"
    tables = admin.get(f"{path}/tables").json()
    assert [(table["schema"], table["name"]) for table in tables] == [("public", "seen")]
    assert admin.get("/api/v1/sources", params={"name": "sal"}).json()["items"][0]["name"] == "Sales"
    assert admin.get("/api/v1/sources", params={"name": "%"}).json()["items"] == []
    assert admin.post("/api/v1/sources", json={"name": "SALES", **guarded}).status_code == 409
    body = {"name": "Sales 2", "url": guarded["url"], "username": guarded["username"]}
    changed = admin.put(path, json=body, headers={"If-Match": tag})
    assert changed.status_code == 200, changed.text
    assert admin.post(f"{path}/test").json()["success"]
    assert admin.put(path, json=body, headers={"If-Match": tag}).status_code == 409
    body = {**body, "password": "wrong"}
    assert admin.put(path, json=body, headers={"If-Match": changed.headers["ETag"]}).status_code == 200
    refused = admin.post(f"{path}/test").json()
    assert not refused["success"]
    assert refused["message"]
    assert admin.delete(path).status_code == 204
    assert admin.get(path).status_code == 404


def test_a_kept_password_goes_to_no_other_server(admin: httpx.Client, guarded: dict[str, str]) -> None:
    made = admin.post("/api/v1/sources", json={"name": "moved", **guarded})
    for url, user in (
        ("postgresql://127.0.0.1:1/x", guarded["username"]),
        (guarded["url"], "other"),
        ("mysql://127.0.0.1/x", guarded["username"]),
    ):
        answer = admin.put(
            made.headers["Location"],
            json={"name": "moved", "url": url, "username": user},
            headers={"If-Match": made.headers["ETag"]},
        )
        assert answer.status_code == 422
        assert "give it again" in answer.json()["detail"]


def test_a_password_is_found_nowhere(admin: httpx.Client, guarded: dict[str, str], service: ServiceProcess) -> None:
    seen = []
    for number, extra in enumerate(
        ({}, {"url": guarded["url"].replace("://", "://x:" + "c4n4ry-s3cr3t-%25%2F%40%3A%C3%A9" + "@")})
    ):
        made = admin.post("/api/v1/sources", json={"name": f"canary {number}", **guarded, **extra})
        seen.append(made)
        path = made.headers["Location"]
        seen += [admin.get(path), admin.post(f"{path}/test"), admin.get(f"{path}/tables"), admin.get("/api/v1/sources")]
        seen.append(
            admin.put(
                path, json={"name": "x", **guarded, "password": CANARY + "wrong"}, headers={"If-Match": made.headers["ETag"]}
            )
        )
        seen += [admin.post(f"{path}/test"), admin.get(f"{path}/tables"), admin.delete(path)]
    for body in (
        {"name": CANARY * 20, "url": CANARY, "password": CANARY},
        {"name": 7, "url": f"postgresql://u:{CANARY}@h/d", "password": [CANARY]},
    ):
        seen.append(admin.post("/api/v1/sources", json=body))
    seen += [admin.get("/api/v1/audit", params={"limit": 200}), admin.get("/actuator/health")]
    for answer in seen:
        text = answer.text.encode().decode("unicode_escape", errors="replace") + answer.text + str(answer.headers)
        assert "c4n4ry" not in text or "canary" in text.replace("c4n4ry", ""), answer.text[:500]
        assert "c4n4ry" not in answer.text, answer.text[:500]
    kept = b"".join(path.read_bytes() for path in (service.state / "jivs").rglob("*") if path.is_file())
    assert b"c4n4ry" not in kept
    assert "c4n4ry" not in "".join(service.printed)


HOSTILE = [
    ("file:///etc/passwd", 403), ("file:///etc/*", 403), ("file://{data}/../outside.csv", 403), ("file://{data}/link.csv", 403),
    ("file://{data}/linked/outside.csv", 403), ("sqlite:////etc/passwd", 403), ("sqlite:///relative.db", 422),
    ("file://relative.csv", 422), ("file://{data}/%2e%2e/outside.csv", 403), ("file://{data}x/a.csv", 403), ("file:///proc/self/environ", 403),
    ("postgresql://169.254.169.254/latest", 403), ("postgresql://[fe80::1]/x", 403), ("postgresql://[::ffff:169.254.169.254]/x", 403),
    ("postgresql://0.0.0.0/x", 403), ("postgresql://0/x", 403), ("postgresql://2852039166/x", 403), ("postgresql://0xa9fea9fe/x", 403),
    ("postgresql://224.0.0.1/x", 403), ("postgresql://[::]/x", 403), ("postgresql://[fd00:ec2::254]/x", 403), ("postgresql:///x", 422),
    ("postgresql://%2Fvar%2Frun%2Fpostgresql/x", 422), ("postgresql://a,b/x", 422), ("mysql://169.254.169.254/x", 403),
    ("postgresql://${HOME}/x", 422), ("postgresql://u:${JWT_SECRET}@h/x", 422), ("postgresql://h/x?nosuch=1", 422),
    ("postgresql://h:99999/x", 422), ("http://169.254.169.254/latest/meta-data", 422), ("gopher://x/", 422), ("nonsense", 422), ("://", 422),
    ("jdbc:h2:mem:x;INIT=RUNSCRIPT", 422), ("postgresql://h/x?sslkey=/etc/passwd", 403), ("postgresql://h/x?sslrootcert=passwd", 422),
    ("mysql://h/x?ssl_ca=../../etc/passwd", 422),
]  # fmt: skip


@pytest.mark.parametrize(("url", "status"), HOSTILE)
def test_hostile_addresses_are_refused(admin: httpx.Client, roots: Path, url: str, status: int) -> None:
    answer = admin.post("/api/v1/sources", json={"name": "hostile", "url": url.replace("{data}", str(roots / "data"))})
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]


def test_files_below_the_roots_are_sources(admin: httpx.Client, roots: Path) -> None:
    for name, url in (
        ("csv", f"file://{roots}/data/a.csv"),
        ("db", f"sqlite:///{roots}/data/s.db"),
        ("all", f"file://{roots}/data/a*.csv"),
    ):
        made = admin.post("/api/v1/sources", json={"name": name, "url": url})
        assert made.status_code == 201, made.text
        assert admin.post(f"{made.headers['Location']}/test").json()["success"], name
    made = admin.post("/api/v1/sources", json={"name": "link among them", "url": f"file://{roots}/data/*.csv"})
    tried = admin.post(f"{made.headers['Location']}/test")
    assert (tried.status_code, "link.csv" in tried.json()["detail"]) == (403, True)


def test_a_source_that_is_down_is_no_error_of_the_service(admin: httpx.Client) -> None:
    made = admin.post("/api/v1/sources", json={"name": "down", "url": "postgresql://127.0.0.1:1/x"})
    tried = admin.post(f"{made.headers['Location']}/test").json()
    assert tried["success"] is False
    assert "127.0.0.1" in tried["message"]
    assert admin.get(f"{made.headers['Location']}/tables").status_code == 503


def test_networks_that_the_operator_did_not_allow(tmp_path: Path) -> None:
    with (
        ServiceProcess(tmp_path, JIVS_NETWORKS="10.0.0.0/8, ::1/128", workers=False) as running,
        logged_in(running) as client,
    ):
        assert client.post("/api/v1/sources", json={"name": "a", "url": "postgresql://127.0.0.1/x"}).status_code == 403
        assert client.post("/api/v1/sources", json={"name": "b", "url": "postgresql://10.1.2.3/x"}).status_code == 201
        assert client.post("/api/v1/sources", json={"name": "c", "url": "sqlite:////tmp/x.db"}).status_code == 403


@contextmanager
def restarted(state: Path, keys: str, password: str) -> Iterator[httpx.Client]:
    """The same service with other keys."""
    with ServiceProcess(state, ENCRYPTION_KEY=keys, workers=False) as running:
        running.password = password
        with logged_in(running) as client:
            yield client


def test_keys_are_turned_and_wrong_ones_are_named(tmp_path: Path, guarded: dict[str, str]) -> None:
    with ServiceProcess(tmp_path, ENCRYPTION_KEY=KEYS[0], workers=False) as running, logged_in(running) as client:
        path = client.post("/api/v1/sources", json={"name": "kept", **guarded}).headers["Location"]
    password = running.password
    for keys, works in ((KEYS[1], False), (f"{KEYS[1]},{KEYS[0]}", True)):
        with restarted(tmp_path, keys, password) as client:
            tried = client.post(f"{path}/test")
            if works:
                assert tried.json()["success"]
                assert client.post("/api/v1/sources/turn-keys").json() == {"turned": 1, "passwords": 1}
                assert client.post("/api/v1/sources/turn-keys").json() == {"turned": 0, "passwords": 1}
            else:
                assert tried.status_code == 422
                assert "another key" in tried.json()["detail"]
    with restarted(tmp_path, KEYS[1], password) as client:
        assert client.post(f"{path}/test").json()["success"]
    with sqlite3.connect(tmp_path / "jivs" / "catalog.db") as connection:
        sealed = connection.execute("select sealed from sources").fetchone()[0]
        connection.execute(
            "insert into sources select id + 1, 'copy', 'copy', scheme, host, port, database, username, options, sealed, 0, 0, 1, 0, 0 from sources"
        )
    assert sealed.startswith("v1.")
    with restarted(tmp_path, KEYS[1], password) as client:
        answer = client.post("/api/v1/sources/2/test")
        assert answer.status_code == 409
        assert "moved" in answer.json()["detail"]
