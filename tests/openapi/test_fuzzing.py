"""The whole API against its own document, by Schemathesis: no request brings an error of the server or an answer that is
not in the document.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from jivs.testing.service import ServiceProcess

HERE = Path(__file__).parent
SECRET = "only for tests, and for nothing else at all"
PASSWORD = "seven brown foxes dig"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    """A service with an archive, that reaches one folder of files and no address at all."""
    files = tmp_path / "files"
    files.mkdir()
    with sqlite3.connect(files / "sales.db") as connection:
        connection.execute("create table orders (id integer primary key, status text)")
        connection.executemany("insert into orders values (?, ?)", [(number, "paid") for number in range(30)])
    settings = {
        "JIVS_FILE_ROOTS": str(files),
        "JIVS_NETWORKS": "127.66.66.66/32",
        "STORAGE_LOCAL_PATH": str(tmp_path / "archives"),
        "JWT_SECRET": SECRET,
        "ENCRYPTION_KEY": "A" * 43 + "=",
    }
    with ServiceProcess(tmp_path / "state", **settings) as running, running.client() as client:
        other = client.post("/api/v1/users", json={"username": "other", "password": PASSWORD, "roles": ["VIEWER"]})
        told = {
            "secret": SECRET,
            "id": 1,
            "username": "admin",
            "generation": generation(client),
            "other": other.json()["id"],
        }
        (tmp_path / "told.json").write_text(json.dumps(told), encoding="utf-8")
        source = client.post("/api/v1/sources", json={"name": "sales", "url": f"sqlite:///{files}/sales.db"})
        extraction = {"name": "orders", "sourceId": source.json()["id"], "archive": "sales"}
        path = client.post("/api/v1/extractions", json=extraction).headers["Location"]
        client.post(f"{path}/start")
        end = time.monotonic() + 60
        while client.get(path).json()["status"] != "COMPLETED":
            assert time.monotonic() < end, client.get(f"{path}/runs").text
            time.sleep(0.05)
        client.post("/api/v1/schedules", json={"name": "nightly", "extractionId": 1, "cron": "30 2 * * *"})
        yield running


def generation(client: httpx.Client) -> int:
    """Of the account that is logged in, as its token has it."""
    claims = client.headers["Authorization"].split(".")[1]
    return int(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["gen"])


def tried(service: ServiceProcess, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Schemathesis against the service."""
    return subprocess.run(
        [Path(sys.executable).parent / "schemathesis", "--config-file", HERE / "schemathesis.toml", "run",
         f"{service.url}/v3/api-docs", "--no-color", "--continue-on-failure", *arguments],
        cwd=folder, env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.openapi.hooks", "PYTHONPATH": str(HERE.parent.parent)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def shown(done: subprocess.CompletedProcess[str], service: ServiceProcess) -> str:
    errors = "".join(line for line in service.printed if "ERROR" in line or "Traceback" in line)
    return f"{done.stdout}\n{done.stderr}\n{errors}"


def test_every_answer_is_in_the_document(service: ServiceProcess, tmp_path: Path) -> None:
    done = tried(service, tmp_path, "--max-examples", "5", "--seed", "1", "--phases", "coverage,fuzzing,stateful")
    assert done.returncode == 0, shown(done, service)
    unreached = re.findall(
        r"^  - (\w+ /\S+)$", done.stdout.partition("401 Unauthorized")[2].partition("💡")[0], re.MULTILINE
    )
    assert set(unreached) <= {"POST /api/v1/auth/login", "POST /api/v1/auth/refresh"}  # nobody guesses what they ask for


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_answer_is_in_the_document_however_long_it_is_tried(service: ServiceProcess, tmp_path: Path) -> None:
    done = tried(service, tmp_path, "--max-examples", "300", "--seed", str(time.time_ns() % 2**31))
    assert done.returncode == 0, shown(done, service)
