"""Schedules over the REST API, seen to by a real scheduler."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from jivs.testing.service import ServiceProcess

API = "/api/v1/schedules"
EXTRACTIONS = "/api/v1/extractions"
PASSWORD = "seven brown foxes dig"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "a.csv").write_text("id,name\n1,x\n2,y\n")
    return folder


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path_factory.mktemp("service"), JIVS_FILE_ROOTS=str(data)) as running:
        yield running


@pytest.fixture(scope="module")
def api(service: ServiceProcess) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


@pytest.fixture(scope="module")
def extraction(api: httpx.Client, data: Path) -> int:
    return extract(api, "x", data)


def extract(api: httpx.Client, name: str, data: Path, **more: Any) -> int:
    config = {"database": str(data / "a.csv")}
    made = api.post(EXTRACTIONS, json={"name": name, "sourceType": "FILE", "connectionConfig": config, **more})
    assert made.status_code == 201, made.text
    return int(made.json()["id"])


def make(api: httpx.Client, name: str, extraction: int, cron: str = "30 2 * * *", **more: Any) -> httpx.Response:
    made = api.post(API, json={"name": name, "extractionId": extraction, "cron": cron, **more})
    assert made.status_code == 201, made.text
    return made


def until(
    look: Callable[[], dict[str, Any]], holds: Callable[[dict[str, Any]], bool], seconds: float = 20
) -> dict[str, Any]:
    end, found = time.monotonic() + seconds, look()
    while not holds(found):
        assert time.monotonic() < end, found
        time.sleep(0.05)
        found = look()
    return found


def come(service: ServiceProcess, schedule: int, ago: float = 0.0) -> datetime:
    """Let the schedule's next time have come so many seconds ago."""
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=ago)
    with closing(sqlite3.connect(service.state / "jivs" / "catalog.db", timeout=10)) as connection, connection:
        connection.execute("update schedules set next_run_at = ? where id = ?", (at.timestamp(), schedule))
    return at


def test_a_schedule_from_making_to_deleting(api: httpx.Client, extraction: int) -> None:
    made = make(
        api, "Nightly", extraction, timeZone="Europe/Berlin", missedRuns="RUN_ONCE", notBefore="2050-03-27T00:00:00+01:00"
    )
    path, shown = made.headers["Location"], made.json()
    assert shown == api.get(path).json()
    assert (shown["nextRunAt"], shown["notBefore"]) == ("2050-03-27T01:00:00Z", "2050-03-26T23:00:00Z"), (
        "02:30 is no time that day"
    )
    assert (shown["extractionName"], shown["createdBy"], shown["lastRunAt"], shown["lastRunId"]) == ("x", "admin", None, "")
    ahead = api.get(f"{path}/preview", params={"count": 2}).json()
    assert ahead == {
        "timeZone": "Europe/Berlin",
        "times": [
            {"at": "2050-03-27T01:00:00Z", "local": "2050-03-27T03:00:00+02:00"},
            {"at": "2050-03-28T00:30:00Z", "local": "2050-03-28T02:30:00+02:00"},
        ],
    }
    body = {"name": "Hourly", "extractionId": extraction, "cron": "@hourly"}
    assert api.put(path, json=body).status_code == 428
    changed = api.put(path, json=body, headers={"If-Match": made.headers["ETag"]})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["name"], changed.json()["timeZone"], changed.json()["missedRuns"]) == ("Hourly", "UTC", "SKIP")
    following = datetime.fromisoformat(changed.json()["nextRunAt"])
    assert timedelta(0) < following - datetime.now(UTC) <= timedelta(hours=1)
    assert api.put(path, json=body, headers={"If-Match": made.headers["ETag"]}).status_code == 409
    off = api.put(path, json={**body, "enabled": False}, headers={"If-Match": changed.headers["ETag"]}).json()
    assert (off["enabled"], off["nextRunAt"]) == (False, None)
    assert len(api.get(f"{path}/preview").json()["times"]) == 10
    assert api.delete(path).status_code == 204
    for answer in (api.get(path), api.delete(path), api.get(f"{path}/preview")):
        assert answer.status_code == 404
    told = [entry["action"] for entry in api.get("/api/v1/audit", params={"object": "schedule:Hourly"}).json()["items"]]
    assert told == ["schedule.removed", "schedule.changed", "schedule.changed"]


