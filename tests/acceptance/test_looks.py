"""Sources that are tried and do not behave: whatever they send, for as long as they like, the API goes on."""

from __future__ import annotations

import socket
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from jivs.testing.servers import wait_for
from jivs.testing.service import ServiceProcess

Behaviour = Callable[[socket.socket], None]
LOOKING = 8
OWN = "the-operators-own-password"


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Of PostgreSQL's protocol, version 3."""
    return kind + struct.pack(">I", len(body) + 4) + body


READY = message(b"Z", b"I")
NOTICE = message(b"N", b"SNOTICE\0VNOTICE\0C00000\0Mstill here\0\0")
COLUMNS = message(b"T", struct.pack(">H", 1) + b"version\0" + struct.pack(">IhIhih", 0, 0, 25, -1, -1, 0))


def notices(connection: socket.socket) -> None:
    while True:
        connection.sendall(NOTICE)
        time.sleep(0.05)


def rows(connection: socket.socket) -> None:
    """More than there is memory for."""
    row = message(b"D", struct.pack(">HI", 1, 1 << 20) + b"x" * (1 << 20))
    connection.sendall(COLUMNS)
    while True:
        connection.sendall(row)


def one_value(connection: socket.socket) -> None:
    """A value that is said to have a gigabyte, and never ends."""
    connection.sendall(COLUMNS + b"D" + struct.pack(">IHI", (1 << 30) - 1, 1, (1 << 30) - 11))
    while True:
        connection.sendall(b"x" * (1 << 16))
        time.sleep(0.001)


def nonsense(connection: socket.socket) -> None:
    """An error that no query of ours can cause, again and again."""
    with suppress(OSError):
        while True:
            connection.sendall(message(b"E", b"SERROR\0VERROR\0C22012\0Mdivision by zero\0\0") + READY)
            if not connection.recv(1 << 16):
                return


@contextmanager
def asking() -> Iterator[tuple[int, list[bytes]]]:
    """A server that asks for the password in clear text. Its port, and the passwords that it got."""
    got: list[bytes] = []

    def listen() -> None:
        with suppress(OSError):
            while True:
                connection = server.accept()[0]
                with connection, suppress(OSError):
                    if connection.recv(8)[4:] == struct.pack(">I", 80877103):
                        connection.sendall(b"N")
                    connection.recv(1 << 16)
                    connection.sendall(message(b"R", struct.pack(">I", 3)))
                    got.append(connection.recv(1 << 16))

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=listen, daemon=True).start()
        yield server.getsockname()[1], got


@contextmanager
def hostile(behave: Behaviour) -> Iterator[int]:
    """A server that lets everybody in, and answers the first query as it likes. Its port."""

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if connection.recv(8)[4:] == struct.pack(">I", 80877103):  # TLS? no
                connection.sendall(b"N")
            connection.recv(1 << 16)
            settings = (b"server_version\x0017.0\0", b"client_encoding\0UTF8\0", b"standard_conforming_strings\0on\0")
            status = b"".join(message(b"S", pair) for pair in settings)
            connection.sendall(message(b"R", struct.pack(">I", 0)) + status + READY)
            connection.recv(1 << 16)
            behave(connection)

    def listen() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=listen, daemon=True).start()
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home = tmp_path_factory.mktemp("home")
    (home / ".pgpass").write_text(f"*:*:*:*:{OWN}-of-the-file\n")
    (home / ".pgpass").chmod(0o600)
    given = {"JIVS_REQUESTS__LOOKING": str(LOOKING), "JIVS_FILE_ROOTS": "/", "HOME": str(home), "PGPASSWORD": OWN}
    with ServiceProcess(tmp_path_factory.mktemp("looks"), **given, workers=False) as service, service.client() as client:
        yield client


@pytest.mark.parametrize("behave", [notices, rows, one_value])
def test_a_source_that_never_ends_is_left(api: httpx.Client, behave: Behaviour) -> None:
    with hostile(behave) as port:
        url = f"postgresql://u@127.0.0.1:{port}/x"
        made = api.post("/api/v1/sources", json={"name": behave.__name__, "url": url}).headers["Location"]
        began = time.monotonic()
        tried = api.post(f"{made}/test").json()
        assert tried["success"] is False, tried
        assert any(found in tried["message"] for found in ("look at the source", "256 MiB", "allocate memory")), tried
        listed = api.get(f"{made}/tables")
        assert listed.status_code == (503 if "allocate" in tried["message"] else 422), listed.text
        assert time.monotonic() - began < 2 * LOOKING + 20
    assert api.get("/actuator/health").json()["status"] == "UP"


