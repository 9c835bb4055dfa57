"""A Python client that is generated from the document works: from the login to what was extracted."""

from __future__ import annotations

import importlib
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from jivs.testing.service import ServiceProcess

ROOT = Path(__file__).parent.parent.parent
PACKAGE = "jivs_client"
GENERATOR = Path(sys.executable).parent.parent / "generator" / "bin" / "openapi-python-client"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    settings = {"JIVS_FILE_ROOTS": str(tmp_path), "STORAGE_LOCAL_PATH": str(tmp_path / "archives")}
    with ServiceProcess(tmp_path / "state", **settings) as running:
        yield running


@pytest.fixture
def client(service: ServiceProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The generated package. Whatever the generator cannot make code of fails the test."""
    (tmp_path / "document.json").write_bytes(httpx.get(f"{service.url}/v3/api-docs").content)
    (tmp_path / "config.json").write_text(json.dumps({"post_hooks": []}), encoding="utf-8")
    done = subprocess.run(
        [GENERATOR, "generate", "--path", "document.json", "--config", "config.json",
         "--meta", "none", "--output-path", PACKAGE, "--fail-on-warning"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module(PACKAGE)
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def test_it_does_what_a_user_does(service: ServiceProcess, client: ModuleType, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "sales.db") as connection:
        connection.execute("create table orders (id integer primary key, status text)")
        connection.executemany("insert into orders values (?, ?)", [(number, "paid") for number in range(40)])
    models = importlib.import_module(f"{PACKAGE}.models")

    def call(tag: str, name: str, *given: object, **named: object) -> object:
        operation = importlib.import_module(f"{PACKAGE}.api.{tag}.{name}")
        return operation.sync(*given, **named)

    anybody = client.Client(base_url=service.url)
    refused = call("auth", "log_in", client=anybody, body=models.Login(username="admin", password="wrong"))
    assert isinstance(refused, models.Problem)
    assert (refused.status, refused.type_) == (401, "urn:jivs:problem:unauthenticated")

    tokens = call("auth", "log_in", client=anybody, body=models.Login(username="admin", password=service.password))
    assert isinstance(tokens, models.Tokens)
    user = client.AuthenticatedClient(base_url=service.url, token=tokens.access_token)

    wanted = models.SourceIn(name="sales", url=f"sqlite:///{tmp_path}/sales.db")
    source = call("sources", "add_source", client=user, body=wanted)
    assert isinstance(source, models.SourceOut)
    again = call("sources", "add_source", client=user, body=wanted)
    assert isinstance(again, models.Problem)
    assert again.type_ == "urn:jivs:problem:already-exists"

    made = models.ExtractionIn(name="orders", source_id=source.id, archive="sales", verify=models.Level.FULL)
    extraction = call("extractions", "add_extraction", client=user, body=made, idempotency_key="once")
    assert isinstance(extraction, models.ExtractionOut)
    assert extraction.status == "NEW"
    same = call("extractions", "add_extraction", client=user, body=made, idempotency_key="once")
    assert same == extraction

    run = call("extractions", "start_extraction", extraction.id, client=user)
    assert isinstance(run, models.RunOut)
    end = time.monotonic() + 60
    while run.state not in {models.RunState.COMPLETED, models.RunState.FAILED, models.RunState.INCOMPLETE}:
        assert time.monotonic() < end
        time.sleep(0.05)
        run = call("extractions", "get_run", extraction.id, run.id, client=user)
        assert isinstance(run, models.RunOut)
    assert (run.state, run.rows) == (models.RunState.COMPLETED, 40)

    statistics = call("extractions", "get_extraction_statistics", extraction.id, client=user)
    assert isinstance(statistics, models.StatisticsOut)
    assert (statistics.runs, statistics.rows, statistics.success_rate) == (1, 40, 1.0)

    page = call("extractions", "list_extractions", client=user, limit=10)
    assert isinstance(page, models.ExtractionPage)
    assert [one.status for one in page.items] == ["COMPLETED"]

    archives = call("archives", "list_archives", client=user)
    assert isinstance(archives, models.ArchivePage)
    assert [(one.name, one.newest.rows) for one in archives.items] == [("sales", 40)]
    query = models.QueryIn(sql="select status, count(*) from orders group by 1")
    result = call("archives", "query_archive", "sales", client=user, body=query)
    assert isinstance(result, models.ResultOut)
    assert result.rows == [["paid", 40]]

    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    shown = text.partition("```python\n")[2].partition("```")[0]
    known: dict[str, object] = {}
    exec(shown.replace("http://localhost:8080", service.url).replace('"..."', repr(service.password)), known)
    assert known["run"].state == models.RunState.PENDING

    planned = models.ScheduleIn(name="nightly", extraction_id=extraction.id, cron="30 2 * * *", time_zone="Europe/Berlin")
    assert isinstance(call("schedules", "add_schedule", client=user, body=planned), models.ScheduleOut)
    schedules = call("schedules", "list_schedules", client=user)
    assert isinstance(schedules, models.SchedulePage)
    assert [one.name for one in schedules.items] == ["nightly"]
    assert schedules.items[0].next_run_at is not None
