"""Files of archives over the REST API, and who may do what."""

from __future__ import annotations

import hashlib
import socket
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx

from jivs.api.downloads import attachment
from jivs.domain.access import Role
from jivs.testing.service import ServiceProcess
from tests.acceptance.archives.scene import (
    CANARY,
    PASSWORD,
    api_process,
    ask,
    login,
    memory,
    open_files,
    rows,
    tells_nothing,
    until,
)


def test_every_file_of_a_state_can_be_downloaded_and_proves_itself(admin: httpx.Client, tmp_path: Path, shelf: Path) -> None:
    listed, cursor = [], ""
    while cursor is not None:
        page = admin.get("/archives/sales/files", params={"limit": 2, "cursor": cursor}).json()
        listed += page["items"]
        cursor = page["nextCursor"]
    assert [file["path"] for file in listed] == sorted(file["path"] for file in listed)
    assert {file["path"] for file in listed} == {
        line.split("  ")[1] for line in (shelf / "sales" / "SHA256SUMS").read_text().splitlines() if "manifests/" not in line
    }
    for file in listed:
        answer = admin.get(f"/archives/sales/files/{quote(file['path'])}")
        assert answer.status_code == 200, answer.text
        assert hashlib.sha256(answer.content).hexdigest() == file["sha256"]
        assert (answer.headers["Content-Length"], answer.headers["ETag"]) == (str(file["bytes"]), f'"{file["sha256"]}"')
        assert answer.headers["Content-Disposition"].startswith(f'attachment; filename="{file["path"].rpartition("/")[2]}"')
    path = next(file["path"] for file in listed if "orders" in file["path"])
    assert admin.get(f"/archives/sales/files/{path}", params={"number": 1}).status_code == 404
    for bad in ("../other/SHA256SUMS", "..%2f..%2fetc/passwd", "%2e%2e/other/SHA256SUMS", "/etc/passwd", "runs/x", "tmp/canary.parquet", "SHA256SUMS",
                "manifests/00000001.json", f"%2e/{path}", f"data/%2e%2e/{path}", path.upper(), path + "%00", path + "/", "data", ""):  # fmt: skip
        answer = admin.get(f"/archives/sales/files/{bad}")
        assert answer.status_code in {404, 307} or answer.json().get("items"), (bad, answer.text)
        assert CANARY not in answer.text


def test_parts_of_a_file(admin: httpx.Client) -> None:
    file = next(
        one
        for one in admin.get("/archives/large/files").json()["items"]
        if "noise" in one["path"] and one["bytes"] > 1 << 20
    )
    path, size = f"/archives/large/files/{file['path']}", file["bytes"]
    whole = admin.get(path).content
    assert hashlib.sha256(whole).hexdigest() == file["sha256"]
    tag = f'"{file["sha256"]}"'
    for given, first, last in (
        ("bytes=0-0", 0, 0), ("bytes=100-1000099", 100, 1000099), ("bytes=-5", size - 5, size - 1), (f"bytes={size - 1}-", size - 1, size - 1),
        (f"bytes=5-{size * 9}", 5, size - 1), (f"bytes=-{size * 9}", 0, size - 1), ("Bytes = 1 - 2", 1, 2),
    ):  # fmt: skip
        answer = admin.get(path, headers={"Range": given})
        assert answer.status_code == 206, given
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
        assert answer.content == whole[first : last + 1]
    for given in ("bytes=5-2", "bytes=-", "lines=1-2", "bytes=1-2,5-6", "bytes=a-b", "bytes=" + "9" * 100 + "-"):
        answer = admin.get(path, headers={"Range": given})
        assert (answer.status_code, len(answer.content)) == (200, size), given
    for given in (f"bytes={size}-", "bytes=-0", "bytes=999999999999-"):
        answer = admin.get(path, headers={"Range": given})
        assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{size}"), given
    assert admin.get(path, headers={"Range": "bytes=0-0", "If-Range": tag}).status_code == 206
    assert admin.get(path, headers={"Range": "bytes=0-0", "If-Range": '"x"'}).status_code == 200
    assert admin.get(path, headers={"If-None-Match": tag}).status_code == 304


