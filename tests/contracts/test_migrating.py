"""The catalog's schema is brought up beside those who work on it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from jivs.backends.catalog import migrating, tables
from jivs.backends.catalog.engine import Engine
from jivs.domain.source import Address
from jivs.testing.upkeep import make_older

OLD = "0007"


def old_catalog(url: str) -> None:
    """A catalog of an older version, with a run."""
    make_older(url, OLD)
    with psycopg.connect(url) as connection:
        connection.execute("update compatibility set oldest = %s", (OLD,))
        connection.execute(
            "insert into runs (id, kind, source, archive, digest, state, message, epoch, owner, created_at, updated_at) "
            "values ('r1', 'extract', 's', 'a', '', 'RUNNING', '', 1, '', 1, 1)"
        )


def version(url: str) -> tuple[str, str]:
    with psycopg.connect(url) as connection:
        return (
            connection.execute("select version_num from alembic_version").fetchall()[0][0],
            connection.execute("select oldest from compatibility").fetchall()[0][0],
        )


def opening(url: str, failures: list[BaseException]) -> threading.Thread:
    """A process of the new version begins."""

    def begin() -> None:
        try:
            Engine(Address.parse(url, lambda _: None)).close()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=begin)
    thread.start()
    return thread


def until_it_waits(url: str, thread: threading.Thread, what: str) -> None:
    """Until a statement that begins so waits for a lock."""
    end = time.monotonic() + 60
    query = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query ilike %s"
    with psycopg.connect(url, autocommit=True) as connection:
        while not connection.execute(query, (f"{what}%",)).fetchall():
            assert thread.is_alive()
            assert time.monotonic() < end
            time.sleep(0.01)


def test_who_changes_a_run_and_then_the_trail_is_not_in_the_way(pg: str) -> None:
    """Each start, stop and pause takes the row of its run, and then adds to the trail."""
    old_catalog(pg)
    failures: list[BaseException] = []
    with psycopg.connect(pg) as user:
        user.execute("select * from runs where id = 'r1' for update")
        upgrade = opening(pg, failures)
        until_it_waits(pg, upgrade, "ALTER TABLE runs")
        user.execute(
            "insert into audit (seq, at, actor, action, object, detail, hash) values (1, 1, 'a', 'run.stop', 'o', '{}', 'h')"
        )
        time.sleep(1.5)  # it gives way and tries again, so that those behind it are not held up
        user.commit()
    upgrade.join(60)
    assert (upgrade.is_alive(), failures) == (False, [])
    assert version(pg) == (tables.HEAD, tables.OLDEST)


def test_an_index_waits_for_who_reads(pg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup reads in one transaction for as long as it takes."""
    old_catalog(pg)
    failures: list[BaseException] = []
    tries: list[None] = []
    upgrade = migrating.upgrade
    monkeypatch.setattr(migrating, "upgrade", lambda connection: (tries.append(None), upgrade(connection)))
    monkeypatch.setattr(migrating, "_GIVE_UP_SECONDS", 4.0)
    with psycopg.connect(pg) as dump:
        dump.execute("set transaction isolation level repeatable read")
        dump.execute("select count(*) from leases")
        thread = opening(pg, failures)
        time.sleep(2)
        assert (len(tries), failures) == (1, [])
    thread.join(60)
    assert failures == []
    assert version(pg) == (tables.HEAD, tables.OLDEST)


def test_what_an_index_took_is_not_taken_from_who_waits_for_a_table(pg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index of one revision takes longer than the next one would wait for others."""
    old_catalog(pg)
    failures: list[BaseException] = []
    monkeypatch.setattr(migrating, "_GIVE_UP_SECONDS", 3.0)
    with psycopg.connect(pg) as dump, psycopg.connect(pg) as user:
        dump.execute("set transaction isolation level repeatable read")
        dump.execute("select count(*) from leases")
        thread = opening(pg, failures)
        time.sleep(4)
        user.execute("select count(*) from runs")
        dump.rollback()
        until_it_waits(pg, thread, "ALTER TABLE runs")
        time.sleep(1.5)
        assert failures == []
    thread.join(60)
    assert failures == []
    assert version(pg) == (tables.HEAD, tables.OLDEST)


def test_a_change_that_others_keep_from_a_table_says_so(pg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old_catalog(pg)
    failures: list[BaseException] = []
    monkeypatch.setattr(migrating, "_GIVE_UP_SECONDS", 4.0)
    with psycopg.connect(pg) as dump:
        dump.execute("select count(*) from runs")
        thread = opening(pg, failures)
        thread.join(60)
    [error] = failures
    assert str(error) == (
        "The catalog's schema cannot be brought up: for 4 s others, a backup for example, have used a table that has to be "
        "changed. Start JiVS again when they have ended."
    )


def test_many_who_begin_at_once_bring_it_up_once(pg: str) -> None:
    old_catalog(pg)
    failures: list[BaseException] = []
    threads = [opening(pg, failures) for _ in range(6)]
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert failures == []
    assert version(pg) == (tables.HEAD, tables.OLDEST)


def test_who_ended_within_it_is_followed_by_the_next(pg: str) -> None:
    """Killed while it built an index."""
    old_catalog(pg)
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute("create index concurrently audit_by_action on audit (action, seq)")
        connection.execute("update pg_index set indisvalid = false where indexrelid = 'audit_by_action'::regclass")
    Engine(Address.parse(pg, lambda _: None)).close()
    assert version(pg) == (tables.HEAD, tables.OLDEST)
    with psycopg.connect(pg, autocommit=True) as connection:
        valid = "select count(*) from pg_index where indrelid = 'audit'::regclass and not indisvalid"
        assert connection.execute(valid).fetchall() == [(0,)]


def test_which_code_may_work_on_it_is_noted_with_each_revision(pg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever ends between two of them leaves a schema of which nothing untrue is said."""
    old_catalog(pg)

    def upgrade(connection: sa.Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(tables.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "+1")

    monkeypatch.setattr(migrating, "upgrade", upgrade)
    monkeypatch.setattr(migrating, "OLDEST", "0008")
    Engine(Address.parse(pg, lambda _: None)).close()
    assert version(pg) == ("0008", "0008")
