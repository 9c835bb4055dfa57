"""A service with archives on its shelf, and who is logged in there."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from jivs.testing.service import ServiceProcess
from tests.acceptance.archives.scene import (
    CANARY,
    ODD,
    SECONDS,
    extract,
    login,
)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives: sales (two states), other (a canary), large (one of many megabytes)."""
    folder = tmp_path_factory.mktemp("secret-place")
    shelf = folder / "shelf"
    shelf.mkdir()
    sales = folder / "sales.db"
    with sqlite3.connect(sales) as connection:
        connection.execute("create table orders (id integer primary key, customer text, cents integer)")
        connection.executemany(
            "insert into orders values (?, ?, ?)", ((n, f"customer {n % 7}", n * 100) for n in range(3000))
        )
        connection.execute("create table empty (a text)")
    extract(f"sqlite:///{sales}", shelf / "sales")
    with sqlite3.connect(sales) as connection:
        connection.execute("delete from orders where id >= 1000")
    extract(f"sqlite:///{sales}", shelf / "sales")
    with sqlite3.connect(folder / "other.db") as connection:
        connection.execute("create table hidden as select ? as word", (CANARY,))
        connection.execute(f"create table {ODD} as select 7 as a")
    extract(f"sqlite:///{folder / 'other.db'}", shelf / "other")
    with sqlite3.connect(folder / "large.db") as connection:
        connection.execute("create table noise (id integer primary key, bytes blob)")
        connection.executemany("insert into noise values (?, ?)", ((n, os.urandom(64 << 10)) for n in range(400)))
    extract(f"sqlite:///{folder / 'large.db'}", shelf / "large")
    for name in ("canary.txt", "canary.csv", "canary.json"):
        (folder / name).write_text(CANARY)
    (shelf / "sales" / "tmp").mkdir(exist_ok=True)
    (shelf / "sales" / "tmp" / "canary.parquet").write_text(CANARY)
    return shelf


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, shelf: Path) -> Iterator[ServiceProcess]:
    given = {
        "STORAGE_LOCAL_PATH": str(shelf),
        "JIVS_QUERY__SECONDS": str(SECONDS),
        "JIVS_QUERY__MEMORY": "256MiB",
        "JWT_SECRET": f"{CANARY} {'x' * 40}",
        "MY_PASSWORD": CANARY,
    }
    with ServiceProcess(tmp_path_factory.mktemp("service"), **given, workers=False) as running:
        yield running


@pytest.fixture(scope="module")
def admin(service: ServiceProcess) -> Iterator[httpx.Client]:
    with login(service, "admin", service.password) as client:
        yield client
