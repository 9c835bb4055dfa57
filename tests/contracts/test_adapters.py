"""Every adapter passes its port's suite."""

from __future__ import annotations

import csv
import io
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg import sql

from jivs import bootstrap, connectors
from jivs.backends.catalog import submission
from jivs.backends.catalog.accounts import SqlAccounts
from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.extractions import SqlExtractions
from jivs.backends.catalog.postgresql_upkeep import PostgresUpkeep
from jivs.backends.catalog.registry import SqlRegistry
from jivs.backends.catalog.sql import SqlCatalog
from jivs.backends.catalog.sqlite_upkeep import SqliteUpkeep
from jivs.backends.catalog.work import SqlWork
from jivs.backends.store.local import LocalShelf, LocalStore
from jivs.domain.extraction import ExtractionDraft, WhenBusy
from jivs.domain.registry import Source, SourceDraft
from jivs.domain.source import Address, Limits
from jivs.errors import UserError
from jivs.ports.accounts import Accounts
from jivs.ports.app import App
from jivs.ports.catalog import Catalog
from jivs.ports.connector import Request, Session
from jivs.ports.extractions import Extractions
from jivs.ports.registry import Registry
from jivs.ports.shelf import Shelf
from jivs.ports.store import Store
from jivs.ports.upkeep import Upkeep
from jivs.ports.work import Work
from jivs.settings import Settings, environment
from jivs.testing.accounts import AccountsSuite, deed
from jivs.testing.clock import FakeClock
from jivs.testing.orders import DEED, JOB, Make
from jivs.testing.servers import MariaServer, PostgresServer, wait_for
from jivs.testing.suites import CatalogSuite, ConnectorSuite, ShelfSuite, StoreSuite
from jivs.testing.upkeep import VIEWER, Opened, UpkeepSuite, names, saved
from jivs.testing.work import WorkSuite
from jivs.transfer.throttle import Throttle

Open = Callable[[Request, Limits], Session]


