"""Two processes of the service beside one PostgreSQL: a session of one is good in the other."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx

from jivs.testing.service import ServiceProcess
from tests.acceptance.test_api import login


def test_the_service_on_postgresql(tmp_path: Path, pg: str) -> None:
    given = {
        "DATABASE_URL": pg,
        "STORAGE_LOCAL_PATH": str(tmp_path / "archives"),
        "JWT_SECRET": "s" * 40,
        "ENCRYPTION_KEY": base64.b64encode(bytes(range(32))).decode(),
    }
    with (
        ServiceProcess(tmp_path / "a", **given, workers=False) as first,
        ServiceProcess(tmp_path / "b", **given, workers=False) as second,
    ):
        assert (first.password, second.password) != ("", "")
        with httpx.Client(base_url=second.url) as client:
            token = login(client, "admin", first.password)["accessToken"]
        with httpx.Client(base_url=first.url, headers={"Authorization": f"Bearer {token}"}) as client:
            assert client.get("/api/v1/auth/me").json()["username"] == "admin"
            body = {"name": "Sales", "url": pg, "maxRowsPerSecond": 10}
            made = client.post("/api/v1/sources", json=body)
            assert made.status_code == 201
            assert client.post("/api/v1/sources", json={**body, "name": "SALES"}).status_code == 409
            changed = {**body, "name": "Other", "password": "x"}
            path, tag = made.headers["Location"], made.headers["ETag"]
            assert client.put(path, json=changed, headers={"If-Match": tag}).json()["hasPassword"]
            assert [one["name"] for one in client.get("/api/v1/sources", params={"name": "oth"}).json()["items"]] == [
                "Other"
            ]
            assert client.delete(path).status_code == 204
            assert client.post("/api/v1/audit/verify").json()["entries"] == 5
