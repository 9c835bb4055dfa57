"""A disaster drill on copies: back up, destroy, restore, verify, with the time that each step took.

With the embedded catalog, and with PostgreSQL where it is installed. Everything is made in a temporary folder, on loopback.
"""

from __future__ import annotations

import base64
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg

from jivs.testing.servers import PostgresServer
from jivs.testing.service import ServiceProcess

ROWS = 20_000
SECRET = "the password of a source"  # noqa: S105 - of no source


class Drill:
    """One drill: a catalog with accounts, a source with a password and two archives, the second newer than the backup."""

    def __init__(self, folder: Path, settings: dict[str, str], destroy: Callable[[], None]) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.settings = {"JIVS_FILE_ROOTS": str(folder), **settings}
        self.destroy = destroy
        self.times: list[tuple[str, float]] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure it, and say it."""
        began = time.monotonic()
        yield
        self.times.append((name, time.monotonic() - began))
        print(f"  {name:<58} {self.times[-1][1]:6.2f} s", flush=True)

    def jivs(self, *arguments: str) -> str:
        """A command; what it printed. Ends the drill if it fails."""
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "jivs", *arguments],
            env={**os.environ, "XDG_STATE_HOME": str(self.state), **self.settings},
            capture_output=True,
            text=True,
            check=False,
        )
        require(done.returncode == 0, f"jivs {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def extract(self, api: httpx.Client, name: str) -> None:
        """Make an extraction and wait until it is COMPLETED."""
        body = {"name": name, "sourceType": "SQLITE", "connectionConfig": {"database": str(self.folder / "data.db")}}
        path = api.post("/api/v1/extractions", json={**body, "verify": "full"}).headers["Location"]
        api.post(f"{path}/start").raise_for_status()
        end = time.monotonic() + 120
        while (run := newest(api, path))["state"] in {"PENDING", "RUNNING"} and time.monotonic() < end:
            time.sleep(0.05)
        require(run["state"] == "COMPLETED", f"run {run}")

    def run(self) -> None:
        """All of it."""
        backup = str(self.folder / "backup.jivs")
        make_data(self.folder / "data.db")
        with ServiceProcess(self.state, **self.settings) as service:
            password = service.password
            with service.client() as api:
                source = {"name": "s", "url": "postgresql://reader@db.example/x", "password": SECRET}
                api.post("/api/v1/sources", json=source).raise_for_status()
                self.extract(api, "older")
                with self.step("back up, while the service goes on"):
                    self.jivs("db", "backup", backup)
                self.extract(api, "newer")
        with self.step("destroy the catalog"):
            self.destroy()
        with self.step("restore it"):
            self.jivs("db", "restore", backup)
        with self.step("check it: audit trail, passwords, archives"):
            said = self.jivs("db", "check")
            require(said.splitlines()[-2].startswith("SOUND"), said)
        with (
            self.step("start the service, log in, see what was there"),
            ServiceProcess(self.state, **self.settings) as service,
        ):
            service.password = password
            with service.client() as api:
                names = [one["name"] for one in api.get("/api/v1/extractions").raise_for_status().json()["items"]]
                require(names == ["older"], f"extractions {names}")
        for name in ("older", "newer"):
            with self.step(f"verify the archive {name}"):
                self.jivs("verify", str(self.state / "jivs" / "archives" / name), "--level", "full")


def newest(api: httpx.Client, path: str) -> dict[str, Any]:
    """The newest run of an extraction."""
    found: dict[str, Any] = api.get(f"{path}/runs", params={"limit": 1}).json()["items"][0]
    return found


def require(condition: bool, what: str) -> None:
    """End the drill where it fails."""
    if not condition:
        sys.exit(f"The drill failed: {what}")


def make_data(path: Path) -> None:
    """Something to extract."""
    with sqlite3.connect(path) as connection:
        connection.execute("create table orders (id integer primary key, customer text, amount real)")
        rows = ((number, f"customer {number % 97}", number / 7) for number in range(ROWS))
        connection.executemany("insert into orders values (?, ?, ?)", rows)
    connection.close()


def embedded(folder: Path) -> Drill:
    """With the catalog that needs no service. Its keys are kept apart from it, as they must be."""
    catalog = folder / "state" / "jivs" / "catalog.db"

    def destroy() -> None:
        for file in catalog.parent.glob("catalog.db*"):
            file.unlink()

    return Drill(folder, {}, destroy)


def postgresql(folder: Path, server: PostgresServer) -> Drill:
    """With the catalog in a database of its own."""
    url = server.create("drill")

    def destroy() -> None:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("drop database drill with (force)")
            connection.execute("create database drill")

    keys = {"JWT_SECRET": os.urandom(24).hex(), "ENCRYPTION_KEY": base64.b64encode(os.urandom(32)).decode()}
    return Drill(folder, {"DATABASE_URL": url, **keys}, destroy)


def main() -> None:
    """Drill what is here."""
    with tempfile.TemporaryDirectory(prefix="jivs-drill-") as folder:
        print("Embedded catalog (SQLite):")
        embedded(Path(folder)).run()
    if not [*Path("/usr/lib/postgresql").glob("*/bin/initdb")] and shutil.which("initdb") is None:
        print("PostgreSQL is not installed here, so this was not drilled: make servers installs it.")
        return
    with tempfile.TemporaryDirectory(prefix="jivs-drill-") as folder, PostgresServer() as server:
        print("Catalog in PostgreSQL:")
        postgresql(Path(folder), server).run()
    print("All came back.")


if __name__ == "__main__":
    main()