def test_a_time_that_has_come_runs_the_extraction(api: httpx.Client, data: Path, service: ServiceProcess) -> None:
    one = extract(api, "scheduled", data)
    path = make(api, "at night", one).headers["Location"]
    due = come(service, int(path.rpartition("/")[2]))
    shown = until(lambda: api.get(path).json(), lambda found: bool(found["lastRunId"]))
    run = until(
        lambda: api.get(f"{EXTRACTIONS}/{one}/runs/{shown['lastRunId']}").json(), lambda found: found["state"] == "COMPLETED"
    )
    assert (run["startedBy"], run["rows"]) == ("schedule:at night", 2)
    assert (shown["lastRunAt"], shown["lastMessage"]) == (run["createdAt"], "")
    assert datetime.fromisoformat(shown["nextRunAt"]) > datetime.now(UTC)
    [told] = api.get("/api/v1/audit", params={"actor": "schedule:at night"}).json()["items"]
    assert (told["action"], told["object"], told["detail"]["run"]) == ("run.started", "extraction:scheduled", run["id"])
    assert datetime.fromisoformat(told["detail"]["due"]) == due
    assert api.post("/api/v1/audit/verify").status_code == 200


def test_a_run_in_progress_and_a_missed_time_are_said(api: httpx.Client, data: Path, service: ServiceProcess) -> None:
    config = {"host": "127.0.0.1", "port": 1, "database": "x", "username": "u"}
    body = {"name": "nobody there", "sourceType": "POSTGRESQL", "connectionConfig": config, "attempts": 50}
    one = api.post(EXTRACTIONS, json=body).json()["id"]
    path = make(api, "too often", one).headers["Location"]
    number = int(path.rpartition("/")[2])
    run = api.post(f"{EXTRACTIONS}/{one}/start").json()
    come(service, number)
    shown = until(lambda: api.get(path).json(), lambda found: bool(found["lastMessage"]))
    assert f"has run {run['id']}" in shown["lastMessage"]
    assert shown["lastRunId"] == ""
    api.post(f"{EXTRACTIONS}/{one}/stop")
    come(service, number, ago=3600)
    shown = until(lambda: api.get(path).json(), lambda found: "skipped" in found["lastMessage"])
    assert shown["lastRunId"] == ""
    told = [entry["action"] for entry in api.get("/api/v1/audit", params={"actor": "schedule:too often"}).json()["items"]]
    assert told == ["run.skipped", "run.refused"]


def test_schedules_go_with_their_extraction(api: httpx.Client, data: Path) -> None:
    one = extract(api, "going", data)
    path = make(api, "going along", one).headers["Location"]
    assert api.delete(f"{EXTRACTIONS}/{one}").status_code == 204
    assert api.get(path).status_code == 404
    [told] = api.get("/api/v1/audit", params={"object": "schedule:going along", "limit": 1}).json()["items"]
    assert (told["actor"], told["action"]) == ("admin", "schedule.removed")


