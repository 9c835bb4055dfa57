"""Archives in an object store: the whole job, as in a folder."""

from __future__ import annotations

import json
import math
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jivs import bootstrap
from jivs.archive import chain
from jivs.errors import DamagedError, StoreError, UsageError
from jivs.operations.query import query
from jivs.ports.app import App
from jivs.ports.store import Store
from jivs.settings import Settings
from jivs.testing.relay import Relay
from jivs.testing.servers import S3Server, wait_for
from jivs.testing.service import ServiceProcess
from tests import archives

JIVS = [sys.executable, "-m", "jivs"]
GOLDEN = Path(__file__).parent.parent / "golden"


def jivs(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*JIVS, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def upload(store: Store, folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.replace(path.relative_to(folder).as_posix(), path.read_bytes())


def asked(app: App, archive: str, sql: str) -> list[dict[str, object]]:
    with query(app, archive, sql) as reader:
        return reader.read_all().to_pylist()


@pytest.fixture
def app(bucket: str) -> App:
    return bootstrap.build(Settings())


@pytest.fixture(params=["sqlite", "csv"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "csv":
        (tmp_path / "t.csv").write_text("id,v\n" + "".join(f"{n},value {n}\n" for n in range(5000)))
        return f"file://{tmp_path / 't.csv'}"
    connection = sqlite3.connect(tmp_path / "s.db")
    connection.execute("create table t (id integer primary key, v text, d decimal(10,2), f real)")
    rows = ((n, f"value {n}", n * 1.25, n / 7) for n in range(5000))
    connection.executemany("insert into t values (?, ?, ?, ?)", rows)
    connection.execute('create table "Other Table%" (a int)')
    connection.commit()
    connection.close()
    return f"sqlite:///{tmp_path / 's.db'}"


def test_the_whole_job(app: App, source: str, bucket: str, tmp_path: Path, objects: S3Server) -> None:
    archive = f"s3://{bucket}/retired/sales"
    debug = {"JIVS_LOG_LEVEL": "DEBUG", "JIVS_TEMP_DIR": str(tmp_path / "spool")}
    done = jivs("extract", source, "--to", archive, "--verify", "full", **debug)
    assert done.returncode == 0, done.stderr
    assert f"jivs verify {archive} --expect" in done.stdout
    again = jivs("extract", source, "--to", archive, "--verify", "full", **debug)
    assert again.returncode == 0, again.stderr
    assert archives.verdict(archive, source=source).findings == ()
    shown = jivs("inspect", archive)
    assert f"{archive}: manifest 2 of 2" in shown.stdout
    found = jivs(
        "query", archive, "select v from t where id = '4711'" if "csv" in source else "select v from t where id = 4711"
    )
    assert "value 4711" in found.stdout
    assert found.stderr == ""
    for printed in (done, again, shown, found):
        assert objects.secret not in printed.stdout + printed.stderr
    assert [path for path in (tmp_path / "spool").rglob("*") if path.is_file()] == []
    copy = archives.copy(app.store(archive), tmp_path / "copy")
    assert archives.independent(copy) == 0
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=copy, check=False).returncode == 0
    assert archives.strays(copy) == set()


def test_a_bucket_with_locked_objects_will_do(app: App, source: str, objects: S3Server) -> None:
    """Nothing that is published is written twice or removed; of the rest the bucket keeps versions."""
    client = objects.client()
    bucket = f"locked-{source.partition(':')[0]}"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    retention = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    client.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": retention}
    )
    archive = f"s3://{bucket}"
    for _ in range(2):
        done = jivs("extract", source, "--to", archive)
        assert done.returncode == 0, done.stderr
    assert archives.verdict(archive, "count").findings == ()
    kept = client.list_object_versions(Bucket=bucket, MaxKeys=1000)["Versions"]
    published = [item["Key"] for item in kept if item["Key"].startswith(("data/", "schema/", "manifests/"))]
    assert len(published) == len(set(published)) >= 5


def test_a_token_is_in_no_log(bucket: str) -> None:
    """Of credentials that are not settings, too; the client itself would log them."""
    given = {
        "AWS_ACCESS_KEY": "",
        "AWS_SECRET_KEY": "",
        "AWS_ACCESS_KEY_ID": "AKIAX",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
    }
    done = jivs("inspect", f"s3://{bucket}/x", JIVS_LOG_LEVEL="DEBUG", AWS_SESSION_TOKEN="secret-token", **given)
    assert done.returncode == 5
    assert "very-secret" not in done.stdout + done.stderr
    assert "secret-token" not in done.stdout + done.stderr
    settings = jivs("config", "show", AWS_SECRET_KEY="very-secret", AWS_ACCESS_KEY="AKIAX")
    assert "very-secret" not in settings.stdout


@pytest.mark.parametrize(
    "name", ["bit-in-page", "bit-in-quarantine", "truncated", "missing", "extra", "broken-chain", "sums-differ"]
)
def test_damage_is_found_as_in_a_folder(app: App, bucket: str, name: str) -> None:
    archive = f"s3://{bucket}/{name}"
    upload(app.store(archive), GOLDEN / name)
    there, here = archives.verdict(archive), archives.verdict(GOLDEN / name)
    assert not there.sound
    assert there.findings == here.findings


def test_a_sound_archive_is_sound(app: App, bucket: str) -> None:
    upload(app.store(f"s3://{bucket}"), GOLDEN / "sound")
    for level in ("files", "count", "full"):
        assert archives.verdict(f"s3://{bucket}", level).findings == ()


def test_queries_give_what_they_give_in_a_folder(app: App, bucket: str) -> None:
    """All types of the golden archive, companions, earlier states, and lists of tables."""
    archive = f"s3://{bucket}/golden"
    upload(app.store(archive), GOLDEN / "sound")
    for sql in (
        "select * from a order by all",
        "select * from b order by all",
        "select count(*) n from empty",
        "select a.*, b.* from a, b order by all",
        "select table_schema, table_name from information_schema.tables order by all",
        "describe a",
        "explain select * from a",
        "select 1 as one",
    ):
        assert asked(app, archive, sql) == asked(app, str(GOLDEN / "sound"), sql), sql
    for sql in ("select nope from a", "select * from nope", "selec"):
        with pytest.raises(UsageError) as there:
            asked(app, archive, sql)
        with pytest.raises(UsageError) as here:
            asked(app, str(GOLDEN / "sound"), sql)
        assert there.value.message == here.value.message


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_parquet('jivs://manifests/00000001.json')",
        "select * from read_parquet('jivs://data/golden/../../../etc/passwd'), a",
        "select * from read_text('/etc/passwd'), a",
        "select * from read_text('s3://{bucket}/golden/README.txt'), a",
        "select * from '{other}', a",
        "select * from glob('jivs://*'), a",
        "copy a to 'jivs://data/x.parquet'",
    ],
)
def test_queries_reach_nothing_else(app: App, bucket: str, sql: str) -> None:
    archive = f"s3://{bucket}/golden"
    upload(app.store(archive), GOLDEN / "sound")
    before = {entry.path for entry in app.store(archive).list()}
    listed = {file.path for table in chain.require(app.store(archive)).manifest.tables for file in table.segments}
    other = min(path for path in before - listed if path.startswith("data/"))  # of an earlier state
    with pytest.raises(UsageError):
        asked(app, archive, sql.format(bucket=bucket, other=f"jivs://{other}"))
    assert {entry.path for entry in app.store(archive).list()} == before