class TestLocalStore(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return LocalStore(tmp_path / "store")


class TestS3Store(StoreSuite):
    @pytest.fixture
    def store(self, bucket: str) -> Store:
        return bootstrap.build(Settings()).store(f"s3://{bucket}/some/prefix")


class TestS3StoreOfAWholeBucket(StoreSuite):
    @pytest.fixture
    def store(self, bucket: str) -> Store:
        return bootstrap.build(Settings()).store(f"s3://{bucket}")


class TestLocalShelf(ShelfSuite):
    @pytest.fixture
    def shelf(self, tmp_path: Path) -> Shelf:
        return LocalShelf(tmp_path)

    @pytest.fixture
    def open_store(self, app: App) -> Callable[[str], Store]:
        return app.store


class TestS3Shelf(ShelfSuite):
    @pytest.fixture
    def shelf(self, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Shelf:
        monkeypatch.setenv("STORAGE_PROVIDER", "s3")
        monkeypatch.setenv("AWS_S3_BUCKET", bucket)
        monkeypatch.setenv("JIVS_S3_PREFIX", "archives/of/jivs")
        return bootstrap.build_service(Settings()).shelf

    @pytest.fixture
    def open_store(self, bucket: str) -> Callable[[str], Store]:
        return bootstrap.build(Settings()).store


def sqlite_engine(folder: Path) -> Engine:
    return Engine(Address(scheme="sqlite", database=str(folder / "catalog.db")))


class TestSqliteCatalog(CatalogSuite):
    @pytest.fixture
    def catalog(self, clock: FakeClock, lite_catalog: Address) -> Catalog:
        return SqlCatalog(Engine(lite_catalog), clock)


class TestPostgreSQLCatalog(CatalogSuite):
    @pytest.fixture
    def catalog(self, clock: FakeClock, pg_catalog: str) -> Iterator[Catalog]:
        engine = Engine(Address.parse(pg_catalog, lambda _: None))
        yield SqlCatalog(engine, clock)
        engine.close()


class TestSqliteAccounts(AccountsSuite):
    @pytest.fixture
    def accounts(self, clock: FakeClock, lite_catalog: Address) -> Accounts:
        return SqlAccounts(Engine(lite_catalog), clock)


class TestPostgreSQLAccounts(AccountsSuite):
    @pytest.fixture
    def accounts(self, clock: FakeClock, pg_catalog: str) -> Iterator[Accounts]:
        engine = Engine(Address.parse(pg_catalog, lambda _: None))
        yield SqlAccounts(engine, clock)
        engine.close()


class _Upkeep(UpkeepSuite):
    @pytest.fixture
    def opened(self, address: Address, clock: FakeClock) -> Opened:
        @contextmanager
        def use() -> Iterator[Accounts]:
            engine = Engine(address)
            yield SqlAccounts(engine, clock)
            engine.close()

        return use

    @pytest.fixture
    def upkeep(self, address: Address) -> Upkeep:
        return made_upkeep(address)


def made_upkeep(address: Address) -> Upkeep:
    if address.scheme == "sqlite":
        return SqliteUpkeep(address)
    return PostgresUpkeep(address, environment)


class TestSqliteUpkeep(_Upkeep):
    @pytest.fixture
    def address(self, tmp_path: Path) -> Address:
        return Address(scheme="sqlite", database=str(tmp_path / "catalog.db"))

    @pytest.fixture
    def empty(self, tmp_path: Path) -> Upkeep:
        return SqliteUpkeep(Address(scheme="sqlite", database=str(tmp_path / "new" / "other.db")))


class TestPostgreSQLUpkeep(_Upkeep):
    @pytest.fixture
    def address(self, pg: str) -> Address:
        return Address.parse(pg, lambda _: None)

    @pytest.fixture
    def empty(self, postgres: PostgresServer) -> Upkeep:
        return made_upkeep(Address.parse(postgres.create(f"u{secrets.token_hex(4)}"), lambda _: None))

    def test_a_deadlock_with_who_still_writes_does_not_end_it(self, upkeep: Upkeep, opened: Opened, pg: str) -> None:
        with opened() as accounts:
            accounts.add("ada", "hash", VIEWER, deed())
        before = saved(upkeep)
        with psycopg.connect(pg) as other, ThreadPoolExecutor(1) as beside:
            other.execute("SET deadlock_timeout = '10min'")  # it is the other one that is told of the deadlock
            other.execute("LOCK TABLE users IN ROW EXCLUSIVE MODE")
            loading = beside.submit(upkeep.load, io.BytesIO(before), force=True)
            with psycopg.connect(pg, autocommit=True) as watch:
                wait_for(lambda: watch.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone() is not None, 10)
                held = (
                    "SELECT relation::regclass::text FROM pg_locks JOIN pg_database d ON d.oid = database "
                    "WHERE granted AND mode = 'AccessExclusiveLock' AND datname = current_database()"
                )
                [table, *_] = [row[0] for row in watch.execute(held)]
            other.execute(sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(sql.Identifier(table)))
            other.commit()
            loading.result()
        with opened() as accounts:
            assert names(accounts) == ["ada"]


class _Work(WorkSuite):
    @pytest.fixture
    def engine(self) -> Engine:
        raise NotImplementedError  # each database gives its own

    @pytest.fixture
    def registry(self, engine: Engine, clock: FakeClock) -> Registry:
        return SqlRegistry(engine, clock)

    @pytest.fixture
    def extractions(self, engine: Engine, clock: FakeClock) -> Extractions:
        return SqlExtractions(engine, clock)

    @pytest.fixture
    def work(self, engine: Engine, clock: FakeClock) -> Work:
        return SqlWork(engine, clock, connections=10, parallel=4)


class TestSqliteWork(_Work):
    @pytest.fixture
    def engine(self, lite_catalog: Address) -> Engine:
        return Engine(lite_catalog)


class TestPostgreSQLWork(_Work):
    @pytest.fixture
    def engine(self, pg_catalog: str) -> Iterator[Engine]:
        engine = Engine(Address.parse(pg_catalog, lambda _: None))
        yield engine
        engine.close()

    def test_no_two_runs_of_an_extraction_begin_at_once_on_two_sources(
        self, make: Make, source: Callable[..., Source], work: Work, extractions: Extractions, pg_catalog: str
    ) -> None:
        """Its source was changed while a run of it waited; another worker is just claiming that one."""
        made, other = make("one", when_busy=WhenBusy.QUEUE), source("other")
        work.submit(made, "r1", "/a", "ada", DEED)
        draft = ExtractionDraft(name="one", source_id=other.id, job=JOB, when_busy=WhenBusy.QUEUE)
        work.submit(extractions.change(made.id, made.version, draft, DEED), "r2", "/a", "ada", DEED)
        with psycopg.connect(pg_catalog) as first, ThreadPoolExecutor(1) as beside:
            for number in (submission.ON_SOURCE + made.source_id, submission.ON_EXTRACTION + made.id):
                first.execute("SELECT pg_advisory_xact_lock(%s)", (number,))
            first.execute("UPDATE runs SET state = 'RUNNING', epoch = 1, lease_until = 1e12 WHERE id = 'r1'")
            second = beside.submit(work.claim, "w2", 60)
            with psycopg.connect(pg_catalog, autocommit=True) as watch:
                waits = "SELECT 1 FROM pg_locks WHERE NOT granted"
                wait_for(lambda: second.done() or watch.execute(waits).fetchone() is not None, 30)
            first.commit()
            assert second.result() is None


def opener(url: str) -> Open:
    address = Address.parse(url, lambda _: None)
    connector = connectors.find(address)
    return lambda request, limits: connector.open(address, limits, request, Throttle(0, FakeClock()))


class TestPostgreSQL(ConnectorSuite):
    @pytest.fixture
    def open_session(self, pg: str) -> Open:
        with psycopg.connect(pg, autocommit=True) as connection:
            connection.execute(
                "create table sample as select g as id, 'text ' || g as t, g * 1.5 as n, now() as m"
                " from generate_series(1, 3000) g"
            )
            connection.execute("analyze sample")
        return opener(pg)


class TestMariaDB(ConnectorSuite):
    @pytest.fixture
    def open_session(self, my: str, maria: MariaServer) -> Open:
        connection = maria.connect(my.rpartition("/")[2])
        with connection.cursor() as cursor:
            cursor.execute(
                "create table sample (id int primary key, t varchar(40), n decimal(12,2), d double, m datetime(6))"
            )
            cursor.execute(
                "insert into sample select seq, concat('text ', seq), seq * 1.5, seq / 7, now(6) from seq_1_to_3000"
            )
            cursor.execute("analyze table sample")
        connection.close()
        return opener(my)


class TestSqlite(ConnectorSuite):
    @pytest.fixture
    def open_session(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
        monkeypatch.setattr("jivs.connectors.sqlite._PARTITION_ROWS", 700)
        path = tmp_path / "s.db"
        with sqlite3.connect(path) as connection:
            connection.execute("create table sample (id integer primary key, t text, n real, b blob)")
            connection.executemany(
                "insert into sample values (?, ?, ?, ?)", ((n, f"text {n}", n / 7, bytes((n % 256,))) for n in range(3000))
            )
        connection.close()
        return opener(f"sqlite:///{path}")


class _Files(ConnectorSuite):
    url = ""

    def make(self, folder: Path) -> None:
        raise NotImplementedError  # each format has its own

    @pytest.fixture
    def open_session(self, tmp_path: Path) -> Open:
        self.make(tmp_path)
        return opener(f"file://{tmp_path}")


class TestCsv(_Files):
    def make(self, folder: Path) -> None:
        with (folder / "sample.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "t"])
            writer.writerows([n, f'text "{n}",\n'] for n in range(2000))


class TestJsonLines(_Files):
    def make(self, folder: Path) -> None:
        lines = (f'{{"id": {n}, "t": "text {n}", "d": {{"a": [1, {n}]}}, "f": {n}.10}}' for n in range(2000))
        (folder / "sample.jsonl").write_text("\n".join(lines))


class TestParquet(_Files):
    def make(self, folder: Path) -> None:
        table = pa.table({"id": range(2000), "t": [f"text {n}" for n in range(2000)]})
        pq.write_table(table, folder / "sample.parquet")


del (
    ConnectorSuite,
    ShelfSuite,
    StoreSuite,
    CatalogSuite,
    UpkeepSuite,
    _Files,
    _Upkeep,
)  # or pytest would run the suites without an adapter


def test_a_password_that_stays_is_under_the_key_that_it_was_turned_to(lite_catalog: Address) -> None:
    """Keys are turned between the reading of a source and its change."""
    engine = Engine(lite_catalog)
    registry, done = SqlRegistry(engine, FakeClock()), deed("x", "o")
    draft = SourceDraft(name="s", address=Address(scheme="postgresql", host="h"), max_connections=0)
    read = registry.add_source(draft, lambda _: "v1.old", done)
    assert registry.reseal(read.id, "v1.old", "v1.new", done)
    changed = registry.change_source(read.id, read.version, replace(draft, name="other"), None, done)
    assert (changed.name, changed.sealed) == ("other", "v1.new")
    engine.close()


def test_servers_do_not_run_as_root(postgres: PostgresServer, maria: MariaServer) -> None:
    for server in (postgres, maria):
        assert server.process is not None
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        assert "Uid:\t0\t" not in status


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_migrations_make_the_tables_that_the_code_uses(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from jivs.backends.catalog import tables

    made = (
        sqlite_engine(tmp_path) if kind == "sqlite" else Engine(Address.parse(request.getfixturevalue("pg"), lambda _: None))
    )
    with made.read() as connection:
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() == tables.HEAD
        assert compare_metadata(context, tables.metadata) == []
    made.close()
    migrations = Path(tables.__file__).parent / "migrations"
    assert ScriptDirectory(str(migrations)).get_heads() == [tables.HEAD]


def test_a_newer_catalog_is_worked_on_if_it_allows_it(tmp_path: Path) -> None:
    """What a rollout and its undoing rest on."""
    sqlite_engine(tmp_path).close()
    sqlite_engine(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)) as connection:
        connection.execute("update alembic_version set version_num = '9999'")
        sqlite_engine(tmp_path).close()
        assert connection.execute("select version_num from alembic_version").fetchall() == [("9999",)]
        for statement in ("update compatibility set oldest = '9998'", "delete from compatibility"):
            connection.execute(statement)
            with pytest.raises(UserError, match="upgrade JiVS"):
                sqlite_engine(tmp_path)
