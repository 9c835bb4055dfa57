"""`jivs db` beside a real service: backups, what no restore takes, and what a restored catalog makes of a newer world."""

from __future__ import annotations

import base64
import gc
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from jivs.backends.catalog import tables
from jivs.cli.main import app
from jivs.domain.backup import HEADER_BYTES
from jivs.testing import upkeep
from jivs.testing.servers import PASSWORD, RedisServer, free_port
from jivs.testing.service import ServiceProcess

KEYS = {"JWT_SECRET": "s" * 40, "ENCRYPTION_KEY": base64.b64encode(b"k" * 32).decode()}
SECRET = "the password of a source"


@dataclass
class Place:
    """A catalog and the state folder of its service."""

    state: Path
    settings: dict[str, str]

    def jivs(self, *arguments: str, **more: str) -> Result:
        done = CliRunner().invoke(app, arguments, env={"XDG_STATE_HOME": str(self.state), **self.settings, **more})
        gc.collect()  # a command is a process that ends: so do its connections
        return done

    def said(self, *arguments: str, code: int = 0, **more: str) -> dict[str, Any]:
        done = self.jivs(*arguments, "--output", "json", **more)
        assert done.exit_code == code, (done.stdout, done.stderr)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def serve(self, **more: str) -> ServiceProcess:
        return ServiceProcess(self.state, **self.settings, JIVS_FILE_ROOTS="/", **more)

    def execute(self, statement: str) -> None:
        if url := self.settings.get("DATABASE_URL"):
            with psycopg.connect(url) as pg:
                pg.execute(statement)  # type: ignore[call-overload]
            return
        lite = sqlite3.connect(self.state / "jivs" / "catalog.db")
        lite.execute(statement)
        lite.commit()
        lite.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return Place(tmp_path / "state", {})
    return Place(tmp_path / "state", {"DATABASE_URL": request.getfixturevalue("pg"), **KEYS})


@pytest.fixture
def lite(tmp_path: Path) -> Place:
    return Place(tmp_path / "state", {})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with sqlite3.connect(tmp_path / "data.db") as connection:
        connection.execute("create table t (id integer primary key, v text)")
        connection.executemany("insert into t values (?, ?)", ((number, f"v{number}") for number in range(500)))
    connection.close()
    return tmp_path / "data.db"


def extraction(api: httpx.Client, name: str, data: Path) -> str:
    body = {"name": name, "sourceType": "SQLITE", "connectionConfig": {"database": str(data)}}
    made = api.post("/api/v1/extractions", json=body)
    assert made.status_code == 201, made.text
    return str(made.headers["Location"])


def last_run(api: httpx.Client, path: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"{path}/runs", params={"limit": 1}).json()["items"][0]
    return found


def completed(api: httpx.Client, path: str) -> dict[str, Any]:
    end = time.monotonic() + 60
    while (run := last_run(api, path))["state"] not in {"COMPLETED", "INCOMPLETE", "FAILED"}:
        assert time.monotonic() < end, run
        time.sleep(0.05)
    assert run["state"] == "COMPLETED", run
    return run


def manifests(place: Place, archive: str) -> list[str]:
    return sorted(path.name for path in (place.state / "jivs" / "archives" / archive / "manifests").glob("*.json"))


