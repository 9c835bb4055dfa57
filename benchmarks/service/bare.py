"""What the same load takes where nothing is looked up: the least that a machine and Python's servers allow in this hour.

``uvicorn`` answers with bytes that are there; ``framework`` is FastAPI's own way, which checks and writes out what it has in memory.
Neither knows users, limits, logs, metrics or a catalog.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from jivs.testing.servers import free_port, wait_for

ITEMS = 20
_SHOWN = {f"field{number}": "a text of some length" for number in range(20)}


class One(BaseModel):
    """As many fields as an extraction has."""

    id: int = 1
    name: str = "x"
    source: int = 1
    tables: list[str] = Field(default_factory=list)
    rest: dict[str, str] = Field(default_factory=lambda: dict(_SHOWN))


class Page(BaseModel):
    """A list."""

    items: list[One]
    following: int | None = None


framework = FastAPI()
_BODY = Page(items=[One() for _ in range(ITEMS)]).model_dump_json().encode()
_LENGTH = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]


@framework.get("/api/v1/extractions")
def some(limit: int = 20, cursor: int = 0) -> Page:
    """A list."""
    return Page(items=[One(id=cursor + number) for number in range(limit)])


@framework.get("/api/v1/extractions/{number}")
def one(number: int) -> One:
    """One."""
    return One(id=number)


@framework.post("/api/v1/extractions", status_code=201)
def make(body: One) -> One:
    """The same again."""
    return body


async def uvicorn(scope: Any, receive: Any, send: Any) -> None:
    """A list, whatever is asked for."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _LENGTH})
    await send({"type": "http.response.body", "body": _BODY})


@contextmanager
def serving(application: str) -> Iterator[tuple[str, int]]:
    """The address and the process of one of the two."""
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "uvicorn", f"benchmarks.service.bare:{application}", "--port", str(port), "--backlog", "512",
            "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning", "--lifespan", "off",
        ]
    )  # fmt: skip
    try:
        wait_for(lambda: _listens(port), 30)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
