"""The command line: the whole job, wrong input, exit codes, no secrets, no tracebacks."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from jivs.testing.servers import PASSWORD
from jivs.testing.service import ServiceProcess
from tests import archives

JIVS = [sys.executable, "-m", "jivs"]
GOLDEN = Path(__file__).parent.parent / "golden"


def jivs(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*JIVS, *arguments], capture_output=True, text=True, check=False, cwd=cwd, env={**os.environ, **environment}
    )


@pytest.fixture
def db(tmp_path: Path) -> str:
    connection = sqlite3.connect(tmp_path / "s.db")
    connection.execute("create table t (id integer primary key, v text)")
    connection.executemany("insert into t values (?, ?)", ((n, f"value {n}") for n in range(50)))
    connection.execute('create table "[red]x[/]" (a int)')
    connection.execute("create view w as select * from t")
    connection.commit()
    connection.close()
    return f"sqlite:///{tmp_path / 's.db'}"


def test_demo(tmp_path: Path) -> None:
    done = jivs("demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "The flipped bit was found." in done.stdout
    assert "COMPLETED, level full" in done.stdout
    assert "leaked" not in done.stderr
    assert jivs("demo", cwd=tmp_path).returncode == 0
    told = json.loads(jivs("demo", "--output", "json", cwd=tmp_path).stdout)
    assert (told["extraction"]["state"], told["flipped_bit_found"]) == ("COMPLETED", True)
    (tmp_path / "mine").mkdir()
    refused = jivs("demo", "--to", "mine", cwd=tmp_path)
    assert refused.returncode == 2
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_service_that_says_all_as_json(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path, "serve", "--port", "0", "--output", "json") as service:
        lines = [json.loads(line) for line in service.printed]
    first = next(line for line in lines if line.get("event") == "first-user")
    assert set(first) == {"event", "username", "password"}
    assert any("JiVS is at" in str(line) for line in lines)


def test_the_whole_job_from_discover_to_query(db: str, tmp_path: Path) -> None:
    archive = str(tmp_path / "archive")
    assert "view" in jivs("discover", db).stdout
    planned = jivs("plan", db, "--to", archive)
    assert planned.returncode == 0
    assert "Nothing was read or written" in planned.stdout
    assert not Path(archive).exists()
    done = jivs("extract", db, "--to", archive, "--verify", "full")
    assert done.returncode == 0, done.stderr
    assert "[red]x[/]" in done.stdout
    noted = re.search(r"--expect ([0-9a-f]{64})", done.stdout)
    assert noted is not None
    assert jivs("verify", archive, "--level", "full", "--source", db, "--expect", noted[1]).returncode == 0
    assert jivs("verify", archive, "--expect", "0" * 64).returncode == 3
    assert "t" in jivs("inspect", archive, "--columns").stdout
    asked = jivs("query", archive, "select * from t where id = 7")
    assert "value 7" in asked.stdout
    assert asked.stderr == ""
    connection = sqlite3.connect(tmp_path / "s.db")
    connection.execute("update t set v = 'other' where id = 3")
    connection.commit()
    differs = jivs("verify", archive, "--level", "full", "--source", db)
    assert differs.returncode == 3
    assert "row id=3: column v differs" in differs.stdout
    assert "SOUND, the source differs now" in differs.stdout
    again = jivs("extract", db, "--to", archive)
    assert "Manifest 2" in again.stdout
    assert "value 3" in jivs("query", archive, "select v from t where id = 3", "--as-of", "1").stdout
    assert "other" in jivs("query", archive, "select v from t where id = 3").stdout


@pytest.mark.parametrize("verb", ["discover", "plan", "extract", "verify", "inspect", "query"])
def test_json_output_is_json(db: str, tmp_path: Path, verb: str) -> None:
    archive = str(tmp_path / "archive")
    assert jivs("extract", db, "--to", archive).returncode == 0
    arguments = {
        "discover": [db], "plan": [db, "--to", archive], "extract": [db, "--to", archive], "verify": [archive],
        "inspect": [archive], "query": [archive, "select * from t limit 1"],
    }[verb]  # fmt: skip
    done = jivs(verb, *arguments, "--output", "json")
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    failed = jivs(verb, *([arguments[0] + "/nowhere", *arguments[1:]]), "--output", "json")
    assert failed.returncode == 2
    assert json.loads(failed.stdout)["error"]["exit_code"] == 2


WRONG = [
    (["extract", "nonsense", "--to", "{a}"], 2, "not a connection URL"),
    (["extract", "foo://x/y", "--to", "{a}"], 2, "No connector for foo://"),
    (["extract", "sqlite:///nowhere.db", "--to", "{a}"], 2, "There is no SQLite file"),
    (["extract", "{db}?nope=1", "--to", "{a}"], 2, "Possible are: timeout"),
    (["extract", "{db}", "--to", "{a}", "--table", "nope"], 2, "No table matches 'nope'"),
    (["extract", "{db}", "--to", "{a}", "--exclude", "*"], 2, "no table to extract"),
    (["extract", "{db}", "--to", "{a}", "--columns", "nope", "--table", "t"], 2, "has no column nope"),
    (["extract", "{db}", "--to", "{a}", "--query", "x"], 2, "--query needs a name"),
    (["extract", "{db}", "--to", "{a}", "--query", "x=delete from t"], 2, "Only one SELECT"),
    (["extract", "{db}", "--to", "{a}", "--resume"], 2, "nothing to resume"),
    (["extract", "{db}", "--to", "gs://bucket/x"], 2, "No store for gs://"),
    (["extract", "file://{here}/nowhere.csv", "--to", "{a}"], 2, "There is no file"),
    (["extract", "file://{here}/not.parquet", "--to", "{a}"], 2, "not a readable Parquet file"),
    (["extract", "sqlite:///{here}/not.parquet", "--to", "{a}"], 2, "no SQLite database"),
    (["extract", "postgresql://u:{pw}@127.0.0.1:1/x", "--to", "{a}"], 5, "cannot be reached"),
    (["extract", "postgresql://u:{pw}@no.such.host.invalid/x", "--to", "{a}"], 5, "cannot be reached"),
    (["extract", "mariadb://u:{pw}@127.0.0.1:1/x", "--to", "{a}"], 5, "cannot be reached"),
    (["extract", "postgresql://u:{pw}@[bad/x", "--to", "{a}"], 2, "cannot be read"),
    (["extract", "postgresql://u:${{NOT_SET}}@h/x", "--to", "{a}"], 2, "NOT_SET"),
    (["extract", "postgresql://u:12/{pw}@127.0.0.1:1/x", "--to", "{a}"], 2, "has an @, # or ;"),
    (["extract", "postgresql://u:12?{pw}@127.0.0.1:1/x", "--to", "{a}"], 2, "has an @, # or ;"),
    (["extract", "postgresql://u:12#{pw}@127.0.0.1:1/x", "--to", "{a}"], 2, "has an @, # or ;"),
    (["extract", "jdbc:postgresql://127.0.0.1:1/x;password={pw}", "--to", "{a}"], 2, "has an @, # or ;"),
    (["extract", "{db}", "--to", "{here}/not.parquet"], 2, "is not a folder"),
    (["extract", "{db}", "--to", "{here}/not.parquet/x"], 2, "is not a folder"),
    (["extract", "oracle://u:{pw}@h/x", "--to", "{a}"], 2, "Available:"),
    (["verify", "{here}"], 2, "is not a JiVS archive"),
    (["verify", "nowhere"], 2, "is not a JiVS archive"),
    (["inspect", "{here}"], 2, "is not a JiVS archive"),
    (["query", "{here}", "select 1"], 2, "is not a JiVS archive"),
    (["verify", "{golden}", "--source", "{db}"], 2, "--level count or --level full"),
    (["verify", "{golden}", "--level", "full", "--source", "{db}"], 2, "no table of a source named s"),
    (["inspect", "{golden}", "--as-of", "9"], 2, "no manifest 9"),
    (["query", "{golden}", "drop table a"], 2, "Only one SELECT"),
    (["query", "{golden}", "select 1; select 2"], 2, "Only one SELECT"),
    (["query", "{golden}", "select nope from a"], 2, "The query failed"),
    (["query", "{golden}", "selec"], 2, "cannot be read"),
    (["query", "{golden}", "copy a to 'x.csv'"], 2, "Only one SELECT"),
    (["query", "{golden}", "select * from read_csv('/etc/passwd')"], 2, "disabled"),
    (["query", "{golden}", "select * from '/etc/passwd'"], 2, "failed"),
    (["query", "{golden}", "select * from read_text('https://127.0.0.1:1/x')"], 2, "failed"),
    (["query", "{golden}", "set enable_external_access = true"], 2, "Only one SELECT"),
    (["query", "{golden}", "attach 'x.db'"], 2, "Only one SELECT"),
    (["query", "{golden}", "install httpfs"], 2, "Only one SELECT"),
    (["extract"], 2, "Missing argument"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"), WRONG, ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None
)
def test_wrong_input_is_answered_with_a_sentence(
    db: str, tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    (tmp_path / "not.parquet").write_text("PAR1 no")
    names = {"a": str(tmp_path / "a"), "db": db, "here": str(tmp_path), "pw": "s3cr3t-pw", "golden": str(GOLDEN / "sound")}
    done = jivs(*(argument.format(**names) for argument in arguments), cwd=tmp_path)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert sentence in " ".join(done.stderr.replace("│", "").split())
    assert "Traceback" not in done.stderr
    assert "s3cr3t-pw" not in done.stdout + done.stderr
    left = [path for path in (tmp_path / "a").rglob("*") if path.is_file()] if (tmp_path / "a").exists() else []
    assert left == [], "something was left half-made"


def test_unreadable_folders(db: str, tmp_path: Path) -> None:
    """As a user without rights: root may read everything."""
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o000)
    as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    shared = Path("/tmp/jivs-unreadable-home")
    shared.mkdir(exist_ok=True)
    shared.chmod(0o777)
    for arguments, status, sentence in (
        (["extract", f"file://{closed}", "--to", str(shared / "x")], 2, "cannot be read"),
        (["extract", "file:///etc/hostname?format=csv", "--to", str(closed / "archive")], 5, "access is denied"),
    ):
        done = subprocess.run(
            [*as_user, *JIVS, *arguments], capture_output=True, text=True, check=False, cwd="/",
            env={**os.environ, "HOME": str(shared), "XDG_STATE_HOME": str(shared / "state")},
        )  # fmt: skip
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
    closed.chmod(0o755)
    shutil.rmtree(shared, ignore_errors=True)


def test_no_secret_is_ever_shown_or_kept(pg: str, tmp_path: Path, state: Path) -> None:
    """Right and wrong passwords, at the loudest log level, in everything printed and in every file written."""
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute("create table t as select 1 as a")
    archive = tmp_path / "archive"
    printed = ""
    for arguments in (
        ["extract", pg, "--to", str(archive), "--verify", "full"],
        ["extract", pg, "--to", str(archive), "--output", "json", "--progress", "log"],
        ["verify", str(archive), "--level", "full", "--source", pg],
        ["discover", pg, "--columns"],
        ["plan", pg, "--to", str(archive)],
        ["inspect", str(archive), "--output", "json"],
        ["extract", pg.replace(PASSWORD, PASSWORD + "x"), "--to", str(archive)],
        ["extract", pg + "?sslmode=nonsense", "--to", str(archive)],
        ["extract", pg.replace("postgresql", "mariadb"), "--to", str(archive)],
        ["extract", pg, "--to", str(archive), "--query", "q=select 1/0 as a"],
    ):
        done = jivs(*arguments, JIVS_LOG_LEVEL="DEBUG")
        assert "Traceback" not in done.stderr, arguments
        printed += done.stdout + done.stderr
    assert PASSWORD not in printed
    for folder in (archive, state):
        for path in folder.rglob("*"):
            if path.is_file():
                assert PASSWORD.encode() not in path.read_bytes(), path


def test_a_secret_can_come_from_the_environment(pg: str, tmp_path: Path) -> None:
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute("create table t as select 1 as a")
    url = pg.replace(PASSWORD, "${SOURCE_PW}")
    assert jivs("extract", url, "--to", str(tmp_path / "a"), SOURCE_PW=PASSWORD).returncode == 0
    refused = jivs("extract", url, "--to", str(tmp_path / "a"), SOURCE_PW="wrong")
    assert refused.returncode == 2
    assert "refused the login of user jivs" in refused.stderr


def test_jdbc_urls_and_driver_suffixes(pg: str, tmp_path: Path) -> None:
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute("create table t as select 1 as a")
    address = pg[pg.index("@") + 1 :]
    for url in (f"jdbc:postgresql://{address}?user=jivs&password={PASSWORD}", pg.replace("://", "+psycopg://")):
        assert jivs("extract", url, "--to", str(tmp_path / "a")).returncode == 0


def test_exit_codes_of_runs_that_end_incomplete(pg: str, tmp_path: Path) -> None:
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute("create table t as select 'NaN'::numeric(5,2) as a")
    assert jivs("extract", pg, "--to", str(tmp_path / "a")).returncode == 0
    quarantined = jivs("extract", pg, "--to", str(tmp_path / "a"), "--fail-on-quarantine")
    assert quarantined.returncode == 3
    assert "1 values" in quarantined.stdout


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("JIVS_EXTRACTION__MEMORY_LIMIT", "lots", "JIVS_EXTRACTION__MEMORY_LIMIT"),
        ("JIVS_EXTRACTION__MEMORY_LIMIT", "10M", "JIVS_EXTRACTION__MEMORY_LIMIT"),
        ("EXTRACTION_PARALLEL_THREADS", "0", "PARALLEL_THREADS"),
        ("JIVS_LOG_LEVEL", "LOUD", "JIVS_LOG_LEVEL"),
        ("DATABASE_URL", "postgresql://u:s3cr3t@127.0.0.1:1/d", "cannot be used"),
        ("DATABASE_URL", "mysql://u:s3cr3t@h/d", "no catalog can be in mysql"),
        ("DATABASE_URL", "sqlite:////proc/nope/catalog.db", "cannot be used"),
    ],
)
def test_settings_that_cannot_work(db: str, tmp_path: Path, name: str, value: str, sentence: str) -> None:
    done = jivs("extract", db, "--to", str(tmp_path / "a"), **{name: value})
    assert done.returncode in {2, 5}
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert "s3cr3t" not in done.stderr


def test_settings_of_the_guide_and_of_the_file(db: str, tmp_path: Path) -> None:
    (tmp_path / "jivs.toml").write_text("[extraction]\nbatch_size = 7\nparallel_threads = 3\n")
    shown = json.loads(jivs("config", "show", "--output", "json", cwd=tmp_path, EXTRACTION_PARALLEL_THREADS="2").stdout)
    values = {row["setting"]: row["value"] for row in shown}
    assert values["JIVS_EXTRACTION__BATCH_SIZE"] == 7
    assert values["JIVS_EXTRACTION__PARALLEL_THREADS"] == 2
    assert jivs("config", "schema").returncode == 0


def test_output_into_a_closed_pipe(db: str, tmp_path: Path) -> None:
    assert jivs("extract", db, "--to", str(tmp_path / "a")).returncode == 0
    command = f"{' '.join(JIVS)} query {tmp_path / 'a'} 'select * from t cross join range(1000)' --output json | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)


def test_colours_are_left_out_when_asked(db: str) -> None:
    assert "\x1b[" not in jivs("discover", db, NO_COLOR="1").stdout


def test_the_same_name_for_another_database_is_refused(db: str, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    shutil.copy(tmp_path / "s.db", other / "s.db")
    archive = str(tmp_path / "archive")
    assert jivs("extract", db, "--to", archive).returncode == 0
    refused = jivs("extract", f"sqlite:///{other / 's.db'}", "--to", archive)
    assert refused.returncode == 2
    assert "--source-name" in refused.stderr
    assert jivs("extract", f"sqlite:///{other / 's.db'}", "--to", archive, "--source-name", "second").returncode == 0
    assert {item["source"] for item in archives.manifest(Path(archive))["tables"]} == {"s", "second"}
    assert jivs("query", archive, 'select count(*) from "second".t').returncode in {0, 2}


def test_version_says_which_readers_are_in_use() -> None:
    assert re.fullmatch(r"jivs \d+\.\d+\.\d+ \((compiled|pure Python) readers.*\)\n", jivs("--version").stdout)