def test_a_catalog_from_its_making_over_a_backup_to_its_restore(place: Place, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "b.jivs"
    assert place.said("db", "upgrade")["from"] is None
    assert "already" in place.jivs("db", "upgrade").stdout
    with place.serve() as service, service.client() as api:
        source = {"name": "s", "url": "postgresql://reader@db.example/sales", "password": SECRET}
        assert api.post("/api/v1/sources", json=source).status_code == 201
        completed_before = extraction(api, "before", data)
        api.post(f"{completed_before}/start")
        completed(api, completed_before)
        made = place.said("db", "backup", str(file))
        assert (made["schema"], made["kind"]) == (tables.HEAD, "postgresql" if place.settings else "sqlite")
        assert file.stat().st_mode & 0o777 == 0o600
        for secret in (SECRET, service.password, PASSWORD):
            assert secret.encode() not in file.read_bytes()
        refused = place.jivs("db", "restore", str(file))
        assert (refused.exit_code, "in use" in refused.stderr) == (5, True), refused.stderr
        after = extraction(api, "after", data)
        api.post(f"{after}/start")
        completed(api, after)
        assert place.said("db", "check")["sound"]
        token = api.headers["Authorization"]
        password = service.password
    restored = place.said("db", "restore", str(file))
    assert Path(restored["kept"]).stat().st_mode & 0o777 == 0o600
    found = place.said("db", "check")
    assert (found["sound"], found["passwords"], found["runs"]) == (True, 1, 1), found
    with place.serve() as service:
        service.password = password
        with service.client() as api:
            names = [one["name"] for one in api.get("/api/v1/extractions").json()["items"]]
            assert names == ["before"]
            assert api.get("/api/v1/audit").json()["items"][1]["action"] == "catalog.restored"
            assert api.get("/api/v1/auth/me", headers={"Authorization": token}).status_code == 401
    assert manifests(place, "after"), "what was published is still there"
    place.said("db", "restore", restored["kept"])
    assert place.said("db", "check")["runs"] == 2


def test_what_was_published_since_the_backup_is_found_and_not_done_again(place: Place, data: Path, tmp_path: Path) -> None:
    """The older catalog has one run as PENDING and one as RUNNING; both are published. PostgreSQL is restored by plain psql."""
    file = tmp_path / "b.jivs"
    with place.serve() as service, service.client() as api:
        password = service.password
        paths = [extraction(api, name, data) for name in ("one", "two")]
        runs = [api.post(f"{path}/start").json()["id"] for path in paths]
        for path in paths:
            completed(api, path)
    back = "update runs set state = '{}', epoch = {}, ended_at = null, owner = '{}', lease_until = {} where id = '{}'"
    place.execute(back.format("PENDING", 0, "", "null", runs[0]))
    place.execute(back.format("RUNNING", 1, "elsewhere:1:x", "1.0", runs[1]))
    place.said("db", "backup", str(file))
    found = place.said("db", "check")
    assert [one["code"] for one in found["findings"]] == ["published", "published"]
    assert found["sound"]
    place.execute("delete from runs")
    if url := place.settings.get("DATABASE_URL"):
        subprocess.run(["psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", str(file), url], check=True, stdout=subprocess.DEVNULL)
    else:
        place.said("db", "restore", str(file))
    data.unlink()  # nothing can be read twice
    with place.serve() as service:
        service.password = password
        with service.client() as api:
            ended = [completed(api, path) for path in paths]
    assert [(run["id"], run["rows"]) for run in ended] == [(runs[0], 500), (runs[1], 500)]
    assert [run["failures"] for run in ended] == [0, int("DATABASE_URL" in place.settings)]
    assert [len(manifests(place, name)) for name in ("one", "two")] == [1, 1]


@pytest.fixture
def saved(lite: Place, tmp_path: Path) -> Path:
    lite.said("db", "upgrade")
    lite.said("db", "backup", str(tmp_path / "b.jivs"))
    return tmp_path / "b.jivs"


def test_what_is_no_sound_backup_is_refused_and_nothing_changes(lite: Place, saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    header, rest = whole[:HEADER_BYTES], whole[HEADER_BYTES:]
    wrong = {
        "no backup": (b"-- PostgreSQL database dump\n" * 100, 2),
        "no backup of": (b"", 2),
        "not as long": (whole[:-100], 3),
        "not as long as": (whole + b"x", 3),
        "checksum": (header + rest[:5000] + bytes([rest[5000] ^ 1]) + rest[5001:], 3),
        "upgrade JiVS": (header.replace(f'"schema": "{tables.HEAD}"'.encode(), b'"schema": "9999"') + rest, 2),
        "newer JiVS": (header.replace(b'"format": 1', b'"format": 7') + rest, 2),
        "set DATABASE_URL": (
            header.replace(b'"sqlite"', b'"postgresql"').replace(b" " * 8 + b"\n", b" " * 4 + b"\n") + rest,
            2,
        ),
    }
    before = (lite.state / "jivs" / "catalog.db").read_bytes()
    for sentence, (content, code) in wrong.items():
        bad = tmp_path / "bad.jivs"
        bad.write_bytes(content)
        done = lite.jivs("db", "restore", str(bad))
        assert (done.exit_code, sentence.split(" of")[0] in done.stderr) == (code, True), (sentence, done.stderr)
    assert lite.jivs("db", "restore", str(tmp_path / "none")).exit_code == 2
    assert (lite.state / "jivs" / "catalog.db").read_bytes() == before
    assert list(tmp_path.glob("*before*")) == []


def test_a_backup_writes_over_nothing_but_a_backup(lite: Place, saved: Path, tmp_path: Path) -> None:
    lite.said("db", "backup", str(saved))
    other = tmp_path / "letter.txt"
    other.write_text("dear Ada")
    for target in (other, tmp_path, lite.state / "jivs" / "catalog.db", lite.state / "jivs" / "catalog.db-wal"):
        assert lite.jivs("db", "backup", str(target)).exit_code == 2, target
    assert other.read_text() == "dear Ada"
    assert lite.jivs("db", "backup", str(tmp_path / "nowhere" / "b.jivs")).exit_code == 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert lite.said("db", "check")["sound"]


def test_a_damaged_catalog_is_found_and_set_aside(lite: Place, saved: Path) -> None:
    catalog = lite.state / "jivs" / "catalog.db"
    content = bytearray(catalog.read_bytes())
    content[4096 * 3 : 4096 * 5] = os.urandom(8192)
    catalog.write_bytes(content)
    assert lite.said("db", "check", code=3)["findings"][0]["code"] == "database"
    catalog.write_bytes(b"no database at all " * 1000)
    assert "damaged" in lite.jivs("db", "check").stderr
    kept = lite.said("db", "restore", str(saved))["kept"]
    assert Path(kept).read_bytes().startswith(b"no database at all")
    assert lite.said("db", "check")["sound"]


def test_a_wrong_key_is_named_and_so_is_damage(place: Place) -> None:
    place.settings |= KEYS
    other = base64.b64encode(b"x" * 32).decode()
    with place.serve() as service, service.client() as api:
        for name in ("one", "two"):
            source = {"name": name, "url": "postgresql://reader@db.example/sales", "password": SECRET}
            assert api.post("/api/v1/sources", json=source).status_code == 201
    found = place.said("db", "check", code=2, ENCRYPTION_KEY=other)
    assert [one["code"] for one in found["findings"]] == ["wrong-key", "wrong-key"]
    assert "ENCRYPTION_KEY" in found["findings"][0]["message"]
    assert SECRET not in str(found)
    assert place.said("db", "check", ENCRYPTION_KEY=f"{other},{KEYS['ENCRYPTION_KEY']}")["passwords"] == 2
    place.execute("update sources set sealed = (select sealed from sources where name = 'one') where name = 'two'")
    assert [one["code"] for one in place.said("db", "check", code=3)["findings"]] == ["password"]
    place.execute("update audit set actor = 'nobody' where seq = 2")
    assert [one["code"] for one in place.said("db", "check", code=3)["findings"]] == ["audit", "password"]
    place.execute("alter table run_logs drop column message")
    assert "remove_column" in str(place.said("db", "check", code=3)) or "add_column" in str(
        place.said("db", "check", code=3)
    )


def test_what_redis_has_of_another_catalog_is_forgotten(lite: Place, redis: RedisServer, tmp_path: Path) -> None:
    lite.settings = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(redis.port), "REDIS_PASSWORD": PASSWORD, **KEYS}
    file = str(tmp_path / "b.jivs")
    body = {"name": "older", "url": "postgresql://db.example/sales"}
    with lite.serve() as service, service.client() as api:
        password = service.password
        path = api.post("/api/v1/sources", json=body).headers["Location"]
        lite.said("db", "backup", file)
        api.put(path, json={**body, "name": "newer"}, headers={"If-Match": '"1"'})
        assert api.get(path).json()["name"] == "newer"
    lite.said("db", "restore", file)
    with lite.serve() as service:
        service.password = password
        with service.client() as api:
            assert api.get(path).json()["name"] == "older"
    away = lite.jivs("db", "restore", file, REDIS_PORT=str(free_port()))
    assert (away.exit_code, "FLUSHALL" in away.stderr) == (0, True)


def test_an_archive_that_is_gone_is_found(lite: Place, data: Path) -> None:
    with lite.serve() as service, service.client() as api:
        path = extraction(api, "sales", data)
        api.post(f"{path}/start")
        completed(api, path)
    assert lite.said("db", "check")["archives"] == 1
    shutil.rmtree(lite.state / "jivs" / "archives" / "sales" / "manifests")
    assert [one["code"] for one in lite.said("db", "check", code=3)["findings"]] == ["not-published"]
    lite.execute("delete from sources where 1 = 1")
    assert [one["code"] for one in lite.said("db", "check", code=3)["findings"]] == ["database"]


def make_older(place: Place, version: str) -> None:
    upkeep.make_older(place.settings.get("DATABASE_URL", f"sqlite:///{place.state / 'jivs' / 'catalog.db'}"), version)


def test_an_older_catalog_is_saved_as_it_is_and_brought_up_by_its_restore(place: Place, tmp_path: Path) -> None:
    (place.state / "jivs").mkdir(parents=True)
    make_older(place, "0003")
    assert place.said("db", "backup", str(tmp_path / "old.jivs"))["schema"] == "0003"
    assert [one["code"] for one in place.said("db", "check", code=3)["findings"]] == ["schema"]
    said = place.jivs("db", "upgrade").stdout
    assert f"from schema 0003 to schema {tables.HEAD}" in said
    restored = place.said("db", "restore", str(tmp_path / "old.jivs"))
    assert (restored["backup"]["schema"], restored["schema"]) == ("0003", tables.HEAD)
    assert place.said("db", "check")["sound"]
    place.execute("update alembic_version set version_num = '9999'")
    assert "newer JiVS" in place.jivs("db", "backup", str(tmp_path / "new.jivs")).stderr
    assert not (tmp_path / "new.jivs").exists()
    assert place.jivs("db", "upgrade").exit_code == 0, "it lets this version work on it"
    place.execute("update compatibility set oldest = '9998'")
    assert place.jivs("db", "upgrade").exit_code == 2


def test_the_catalogs_password_stands_on_no_command_line_and_in_no_error(pg: str, tmp_path: Path) -> None:
    """The real programs, behind one that notes how they are called."""
    noted = tmp_path / "noted"
    for name in ("pg_dump", "psql"):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\necho "$@" >> {noted}\nexec {shutil.which(name)} "$@"\n')
        script.chmod(0o755)
    found = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "JIVS_LOG_LEVEL": "DEBUG"}
    place = Place(tmp_path / "state", {"DATABASE_URL": pg, **KEYS})
    file = str(tmp_path / "b.jivs")
    done = [place.jivs("db", *words, **found) for words in (["upgrade"], ["backup", file], ["restore", file], ["check"])]
    assert [one.exit_code for one in done] == [0, 0, 0, 0]
    assert len(noted.read_text().splitlines()) == 3
    wrong = place.jivs("db", "backup", file, DATABASE_URL=pg.replace(PASSWORD, "not-it-at-all"))
    assert wrong.exit_code == 5
    (tmp_path / "bin" / "pg_dump").write_text('#!/bin/sh\necho "no luck with $PGPASSWORD" >&2\nexit 3\n')
    failed = place.jivs("db", "backup", file, **found)
    assert (failed.exit_code, "no luck with ***" in failed.stderr) == (5, True)
    said = noted.read_text() + "".join(one.stdout + one.stderr for one in [*done, wrong, failed])
    assert PASSWORD not in said
    assert "not-it-at-all" not in said
    missing = place.jivs("db", "backup", file, PATH="/nowhere")
    assert (missing.exit_code, "postgresql-client" in missing.stderr) == (2, True)


