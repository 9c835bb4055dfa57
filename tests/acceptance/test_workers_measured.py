"""What an operator sees of workers: in the service's scrape, in the log, in traces, and of workers on their own."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from jivs.backends.metrics import families as known
from jivs.testing.metrics import samples, value
from jivs.testing.servers import wait_for
from jivs.testing.service import ServiceProcess
from tests.acceptance.test_tracing import Receiver, attributes

API = "/api/v1/extractions"
ROWS = 50_000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    with sqlite3.connect(folder / "s.db") as connection:
        connection.execute("create table t (id integer primary key, name text)")
        connection.executemany("insert into t values (?, ?)", ((number, f"n{number}") for number in range(ROWS)))
    connection.close()
    return folder


def begin(api: httpx.Client, data: Path, name: str, **more: object) -> str:
    """A run of a new extraction; the run's path."""
    body = {"name": name, "sourceType": "SQLITE", "connectionConfig": {"database": str(data / "s.db")}, **more}
    path = api.post(API, json=body).headers["Location"]
    return str(api.post(f"{path}/start").headers["Location"])


def state(api: httpx.Client, run: str) -> str:
    return str(api.get(run).json()["state"])


def test_one_scrape_tells_of_every_worker(tmp_path: Path, data: Path) -> None:
    with ServiceProcess(tmp_path, JIVS_FILE_ROOTS=str(data)) as service, service.client() as api:

        def told(name: str, **labels: str) -> float | None:
            return value(api.get("/actuator/prometheus").text, name, **labels)

        def workers() -> set[int]:
            found = samples(api.get("/actuator/prometheus").text)
            labels = [dict(key[1]) for key in found if key[0] == "jivs_process_start_time_seconds"]
            return {int(one["pid"]) for one in labels if one["process"] == "worker"}

        run = begin(api, data, "one", verify="full")
        wait_for(lambda: state(api, run) == "COMPLETED", 60)
        wait_for(lambda: told("extraction_records_total") == ROWS, 5)
        assert told("jivs_run_duration_seconds_count", kind="extract", state="COMPLETED") == 1
        wait_for(lambda: told("jivs_runs", state="COMPLETED") == 1, 10)
        assert told("extraction_threads_active") == 0
        assert (told("extraction_duration_count") or 0) >= 3
        assert told("jivs_catalog_connections", process="worker", state="idle") is not None
        next((tmp_path / "jivs" / "archives" / "one").rglob("*.parquet")).write_bytes(b"")
        verdict = api.post("/api/v1/archives/one/verify", json={"level": "files"}).json()
        assert verdict["sound"] is False
        assert told("jivs_verification_failures_total") == verdict["found"]
        slow = begin(api, data, "slow")
        with sqlite3.connect(tmp_path / "jivs" / "catalog.db", timeout=20) as catalog:
            catalog.execute("update sources set max_rows_per_second = 100")
        again = begin(api, data, "again")
        wait_for(lambda: "RUNNING" in {state(api, slow), state(api, again)}, 30)
        wait_for(lambda: (told("extraction_threads_active") or 0) > 0, 10)
        before = workers()
        assert before
        mine = os.getpriority(os.PRIO_PROCESS, service.process.pid)
        assert {os.getpriority(os.PRIO_PROCESS, pid) - mine for pid in before} == {10}, "they stand back"
        for process in before:
            os.kill(process, signal.SIGKILL)
        wait_for(lambda: not workers() & before, 10)
        assert (told("extraction_records_total") or 0) >= ROWS
        assert told("jivs_run_duration_seconds_count", kind="extract", state="COMPLETED") in {1, 2}


def test_an_api_that_is_started_again_has_forgotten_nothing(tmp_path: Path, data: Path) -> None:
    with ServiceProcess(tmp_path, JIVS_FILE_ROOTS=str(data)) as service, service.client() as api:
        run = begin(api, data, "one")
        wait_for(lambda: state(api, run) == "COMPLETED", 60)
        before = api.get("/actuator/prometheus").text
        found = [dict(key[1]) for key in samples(before) if key[0] == "jivs_process_start_time_seconds"]
        (process,) = [int(one["pid"]) for one in found if one["process"] == "api"]
        os.kill(process, signal.SIGKILL)

        def answers() -> bool:
            with httpx.Client(base_url=service.url) as client:
                try:
                    return client.get("/actuator/health").status_code == 200
                except httpx.HTTPError:
                    return False

        wait_for(answers, 20)
        time.sleep(1.5)
        with httpx.Client(base_url=service.url) as client, httpx.Client(base_url=service.management) as private:
            after = client.get("/actuator/prometheus").text
            assert private.get("/actuator/pools").status_code == 200  # at the same port
        counters = [key for key in samples(before) if key[0].endswith(("_count", "records_total"))]
        fallen = [key for key in counters if samples(after)[key] < samples(before)[key]]
        assert [key for key in fallen if not key[0].startswith("python")] == []
        assert value(after, "extraction_records_total") == ROWS