def test_nothing_of_the_services_own_goes_to_a_source(api: httpx.Client) -> None:
    """Its password for another server least of all."""
    with asking() as (port, got):
        body = {"sourceType": "POSTGRESQL", "connectionConfig": {"url": f"postgresql://u@127.0.0.1:{port}/x"}}
        assert api.post("/api/v1/extractions/test-connection", json=body).json()["success"] is False
        body["connectionConfig"] |= {"password": "the-sources-own"}  # type: ignore[operator]
        api.post("/api/v1/extractions/test-connection", json=body)
    assert OWN.encode() not in b"".join(got)
    assert any(b"the-sources-own" in one for one in got)


def test_what_is_no_source_is_no_defect_of_ours(api: httpx.Client) -> None:
    with hostile(nonsense) as port:
        for name, url in (("long", f"sqlite:////{'a' * 300}.db"), ("nonsense", f"postgresql://u@127.0.0.1:{port}/x")):
            made = api.post("/api/v1/sources", json={"name": name, "url": url}).headers["Location"]
            tried = api.post(f"{made}/test").json()
            assert tried["success"] is False, tried
            assert tried["message"]
            assert api.get(f"{made}/tables").status_code in {422, 503}, url


def test_a_look_ends_when_nobody_waits_for_it(tmp_path: Path) -> None:
    """Its place is free again, and the service ends when it is told to."""
    given = {"JIVS_REQUESTS__LOOKING": "300", "JIVS_FILE_ROOTS": "/"}
    with (
        ServiceProcess(tmp_path / "state", **given, workers=False) as service,
        service.client() as client,
        hostile(notices) as port,
    ):
        made = client.post("/api/v1/sources", json={"name": "s", "url": f"postgresql://u@127.0.0.1:{port}/x"})
        path = f"{made.headers['Location']}/test"
        for _ in range(2):
            with pytest.raises(httpx.ReadTimeout):
                client.post(path, timeout=2)
        sound = {"sourceType": "FILE", "connectionConfig": {"database": str(tmp_path)}}

        def free() -> bool:
            return client.post("/api/v1/extractions/test-connection", json=sound).status_code == 200

        wait_for(free, 20)
        waiting = threading.Thread(target=lambda: suppressed(lambda: client.post(path, timeout=100)))
        waiting.start()
        time.sleep(2)
        assert service.stop() == 0
        waiting.join()


def suppressed(act: Callable[[], object]) -> None:
    with suppress(httpx.HTTPError):
        act()


def test_what_is_listed_is_what_the_source_has(api: httpx.Client, pg: str, tmp_path: Path) -> None:
    import psycopg

    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute('create schema "S x"; create table "S x"."Ä ""t" (id int); create view v as select 1 as one')
        connection.execute("create table many as select generate_series(1, 1000) as n; analyze many")
    made = api.post("/api/v1/sources", json={"name": "sound", "url": pg}).headers["Location"]
    assert api.post(f"{made}/test").json() | {"version": ""} == {
        "success": True,
        "message": "It answers.",
        "product": "PostgreSQL",
        "version": "",
    }
    found = {(one["schema"], one["name"]): one for one in api.get(f"{made}/tables").json()}
    assert set(found) == {("S x", 'Ä "t'), ("public", "v"), ("public", "many")}
    assert (found["public", "v"]["kind"], found["public", "many"]["kind"]) == ("view", "table")
    assert found["public", "many"]["estimatedRows"] == 1000
    with sqlite3.connect(tmp_path / "many.db") as connection:
        for number in range(100):
            connection.execute(f"create table t{number:0100000} (a)")
    connection.close()
    many = api.post("/api/v1/sources", json={"name": "many", "url": f"sqlite:///{tmp_path}/many.db"}).headers["Location"]
    assert len(api.get(f"{many}/tables").json()) == 100, "ten megabytes of names"
    gone = f"sqlite:///{tmp_path}/gone.db"
    gone_source = api.post("/api/v1/sources", json={"name": "gone", "url": gone}).headers["Location"]
    assert "gone.db" in api.post(f"{gone_source}/test").json()["message"]