def test_a_plain_psql_reads_a_backup(pg: str, tmp_path: Path) -> None:
    place = Place(tmp_path / "state", {"DATABASE_URL": pg, **KEYS})
    place.said("db", "upgrade")
    place.said("db", "backup", str(tmp_path / "b.jivs"))
    done = subprocess.run(
        ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(tmp_path / "b.jivs"), pg], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert place.said("db", "check")["sound"]


def test_whatever_else_is_in_the_database_stays(pg: str, tmp_path: Path) -> None:
    place = Place(tmp_path / "state", {"DATABASE_URL": pg, **KEYS})
    place.said("db", "upgrade")
    place.execute("create table theirs (a int)")
    place.said("db", "backup", str(tmp_path / "b.jivs"))
    place.execute("insert into theirs values (1)")
    place.said("db", "restore", str(tmp_path / "b.jivs"))
    with psycopg.connect(pg) as connection:
        assert connection.execute("select count(*) from theirs").fetchone() == (1,)
    assert place.said("db", "check")["sound"]


@pytest.fixture
def large(lite: Place, tmp_path: Path) -> tuple[Path, int]:
    """A catalog of some size, its backup, and how many lines of logs it has; there are more since then."""
    lite.said("db", "upgrade")
    more = "insert into run_logs (run_id, extraction_id, at, level, message) select 'r', 1, 1.0, 'INFO', hex(randomblob(400)) from "
    numbers = "(with recursive n(i) as (select 1 union all select i + 1 from n where i < 15000) select i from n)"
    lite.execute(more + numbers)
    file = tmp_path / "large.jivs"
    lite.said("db", "backup", str(file))
    lite.execute(more + numbers)
    return file, 15_000