def test_answers_come_at_once(tmp_path: Path) -> None:
    """Headers and body are two small writes: without TCP_NODELAY the second waits 40 ms for the client's ACK."""
    with ServiceProcess(tmp_path) as service:
        for url in (service.url, service.management):
            with httpx.Client(base_url=url) as client:
                took = []
                for _ in range(25):
                    began = time.monotonic()
                    client.get("/actuator/info")
                    took.append(time.monotonic() - began)
                assert sorted(took)[5] < 0.03


def test_a_run_is_a_span_and_a_name_in_the_log(tmp_path: Path, data: Path) -> None:
    receiver = Receiver()
    given = {
        "JIVS_FILE_ROOTS": str(data), "LOG_LEVEL": "INFO", "LOG_FORMAT": "json", "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
    }  # fmt: skip
    with ServiceProcess(tmp_path, **given) as service, service.client() as api:
        run = begin(api, data, "one")
        wait_for(lambda: state(api, run) == "COMPLETED", 60)
        wait_for(lambda: bool(receiver.named("run")), 10)
    receiver.close()
    run_id = run.rpartition("/")[2]
    (span,) = receiver.named("run")
    assert attributes(span) == {
        "run.id": run_id,
        "run.kind": "extract",
        "run.epoch": 1,
        "run.state": "COMPLETED",
        "source": "one",
    }
    lines = [json.loads(line) for line in service.printed if line.startswith("{")]
    mine = [line for line in lines if line.get("runId") == run_id]
    assert {line["logger"] for line in mine} >= {"jivs.operations.extract"}
    assert {line["traceId"] for line in mine} == {span.trace_id.hex()}


def test_workers_on_their_own_answer_too(tmp_path: Path, data: Path) -> None:
    """As on a second machine: a process beside the same catalog, with a listener of its own."""
    with ServiceProcess(tmp_path, JIVS_FILE_ROOTS=str(data)) as service, service.client() as api:
        command = ["env", f"XDG_STATE_HOME={tmp_path}", f"JIVS_FILE_ROOTS={data}", "MANAGEMENT_PORT=0"]
        process = subprocess.Popen([*command, sys.executable, "-m", "jivs", "worker"], stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        try:
            url = ""
            for line in process.stderr:
                if match := re.match(r"Management is at (\S+)", line):
                    url = match[1]
                    break
            threading.Thread(target=process.stderr.read, daemon=True).start()
            with httpx.Client(base_url=url) as client:
                wait_for(lambda: 'process="worker"' in client.get("/actuator/prometheus").text, 20)
                assert client.get("/actuator/health/readiness").status_code == 200
                first = client.get("/actuator/prometheus").text
                assert {family.name for family in known.COMPUTED} <= {name for name, _ in samples(first)}
                assert value(first, "extraction_batch_size") == 0
                wait_for(
                    lambda: value(client.get("/actuator/prometheus").text, "hikaricp_connections", pool="HikariPool-1") == 2,
                    5,
                )
                assert client.get("/actuator/health").json()["components"]["db"]["details"]
                assert client.get("/api/v1/extractions").status_code == 404
                runs = [begin(api, data, f"x{number}") for number in range(4)]
                wait_for(lambda: all(state(api, run) == "COMPLETED" for run in runs), 60)

                def counted() -> float:
                    both = (one.get("/actuator/prometheus").text for one in (client, api))
                    return sum(value(text, "extraction_records_total") or 0 for text in both)

                wait_for(lambda: counted() == 4 * ROWS, 10)
        finally:
            process.terminate()
            process.wait(30)
            process.stderr.close()
        assert process.returncode == 0
