"""What the tests of archives have in common."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

import jivs
from jivs.testing.service import ServiceProcess

PASSWORD = "seven brown foxes dig"
CANARY = "c4n4ry"
SECONDS = 30
ODD = '"Größe [1] %2e *?\'; ""x"""'


def extract(url: str, archive: Path, *more: str) -> None:
    command = [
        sys.executable,
        "-m",
        "jivs",
        "extract",
        url,
        "--to",
        str(archive),
        "--progress",
        "none",
        "--verify",
        "full",
        *more,
    ]
    environment = {**os.environ, "XDG_STATE_HOME": str(archive.parent.parent / "state")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextmanager
def login(service: ServiceProcess, username: str, password: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{service.url}/api/v1", timeout=60) as client:
        answer = client.post("/auth/login", json={"username": username, "password": password})
        assert answer.status_code == 200, answer.text
        client.headers["Authorization"] = f"Bearer {answer.json()['accessToken']}"
        yield client


def api_process(service: ServiceProcess) -> int:
    """The process that serves, a child of ``jivs serve``."""
    [found] = service.parts("jivs api")
    return found


def children(process: int) -> list[int]:
    """Those that do its jobs: forks of its children, which have loaded what is needed."""
    return [job for stem in _children(process) for job in _children(stem)]


def _children(process: int) -> list[int]:
    found = []
    with suppress(FileNotFoundError):  # a process or a thread that has just ended
        for task in Path(f"/proc/{process}/task").iterdir():
            with suppress(FileNotFoundError):
                found += [int(number) for number in (task / "children").read_text().split()]
    return found


def limit(process: int, name: str) -> str:
    limits = Path(f"/proc/{process}/limits").read_text().splitlines()
    return next(line for line in limits if line.startswith(name)).removeprefix(name).split()[0]


def memory(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) << 10


def open_files(process: int) -> list[str]:
    """All but connections and those of the catalog, of which there are as many as were needed at once."""
    found = []
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(entry.readlink()))
    return sorted(path for path in found if "catalog.db" not in path and not path.startswith("socket:"))


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def ask(client: httpx.Client, sql: str, name: str = "sales", **more: Any) -> httpx.Response:
    return client.post(f"/archives/{name}/query", json={"sql": sql, **more})


def rows(client: httpx.Client, sql: str, name: str = "sales", **more: Any) -> list[list[Any]]:
    answer = ask(client, sql, name, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()["rows"]


def tells_nothing(answer: httpx.Response, sql: str, text: str, service: ServiceProcess, shelf: Path) -> None:
    """No canary, and no place that the client did not name itself."""
    assert CANARY not in answer.text.replace(text, ""), sql
    for place in (
        str(shelf.parent),
        str(service.state),
        str(Path.home()),
        sys.prefix,
        str(Path(jivs.__file__).parent),
        "Traceback",
        "root:x:0",
        "secret-place",
        "pytest",
    ):
        assert place in text or place not in answer.text, (sql, place, answer.text[:500])
