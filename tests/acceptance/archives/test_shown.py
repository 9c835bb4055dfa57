"""Archives over the REST API: listed, shown, verified."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from jivs.testing.service import ServiceProcess
from tests.acceptance.archives.scene import (
    api_process,
    ask,
    children,
    login,
    until,
)


def test_archives_are_listed_page_by_page(admin: httpx.Client, shelf: Path) -> None:
    (shelf / "no archive" / "manifests").mkdir(parents=True, exist_ok=True)
    (shelf / "empty").mkdir(exist_ok=True)
    seen, cursor = [], ""
    while cursor is not None:
        page = admin.get("/archives", params={"cursor": cursor, "limit": 2}).json()
        assert len(page["items"]) <= 2
        seen += page["items"]
        cursor = page["nextCursor"]
    assert [one["name"] for one in seen] == ["large", "other", "sales"]
    newest = seen[2]["newest"]
    raw = (shelf / "sales" / "manifests" / "00000002.json").read_bytes()
    assert (newest["number"], newest["tables"], newest["rows"]) == (2, 2, 1000)
    assert newest["sha256"] == hashlib.sha256(raw).hexdigest()
    assert newest["publishedAt"] == json.loads(raw)["created"]
    assert newest["bytes"] == sum(file["bytes"] for file in admin.get("/archives/sales/files").json()["items"])
    assert [one["name"] for one in admin.get("/archives", params={"name": "ALE"}).json()["items"]] == ["sales"]
    assert admin.get("/archives", params={"name": "%"}).json() == {"items": [], "nextCursor": None}


def test_a_damaged_manifest_is_named_and_hides_no_other_archive(admin: httpx.Client, shelf: Path) -> None:
    shutil.copytree(shelf / "other", shelf / "broken")
    (shelf / "broken" / "manifests" / "00000001.json").write_text('{"format_version": 1}')
    (shelf / "newer" / "manifests").mkdir(parents=True)
    (shelf / "newer" / "manifests" / "00000001.json").write_text('{"format_version": 9}')
    try:
        items = {one["name"]: one for one in admin.get("/archives").json()["items"]}
        assert items["broken"]["newest"] is None
        assert "damaged" in items["broken"]["error"]
        assert "upgrade" in items["newer"]["error"]
        assert items["sales"]["error"] == ""
        answers = [
            admin.get("/archives/broken"), admin.get("/archives/newer"), ask(admin, "select 1", "broken"),
            admin.post("/archives/broken/verify", json={}), admin.get("/archives/broken/files/README.txt"), admin.get("/archives"),
        ]  # fmt: skip
        assert [answer.status_code for answer in answers] == [409, 422, 409, 409, 409, 200]
        assert str(shelf) not in "".join(answer.text for answer in answers)
    finally:
        shutil.rmtree(shelf / "broken")
        shutil.rmtree(shelf / "newer")


def test_an_archive_shows_its_tables_and_their_proof(admin: httpx.Client) -> None:
    found = admin.get("/archives/sales").json()
    assert found["state"]["number"] == 2
    assert found["sources"]["sales"]["kind"] == "sqlite"
    tables = {table["name"]: table for table in found["tables"]}
    orders = tables["orders"]
    assert (orders["rows"], orders["level"], orders["verdict"], orders["rowsQuarantined"]) == (1000, "full", "verified", 0)
    assert [(column["name"], column["type"]) for column in orders["columns"]] == [
        ("id", "int64"), ("customer", "text"), ("cents", "int64")
    ]  # fmt: skip
    assert orders["primaryKey"] == ["id"]
    assert admin.get("/archives/sales", params={"number": 1}).json()["state"]["rows"] == 3000
    first = admin.get("/archives/sales", params={"limit": 1}).json()
    rest = admin.get("/archives/sales", params={"limit": 1, "cursor": first["nextCursor"]}).json()
    assert [table["name"] for one in (first, rest) for table in one["tables"]] == ["empty", "orders"]
    assert rest["nextCursor"] is None
    for path, status in (
        ("/archives/nowhere", 404), ("/archives/sales?number=3", 404), ("/archives/sales?number=0", 422), ("/archives/..", 404),
        ("/archives/%2e%2e", 422), ("/archives/.hidden", 422), ("/archives/a%2Fb", 404), ("/archives/empty", 404),
        (f"/archives/{'x' * 101}", 422), ("/archives/sales%00", 422), ("/archives/sales?cursor=-1", 422), ("/archives/sales%0a", 422),
    ):  # fmt: skip
        assert admin.get(path).status_code == status, path


def test_a_manifest_comes_byte_for_byte_with_its_hash(admin: httpx.Client, shelf: Path) -> None:
    for number in (1, 2):
        raw = (shelf / "sales" / "manifests" / f"{number:08d}.json").read_bytes()
        answer = admin.get("/archives/sales/manifest", params={"number": number})
        assert answer.content == raw
        assert answer.headers["ETag"] == f'"{hashlib.sha256(raw).hexdigest()}"'
    tag = answer.headers["ETag"]
    assert admin.get("/archives/sales/manifest").headers["ETag"] == tag
    for given, status in ((tag, 304), (f'"x", W/{tag}', 304), ("*", 304), ('"x"', 200), (tag.strip('"'), 200)):
        assert admin.get("/archives/sales/manifest", headers={"If-None-Match": given}).status_code == status, given
    chain = admin.get("/archives/sales/manifests").json()["items"]
    assert [one["number"] for one in chain] == [2, 1]
    assert chain[0]["previous"] == chain[1]["sha256"]
    page = admin.get("/archives/sales/manifests", params={"limit": 1}).json()
    assert page["nextCursor"] == 2
    assert admin.get("/archives/sales/manifests", params={"cursor": 2}).json()["items"] == chain[1:]


def test_a_flipped_byte_is_found(admin: httpx.Client, shelf: Path) -> None:
    noted = admin.get("/archives/sales").json()["state"]["sha256"]
    for level in ("files", "count", "full"):
        sound = admin.post("/archives/sales/verify", json={"level": level, "expect": noted}).json()
        assert (sound["sound"], sound["findings"], sound["level"]) == (True, [], level), sound
    forged = admin.post("/archives/sales/verify", json={"expect": "0" * 64}).json()
    assert [finding["code"] for finding in forged["findings"]] == ["manifest-forged"]
    path = next(file["path"] for file in admin.get("/archives/sales/files").json()["items"] if "orders" in file["path"])
    segment = shelf / "sales" / path
    before = segment.read_bytes()
    segment.write_bytes(before[:100] + bytes([before[100] ^ 1]) + before[101:])
    try:
        for level in ("files", "full"):
            found = admin.post("/archives/sales/verify", json={"level": level}).json()
            assert not found["sound"]
            assert [(finding["code"], finding["object"]) for finding in found["findings"]] == [("changed", path)]
            assert found["found"] == 1
    finally:
        segment.write_bytes(before)
    assert admin.post("/archives/sales/verify", json={}).json()["sound"]
    for body in ({"level": "deep"}, {"expect": "x"}, {"source": "sqlite:////etc/passwd"}, []):
        assert admin.post("/archives/sales/verify", json=body).status_code == 422
    assert admin.post("/archives/nowhere/verify", json={}).status_code == 404


def test_a_verification_without_end_is_ended(tmp_path: Path, shelf: Path) -> None:
    shutil.copytree(shelf / "other", tmp_path / "shelf" / "stuck")
    (tmp_path / "shelf" / "stuck" / "runs" / "20200101-x").mkdir(parents=True)
    os.mkfifo(tmp_path / "shelf" / "stuck" / "runs" / "20200101-x" / "open.json")
    given = {"JIVS_VERIFICATION__SECONDS": "3", "JIVS_VERIFICATION__CONCURRENT": "1"}
    with (
        ServiceProcess(tmp_path / "state", STORAGE_LOCAL_PATH=str(tmp_path / "shelf"), **given) as running,
        login(running, "admin", running.password) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        process = api_process(running)
        first = pool.submit(client.post, "/archives/stuck/verify", json={})
        until(lambda: bool(children(process)))
        began = time.monotonic()
        busy = client.post("/archives/stuck/verify", json={})
        assert busy.status_code == 429
        assert int(busy.headers["Retry-After"]) > 0
        assert time.monotonic() - began < 2
        ended = first.result()
        assert ended.status_code == 422
        assert ended.json()["type"] == "urn:jivs:problem:over-limit"
        assert "jivs verify" in ended.json()["detail"]
        assert children(process) == []
        with pytest.raises(httpx.ReadTimeout):
            client.post("/archives/stuck/verify", json={}, timeout=0.5)
        until(lambda: children(process) == [], 2)
        outcomes = [
            entry["detail"]["outcome"] for entry in client.get("/audit", params={"object": "archive:stuck"}).json()["items"]
        ]
        assert outcomes == ["over limit", "over limit"]