@pytest.fixture
def relay(objects: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    with Relay(objects.port) as made:
        monkeypatch.setenv("JIVS_S3_ENDPOINT", made.url)
        yield made


def wide(path: Path) -> str:
    draw = random.Random(1)
    connection = sqlite3.connect(path)
    connection.execute("create table wide (id integer primary key, f real, noise text)")
    rows = ((n, math.sqrt(n), draw.randbytes(100).hex()) for n in range(60_000))
    connection.executemany("insert into wide values (?, ?, ?)", rows)
    connection.commit()
    connection.close()
    return f"sqlite:///{path}"


def test_a_query_fetches_only_what_it_needs(bucket: str, relay: Relay, tmp_path: Path) -> None:
    """Columns that are not asked for, and row groups that cannot match, stay in the store."""
    archive = f"s3://{bucket}/wide"
    small = {"JIVS_EXTRACTION__MEMORY_LIMIT": "192MiB"}
    assert jivs("extract", wide(tmp_path / "s.db"), "--to", archive, **small).returncode == 0

    def fetched(sql: str) -> int:
        before = relay.answered
        done = jivs("query", archive, sql)
        assert done.returncode == 0, done.stderr
        return relay.answered - before

    everything = fetched("select sum(length(noise)) from wide")
    assert everything > 3_000_000
    assert fetched("select sum(f) from wide") < everything / 4
    assert fetched("select noise from wide where id = 59999") < everything / 2
    assert fetched("select count(*) from wide") < 100_000


def test_queries_tell_damage_from_a_network_that_fails(
    app: App, bucket: str, relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jivs.backends.store.s3_access._LONGEST_PAUSE", 0.01)
    archive = f"s3://{bucket}/wide"
    assert jivs("extract", wide(tmp_path / "s.db"), "--to", archive).returncode == 0
    store = app.store(archive)
    relay.after, relay.cut_answers = 300_000, 1000
    behind = bootstrap.build(Settings())
    with pytest.raises(StoreError, match="breaks off"):
        asked(behind, archive, "select sum(length(noise)) from wide")
    relay.cut_answers = 0
    assert asked(behind, archive, "select count(*) n from wide") == [{"n": 60_000}]
    [segment] = [entry.path for entry in store.list("data/")]
    data = store.read(segment)
    store.replace(segment, data[:-30] + bytes(30))
    with pytest.raises(DamagedError, match="jivs verify"):
        asked(app, archive, "select sum(f) from wide")
    assert jivs("verify", archive).returncode == 3
    store.delete(segment)
    with pytest.raises(DamagedError, match="not in s3://"):
        asked(app, archive, "select sum(f) from wide")


def test_json_of_a_store_that_cannot_be_reached(objects: S3Server, bucket: str, tmp_path: Path) -> None:
    done = jivs("inspect", "s3://no-such-bucket/x", "--output", "json")
    assert done.returncode == 5
    assert json.loads(done.stdout)["error"]["kind"] == "StoreError"


def test_the_service_keeps_its_archives_in_the_bucket(objects: S3Server, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,name\n1,x\n2,y\n")
    given = {"STORAGE_PROVIDER": "s3", "AWS_S3_BUCKET": bucket, "JIVS_S3_PREFIX": "of/the/service", **objects.settings}
    with ServiceProcess(tmp_path / "state", JIVS_FILE_ROOTS=str(tmp_path), **given) as service, service.client() as client:
        body = {"name": "files", "sourceType": "FILE", "connectionConfig": {"url": f"file://{tmp_path}/a.csv"}}
        made = client.post("/api/v1/extractions", json=body)
        assert made.status_code == 201, made.text
        path = made.headers["Location"]
        assert client.post(f"{path}/start").status_code == 202
        runs: list[dict[str, object]] = []

        def ended() -> bool:
            runs[:] = client.get(f"{path}/runs").json()["items"]
            return runs[0]["state"] in {"COMPLETED", "FAILED", "INCOMPLETE"}

        wait_for(ended, 60)
        assert runs[0]["state"] == "COMPLETED", runs
        assert objects.secret not in "".join(service.printed)
    archive = f"s3://{bucket}/of/the/service/files"
    assert archives.verdict(archive).sound
