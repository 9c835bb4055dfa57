"""Servers that live for the whole test run, and an application of its own for every test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from jivs import bootstrap
from jivs.domain.plan import Level, Selection
from jivs.domain.source import Limits
from jivs.operations.extract import extract
from jivs.operations.job import ExtractJob, Outcome, Progress
from jivs.ports.app import App
from jivs.settings import Settings
from jivs.testing.servers import MariaServer, PostgresServer, RabbitServer, RedisServer, S3Server

_numbers = itertools.count(1)

settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
settings.load_profile("shared")


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


@pytest.fixture
def app(state: Path) -> App:
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