def test_who_leaves_in_the_middle_leaves_nothing_open(admin: httpx.Client, service: ServiceProcess) -> None:
    file = max(admin.get("/archives/large/files").json()["items"], key=lambda one: one["bytes"])
    place, process = urlsplit(service.url), api_process(service)
    request = (
        f"GET /api/v1/archives/large/files/{quote(file['path'])} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: {admin.headers['Authorization']}\r\n\r\n"
    ).encode()
    admin.get("/archives/large")
    before, most = open_files(process), memory(process)
    for _ in range(20):
        with socket.create_connection((place.hostname or "", place.port or 0), timeout=10) as connection:
            connection.sendall(request)
            assert b" 200 " in connection.recv(1000)
    until(lambda: len(open_files(process)) <= len(before))
    waiting = []
    for _ in range(10):  # clients that take nothing hold no more than what is on its way to them
        connection = socket.create_connection((place.hostname or "", place.port or 0), timeout=10)
        connection.sendall(request)
        waiting.append(connection)
    time.sleep(1)
    assert memory(process) < most + (40 << 20)
    assert admin.get("/archives").status_code == 200
    for connection in waiting:
        connection.close()
    until(lambda: len(open_files(process)) <= len(before))


def test_a_file_that_is_not_what_it_was_is_not_sent(admin: httpx.Client, service: ServiceProcess, shelf: Path) -> None:
    path = next(file["path"] for file in admin.get("/archives/sales/files").json()["items"] if "orders" in file["path"])
    segment = shelf / "sales" / path
    before = segment.read_bytes()
    try:
        for change in (lambda: segment.write_bytes(before[:-1]), segment.unlink):
            change()
            answer = admin.get(f"/archives/sales/files/{path}")
            assert (answer.status_code, answer.json()["type"]) == (409, "urn:jivs:problem:integrity")
            asked = ask(admin, "select sum(cents) from orders")
            assert (asked.status_code, asked.json()["type"][17:]) in {(422, "refused"), (409, "integrity")}
            assert path in asked.json()["detail"]
            tells_nothing(asked, "", "", service, shelf)
            assert str(shelf) not in answer.text
    finally:
        segment.write_bytes(before)


def test_names_of_files_stay_names() -> None:
    for path in (
        'data/x"; filename="evil.exe',
        "a/b\r\nSet-Cookie: x=1",
        "x/äöü€.parquet",
        "x/../..",
        "x/\x00",
        "x/" + "y" * 300,
        "x/%0d%0a",
    ):
        shown = attachment(path)
        assert shown.isascii()
        assert shown.isprintable()
        assert shown.count('"') == 2
        assert "/" not in shown.removeprefix("attachment; ")


def test_what_each_role_may(admin: httpx.Client, service: ServiceProcess) -> None:
    path = admin.get("/archives/other/files").json()["items"][0]["path"]
    for role, data in ((Role.VIEWER, 403), (Role.COMPLIANCE_OFFICER, 200), (Role.DATA_ENGINEER, 200)):
        name = role.lower().replace("_", ".")
        assert admin.post("/users", json={"username": name, "password": PASSWORD, "roles": [role]}).status_code == 201
        with login(service, name, PASSWORD) as client:
            for seen in ("", "/other", "/other/manifest", "/other/manifests", "/other/files"):
                answer = client.get(f"/archives{seen}")
                assert answer.status_code == 200
                assert CANARY not in answer.text
            assert ask(client, "from hidden", "other").status_code == data
            assert client.post("/archives/other/verify", json={}).status_code == data
            assert client.get(f"/archives/other/files/{path}").status_code == data


def test_queries_downloads_and_verifications_are_in_the_trail(admin: httpx.Client) -> None:
    sql = "select word from hidden where word = 'a name in a query'"
    assert rows(admin, sql, "other") == []
    ask(admin, "drop table x", "other")
    file = admin.get("/archives/other/files").json()["items"][0]
    admin.get(f"/archives/other/files/{file['path']}", headers={"Range": "bytes=1-3"})
    admin.post("/archives/other/verify", json={"level": "count"})
    found = admin.get("/audit", params={"object": "archive:other", "limit": 4})
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in (sql, "drop table x")]
    assert [(entry["actor"], entry["action"], entry["detail"]) for entry in found.json()["items"]] == [
        ("admin", "archive.verified", {"level": "count", "sound": True, "manifest": 1, "outcome": "done"}),
        ("admin", "archive.downloaded", {"path": file["path"], "first": 1, "bytes": 3}),
        ("admin", "archive.queried", {"sql": digests[1], "manifest": 1, "outcome": "refused"}),
        ("admin", "archive.queried", {"sql": digests[0], "manifest": 1, "rows": 0, "outcome": "done"}),
    ]
    assert "a name in a query" not in found.text
    assert admin.post("/audit/verify").status_code == 200
