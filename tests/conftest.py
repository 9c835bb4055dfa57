"""Servers that live for the whole test run, and an application of its own for every test."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, settings

from jivs import bootstrap
from jivs.backends.catalog.engine import Engine
from jivs.domain.plan import Level, Selection
from jivs.domain.source import Address, Limits
from jivs.operations.extract import extract
from jivs.operations.job import ExtractJob, Outcome, Progress
from jivs.ports.app import App
from jivs.settings import Settings
from jivs.testing.servers import MariaServer, PostgresServer, RabbitServer, RedisServer, S3Server

_numbers = itertools.count(1)


def pytest_collection_finish() -> None:
    """What is loaded by now stays: looking at it again with each collection of garbage would take a tenth of the time."""
    gc.freeze()


# tests speak HTTP in the clear, and yet each client would load all authorities that the machine trusts
import_module("httpx._transports.default").create_ssl_context = cache(httpx.create_ssl_context)

settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
settings.load_profile("shared")


def examples(thorough: int) -> int:
    """How many examples of a property are tried: a fifth in each run, all by `make soak`."""
    return thorough if os.environ.get("TEST_THOROUGH") else thorough // 5


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def maria() -> Iterator[MariaServer]:
    with MariaServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def rabbit() -> Iterator[RabbitServer]:
    with RabbitServer() as server:
        yield server


@pytest.fixture(scope="session")
def objects() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def bucket(objects: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a new bucket; the settings for its object store are in the environment."""
    for name, value in objects.settings.items():
        monkeypatch.setenv(name, value)
    made = f"bucket-{next(_numbers)}"
    objects.client().create_bucket(Bucket=made)
    return made


@pytest.fixture
def pg(postgres: PostgresServer) -> str:
    """The URL of a new PostgreSQL database."""
    return postgres.create(f"t{next(_numbers)}")


@pytest.fixture
def my(maria: MariaServer) -> str:
    """The URL of a new MariaDB database."""
    name = f"t{next(_numbers)}"
    connection = maria.connect("mysql")
    with connection.cursor() as cursor:
        cursor.execute(f"create database {name}")
    connection.close()
    return maria.url(name)


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test touches the user's catalog."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def empty_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog with nothing in it: a copy takes a hundredth of the time in which a new one is brought up."""
    path = tmp_path_factory.mktemp("empty") / "catalog.db"
    Engine(Address(scheme="sqlite", database=str(path))).close()
    return path


@pytest.fixture(scope="session")
def template(postgres: PostgresServer) -> str:
    """The name of a database with such a catalog."""
    Engine(Address.parse(postgres.create("template"), lambda _: None)).close()
    return "template"


@pytest.fixture
def lite_catalog(tmp_path: Path, empty_catalog: Path) -> Address:
    """A new catalog in a file."""
    return Address(scheme="sqlite", database=str(shutil.copy(empty_catalog, tmp_path / "catalog.db")))


@pytest.fixture
def pg_catalog(postgres: PostgresServer, template: str) -> str:
    """The URL of a new catalog in PostgreSQL."""
    return postgres.create(f"t{next(_numbers)}", f"template {template}")


@pytest.fixture
def app(state: Path, empty_catalog: Path) -> App:
    (state / "jivs").mkdir()
    shutil.copy(empty_catalog, state / "jivs" / "catalog.db")
    return bootstrap.build(Settings())


Run = Callable[..., Outcome]


@pytest.fixture
def run(app: App, tmp_path: Path) -> Run:
    """Extract into ``tmp_path/archive``: run(url, level=..., tables=(...), limits={...}, pause=...)."""

    def do(
        url: str,
        *,
        level: Level = Level.FULL,
        tables: tuple[str, ...] = (),
        queries: tuple[tuple[str, str], ...] = (),
        where: str = "",
        limits: dict[str, int] | None = None,
        archive: Path | None = None,
        pause: Callable[[str], None] = lambda _: None,
        partition_bytes: int = 128 << 20,
        resume: bool = False,
        **more: object,
    ) -> Outcome:
        if url.startswith("postgresql") and "sslmode" not in url:  # the command line's tests take the encrypted way
            more["options"] = {"sslmode": "disable", **more.get("options", {})}  # type: ignore[dict-item]
        job = ExtractJob(
            address=app.address(url),
            archive=str(archive or tmp_path / "archive"),
            selection=Selection(tables=tables, queries=queries, where=where),
            limits=replace(app.limits, **(limits or {})),
            level=level,
            resume=resume,
            partition_bytes=partition_bytes,
            **more,
        )
        return extract(app, job, Progress(), pause)

    return do


@pytest.fixture
def limits() -> Limits:
    return Limits()