def test_a_schedule_is_made_once_with_an_idempotency_key(api: httpx.Client, extraction: int) -> None:
    body = {"name": "once", "extractionId": extraction, "cron": "@daily"}
    answers = [api.post(API, json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    taken = api.post(API, json={**body, "name": "ONCE"})
    assert (taken.status_code, taken.json()["type"]) == (409, "urn:jivs:problem:already-exists")


def test_lists_by_page_and_by_cursor(api: httpx.Client, data: Path) -> None:
    one = extract(api, "listed", data)
    for number in range(5):
        make(api, f"listed {number}", one, f"{number} 3 * * *", enabled=number != 4)
    mine = {"extractionId": one}
    first = api.get(API, params={**mine, "limit": 3}).json()
    rest = api.get(API, params={**mine, "limit": 3, "cursor": first["nextCursor"]}).json()
    assert [found["name"] for found in first["items"] + rest["items"]] == [f"listed {number}" for number in range(5)]
    assert rest["nextCursor"] is None
    page = api.get(API, params={**mine, "page": 1, "size": 2, "sort": "name,desc"}).json()
    assert [found["name"] for found in page["items"]] == ["listed 2", "listed 1"]
    assert (page["total"], page["totalPages"], page["page"], page["size"]) == (5, 3, 1, 2)
    coming = api.get(API, params={**mine, "page": 0, "sort": "nextRunAt"}).json()["items"]
    assert coming[-1]["name"] == "listed 4"
    assert [found["name"] for found in api.get(API, params={**mine, "enabled": False}).json()["items"]] == ["listed 4"]
    assert [found["name"] for found in api.get(API, params={"name": "LISTED 3"}).json()["items"]] == ["listed 3"]
    for query in ("page=-1", "size=0", "sort=cron", "limit=1000", "cursor=x", "enabled=perhaps", "sort=name"):
        assert api.get(f"{API}?{query}").status_code == 422, query


def test_bodies_that_cannot_be_meant(api: httpx.Client, extraction: int) -> None:
    whole = {"name": "n", "extractionId": extraction, "cron": "@daily"}
    for change, status, word in (
        ({"cron": "61 * * * *"}, 422, "bad minute"),
        ({"cron": "* * * * * *"}, 422, "five fields"),
        ({"cron": "@reboot"}, 422, "five fields"),
        ({"cron": "0 0 31 2 *"}, 422, "day-of-month"),
        ({"cron": ""}, 422, "cron"),
        ({"cron": "* * * * *\u0000"}, 422, "cron"),
        ({"cron": 5}, 422, "cron"),
        ({"timeZone": "Mars/Olympus"}, 422, "time zone 'Mars/Olympus'"),
        ({"timeZone": "../UTC"}, 422, "time zone"),
        ({"missedRuns": "ALWAYS"}, 422, "missedRuns"),
        ({"notBefore": "2026-01-01T00:00:00"}, 422, "notBefore"),
        ({"notBefore": 2000000000}, 422, "%2B"),
        ({"notBefore": "9999-12-31T23:59:59-14:00"}, 422, "notBefore"),
        ({"notAfter": "0001-01-01T00:00:00+14:00"}, 422, "notAfter"),
        ({"notBefore": "2051-01-01T00:00:00Z", "notAfter": "2050-01-01T00:00:00Z"}, 422, "notAfter is before"),
        ({"extractionId": 99999}, 404, "extraction 99999"),
        ({"extractionId": 0}, 422, "extractionId"),
        ({"name": ""}, 422, "name"),
        ({"name": "x" * 91}, 422, "name"),
        ({"name": "a\nb"}, 422, "name"),
        ({"unknown": 1}, 422, "unknown"),
    ):
        answer = api.post(API, json={**whole, **change})
        assert answer.status_code == status, (change, answer.text)
        assert word in answer.json()["detail"], answer.text
    made = make(api, "x" * 90, extraction)
    for change in ({"cron": "x"}, {"timeZone": "x"}):
        answer = api.put(made.headers["Location"], json={**whole, **change}, headers={"If-Match": made.headers["ETag"]})
        assert answer.status_code == 422
    for count in (0, 101, "x"):
        assert api.get(f"{made.headers['Location']}/preview", params={"count": count}).status_code == 422


def test_preferences_are_kept_as_they_were_given(api: httpx.Client, service: ServiceProcess) -> None:
    path = "/api/v1/preferences"
    first = api.get(path)
    assert (first.json(), first.headers["ETag"]) == ({}, '"0"')
    document = b'{ "theme":"dark",  "n": 1.10, "big": 12345678901234567890.5, "t": "\\ud83d \xc3\xa4", "list": [ [], {} ] }'
    assert api.put(path, content=document).status_code == 428
    kept = api.put(path, content=document, headers={"If-Match": '"0"'})
    assert (kept.status_code, kept.content, kept.headers["ETag"]) == (200, document, '"1"')
    assert kept.headers["Content-Type"] == "application/json"
    assert api.get(path).content == document
    for stale in ('"0"', '"7"'):
        answer = api.put(path, content=b"{}", headers={"If-Match": stale})
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:jivs:problem:conflict")
    with httpx.Client(base_url=service.url) as other:
        assert other.get(path).status_code == 401
        body = {"username": "viewer", "password": PASSWORD, "roles": ["VIEWER"]}
        user = api.post("/api/v1/users", json=body).json()["id"]
        token = other.post("/api/v1/auth/login", json={"username": "viewer", "password": PASSWORD}).json()["accessToken"]
        other.headers["Authorization"] = f"Bearer {token}"
        assert other.get(path).json() == {}
        assert other.put(path, content=b'{"a": 1}', headers={"If-Match": '"0"'}).status_code == 200
        assert api.delete(f"/api/v1/users/{user}").status_code == 204
        assert other.get(path).status_code == 401
    with closing(sqlite3.connect(service.state / "jivs" / "catalog.db", timeout=10)) as connection:
        assert connection.execute("select count(*) from preferences").fetchone() == (1,)


def test_preferences_that_are_none_are_refused(api: httpx.Client) -> None:
    path = "/api/v1/preferences"
    before = api.get(path)
    deep = b'{"a":' * 31 + b"{}" + b"}" * 31
    for body, status, word in (
        (b"", 422, "JSON"), (b"{", 422, "JSON"), (b"[]", 422, "object"), (b"null", 422, "object"), (b'{"a": NaN}', 422, "NaN"),
        (b"\xff{}", 422, "JSON"), (b"\xef\xbb\xbf{}", 422, "JSON"), (b'{"a": "\x00"}', 422, "JSON"), (b"{'a': 1}", 422, "JSON"),
        (b'{"a":' + deep + b"}", 422, "32"), (b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}", 422, "32"),
        (b'{"a":"' + b"x" * (64 << 10) + b'"}', 413, "65536"),
    ):  # fmt: skip
        answer = api.put(path, content=body, headers={"If-Match": before.headers["ETag"]})
        assert answer.status_code == status, (body[:40], answer.text)
        assert word in answer.json()["detail"], answer.text
    assert api.get(path).content == before.content
    largest = b'{"a":"' + b"x" * ((64 << 10) - 8) + b'"}'
    for body in (deep, b'{"n": ' + b"9" * 10_000 + b"}", largest):
        kept = api.put(path, content=body, headers={"If-Match": api.get(path).headers["ETag"]})
        assert (kept.status_code, kept.content) == (200, body), kept.text[:200]