@pytest.mark.parametrize("seconds", [0.03, 0.1, 0.25])
def test_a_restore_that_is_killed_leaves_the_old_state_or_the_new_one(
    lite: Place, large: tuple[Path, int], seconds: float
) -> None:
    file, rows = large
    catalog = lite.state / "jivs" / "catalog.db"
    environment = {**os.environ, "XDG_STATE_HOME": str(lite.state)}
    process = subprocess.Popen([sys.executable, "-m", "jivs", "db", "restore", str(file)], env=environment)
    while not list(catalog.parent.glob(".catalog.db.*")) and process.poll() is None:
        time.sleep(0.002)
    time.sleep(seconds)
    process.kill()
    process.wait()
    assert lite.said("db", "check")["sound"]
    connection = sqlite3.connect(catalog)
    assert connection.execute("select count(*) from run_logs").fetchone()[0] in {rows, 2 * rows}
    connection.close()


def test_the_trail_is_verified_against_what_was_noted(place: Place) -> None:
    for name in ("anna", "bert"):
        made = CliRunner().invoke(
            app,
            ["user", "add", name, "--role", "VIEWER"],
            input="seven blue ducks swim\n",
            env={"XDG_STATE_HOME": str(place.state), **place.settings},
        )
        assert made.exit_code == 0, made.stderr
    noted = place.said("audit", "verify")
    given = ("--entries", str(noted["entries"]), "--hash", noted["hash"])
    assert noted["entries"] == 2
    assert place.said("audit", "verify", *given) == noted
    assert f"SOUND: 2 entries, hash of the last: {noted['hash']}" in place.jivs("audit", "verify").stdout
    assert place.jivs("audit", "verify", "--entries", "2").exit_code == 2
    wrong = place.jivs("audit", "verify", "--entries", "1", "--hash", noted["hash"])
    assert (wrong.exit_code, "written anew" in wrong.stderr) == (3, True), wrong.stderr
    place.execute("delete from audit where seq = 2")
    assert place.said("audit", "verify")["entries"] == 1, "what is left is whole in itself"
    cut = place.jivs("audit", "verify", *given)
    assert (cut.exit_code, "was cut: its last entry is 1, and 2 were noted" in cut.stderr) == (3, True), cut.stderr
    place.execute("update audit set actor = 'nobody' where seq = 1")
    changed = place.jivs("audit", "verify")
    assert (changed.exit_code, "entry 1" in changed.stderr) == (3, True), changed.stderr


def test_keys_are_turned_by_a_command(lite: Place) -> None:
    """Beside SQLite the keys are in a file, newest first, as ENCRYPTION_KEY has them."""
    with lite.serve() as service, service.client() as api:
        body = {"name": "s", "url": f"postgresql://u:{SECRET.replace(' ', '%20')}@127.0.0.1:{free_port()}/d"}
        assert api.post("/api/v1/sources", json=body).status_code == 201
    file = lite.state / "jivs" / "keys.json"
    kept = json.loads(file.read_text())
    assert lite.said("db", "turn-keys") == {"turned": 0, "passwords": 1}
    newest = base64.b64encode(b"n" * 32).decode()
    file.write_text(json.dumps({**kept, "sealing": newest}))
    refused = lite.jivs("db", "turn-keys")
    assert refused.exit_code == 2, (refused.stdout, refused.stderr)
    file.write_text(json.dumps({**kept, "sealing": f"{newest},{kept['sealing']}"}))
    assert "1 of 1 passwords were under an older key" in lite.jivs("db", "turn-keys").stdout
    file.write_text(json.dumps({**kept, "sealing": newest}))
    assert lite.said("db", "check")["passwords"] == 1
