"""How much one user may ask for."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx

from jivs.testing.service import ServiceProcess

PASSWORD = "seven brown foxes dig"


def test_one_user_is_slowed_down_and_others_are_not(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path, JIVS_REQUESTS__PER_SECOND="3", workers=False) as service, service.client() as admin:
        user = {"username": "other", "password": PASSWORD, "roles": ["VIEWER"]}
        assert admin.post("/api/v1/users", json=user).status_code == 201
        with httpx.Client(base_url=service.url) as client:
            answer = client.post("/api/v1/auth/login", json={"username": "other", "password": PASSWORD})
            client.headers["Authorization"] = f"Bearer {answer.json()['accessToken']}"
            paths = ["/api/v1/extractions", "/api/v1/sources", "/api/v1/extractions?limit=1", "/api/v1/auth/me"] * 15
            codes = [admin.get(path).status_code for path in paths]
            assert codes[:25] == [200] * 25
            assert codes[-8:] == [429] * 8 or set(codes[-12:]) == {200, 429}
            refused = next(answer for answer in map(admin.get, paths) if answer.status_code == 429)
            assert refused.json()["type"] == "urn:jivs:problem:too-many-requests"
            assert refused.headers["Retry-After"] == "1"
            assert client.get("/api/v1/extractions").status_code == 200
            time.sleep(1.1)
            assert admin.get("/api/v1/extractions").status_code == 200


def test_one_user_listens_in_so_many_places(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path, workers=False) as service, service.client() as admin, ExitStack() as open_:
        user = {"username": "other", "password": PASSWORD, "roles": ["VIEWER"]}
        assert admin.post("/api/v1/users", json=user).status_code == 201
        answer = admin.post("/api/v1/auth/login", json={"username": "other", "password": PASSWORD})
        told = []  # kept: a reader that is forgotten closes its stream
        for number in range(20):
            stream = open_.enter_context(admin.stream("GET", "/api/v1/events"))
            assert stream.status_code == 200, number
            told.append(stream.iter_lines())
            assert next(told[-1]).startswith("retry")
        refused = admin.get("/api/v1/events")
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:jivs:problem:too-many-requests")
        bearer = {"Authorization": f"Bearer {answer.json()['accessToken']}"}
        with admin.stream("GET", "/api/v1/events", headers=bearer) as other:
            assert other.status_code == 200


def test_sources_that_do_not_answer_hold_few_threads(tmp_path: Path) -> None:
    with (
        ServiceProcess(tmp_path, JIVS_REQUESTS__CONNECTING="2", workers=False) as service,
        service.client() as admin,
        socket.create_server(("127.0.0.1", 0), backlog=50) as silent,
        ThreadPoolExecutor(2) as pool,
    ):
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/x"
        body = {"sourceType": "POSTGRESQL", "connectionConfig": {"url": url}}
        made = admin.post("/api/v1/sources", json={"name": "silent", "url": url}).headers["Location"]
        waiting = [pool.submit(admin.post, "/api/v1/extractions/test-connection", json=body) for _ in range(2)]
        held = [silent.accept()[0] for _ in range(2)]
        for refused in (
            admin.post("/api/v1/extractions/test-connection", json=body),
            admin.post(f"{made}/test"),
            admin.get(f"{made}/tables"),
        ):
            assert (refused.status_code, refused.json()["type"]) == (429, "urn:jivs:problem:too-many-requests")
            assert int(refused.headers["Retry-After"]) > 0
        assert admin.get("/api/v1/sources").status_code == 200
        silent.close()
        for one in held:
            one.close()
        assert [one.result().json()["success"] for one in waiting] == [False, False]
        assert admin.post(f"{made}/test").json()["success"] is False
