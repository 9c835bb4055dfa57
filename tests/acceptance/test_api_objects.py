"""The service with its archives in an object store: all that is done with archives in a folder is done with these."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator

import httpx
import pyarrow as pa
import pytest

from jivs.testing.servers import S3Server, wait_for
from jivs.testing.service import ServiceProcess

ARCHIVE = "/api/v1/archives/sales"
ROWS = 200_000


@pytest.fixture(scope="module")
def store(objects: S3Server) -> str:
    objects.client().create_bucket(Bucket="service-archives")
    return "service-archives"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, objects: S3Server, store: str) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("service")
    with sqlite3.connect(folder / "s.db") as database:
        database.execute("create table orders (id integer primary key, name text)")
        database.executemany("insert into orders values (?, ?)", ((number, f"n{number}" * 9) for number in range(ROWS)))
        database.execute("create table few (id integer primary key)")
        database.execute("insert into few values (1), (2)")
    settings = {**objects.settings, "STORAGE_PROVIDER": "s3", "AWS_S3_BUCKET": store, "JIVS_FILE_ROOTS": str(folder)}
    with ServiceProcess(folder / "state", **settings) as service, service.client() as client:
        source = {"name": "sales", "sourceType": "SQLITE", "connectionConfig": {"database": str(folder / "s.db")}}
        path = client.post("/api/v1/extractions", json={**source, "archive": "sales"}).headers["Location"]
        assert client.post(f"{path}/start").status_code == 202
        wait_for(lambda: client.get(path).json()["status"] == "COMPLETED", 60)
        yield client


def query(api: httpx.Client, sql: str, kind: str = "application/json") -> httpx.Response:
    return api.post(f"{ARCHIVE}/query", json={"sql": sql}, headers={"Accept": kind})


def test_queries_are_answered(api: httpx.Client) -> None:
    found = query(api, "select count(*), sum(id), min(name) from orders").json()
    assert found["rows"] == [[ROWS, ROWS * (ROWS - 1) // 2, "n0" * 9]]
    assert query(api, "select id from few order by id", "text/csv").text.split() == ["id", "1", "2"]
    arrow = query(api, "select id from orders where id > 199990", "application/vnd.apache.arrow.stream").content
    assert pa.ipc.open_stream(io.BytesIO(arrow)).read_all().num_rows == 9


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_parquet('s3://service-archives/sales/data/*')",
        "select * from read_text('archive://manifests/000001.json')",
        "select * from read_parquet('archive://data/../manifests/000001.json')",
    ],
)
def test_a_query_reaches_no_other_object(api: httpx.Client, sql: str) -> None:
    refused = query(api, sql)
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")


def test_it_is_verified_and_downloaded(api: httpx.Client) -> None:
    verdict = api.post(f"{ARCHIVE}/verify", json={"level": "full"}).json()
    assert (verdict["sound"], verdict["rows"]) == (True, ROWS + 2)
    listed = api.get(f"{ARCHIVE}/files").json()["items"]
    data = next(one for one in listed if one["path"].startswith("data/"))
    part = api.get(f"{ARCHIVE}/files/{data['path']}", headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"PAR1")


def test_an_object_that_is_gone_is_said(api: httpx.Client, objects: S3Server, store: str) -> None:
    """The last one here: the archive is damaged afterwards."""
    client = objects.client()
    found = [one["Key"] for one in client.list_objects_v2(Bucket=store)["Contents"]]
    gone = next(key for key in found if "/data/" in key and "few" in key)
    client.delete_object(Bucket=store, Key=gone)
    refused = query(api, "select * from few")
    assert refused.status_code == 500 or refused.json()["detail"]
    assert "verify" in refused.json()["detail"]
    assert query(api, "select count(*) from orders").json()["rows"] == [[ROWS]]
