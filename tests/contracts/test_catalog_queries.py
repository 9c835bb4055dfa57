"""What requests and workers ask the catalog: a constant number of statements, each by an index, with 20,000 runs in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from jivs.backends.catalog import submission
from jivs.backends.catalog.accounts import SqlAccounts
from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.extractions import SqlExtractions
from jivs.backends.catalog.leases import SqlLeases
from jivs.backends.catalog.registry import SqlRegistry
from jivs.backends.catalog.schedules import SqlSchedules
from jivs.backends.catalog.tables import events, extractions, run_logs, runs, schedules, sources
from jivs.backends.catalog.work import SqlWork
from jivs.backends.clock import SystemClock
from jivs.domain.audit import Deed
from jivs.domain.extraction import Job, WhenBusy
from jivs.domain.run import Counts, RunState
from jivs.domain.source import Address
from jivs.errors import ConflictError
from jivs.ports.schedules import Asked

RUNS, EXTRACTIONS, SOURCES = 20_000, 1000, 50


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if request.param == "sqlite":
        made = Engine(Address(scheme="sqlite", database=str(tmp_path_factory.mktemp("catalog") / "c.db")))
    else:
        url = request.getfixturevalue("postgres").create("queries")
        made = Engine(Address.parse(url, lambda _: None))
    fill(made)
    yield made
    made.close()


def fill(engine: Engine) -> None:
    job = Job(archive="a").to_json()
    kept = {"version": 1, "created_at": 1.0, "updated_at": 1.0}

    def insert(statement: sa.Insert, rows: list[dict[str, Any]]) -> None:
        """In a transaction that is not left alone while rows are made: PostgreSQL ends those."""
        with engine.write() as connection:
            connection.execute(statement, rows)

    insert(sources.insert(), [
        {"name": f"s{n}", "folded": f"s{n}", "scheme": "sqlite", "host": "", "database": "/x", "username": "", "options": "{}",
         "sealed": "", "max_connections": 0, "max_rows_per_second": 0, **kept} for n in range(SOURCES)])  # fmt: skip
    insert(extractions.insert(), [
        {"name": f"x{n}", "folded": f"x{n}", "description": "", "source_id": 1 + n % SOURCES, "job": job, "priority": 0,
         "when_busy": "QUEUE", "created_by": "a", **kept} for n in range(EXTRACTIONS)])  # fmt: skip
    insert(runs.insert(), [
        {"id": f"r{n}", "kind": "extract", "source": "s", "archive": "/a", "digest": "", "state": state(n), "message": "", "epoch": 1,
         "owner": "w" if state(n) == "RUNNING" else "", "lease_until": 9e9 if state(n) == "RUNNING" else None, "created_at": float(n),
         "updated_at": float(n), "extraction_id": 1 + n % EXTRACTIONS, "source_id": 1 + n % SOURCES, "job": job, "connections": 1,
         "ended_at": float(n)} for n in range(RUNS)])  # fmt: skip
    insert(run_logs.insert(), [
        {"run_id": f"r{n % RUNS}", "extraction_id": 1 + n % EXTRACTIONS, "at": 1.0, "level": "INFO", "message": "m"} for n in range(RUNS)])  # fmt: skip
    insert(events.insert(), [
        {"at": 1.0, "kind": "state", "run_id": "r", "extraction_id": 1, "data": "{}"} for _ in range(RUNS)])  # fmt: skip
    insert(schedules.insert(), [
        {"name": f"n{n}", "folded": f"n{n}", "extraction_id": 1 + n % EXTRACTIONS, "cron": "@daily", "time_zone": "UTC",
         "missed_runs": "SKIP", "enabled": True, "next_run_at": float(n), "last_run_id": "", "last_message": "", "created_by": "a", **kept}
        for n in range(2 * EXTRACTIONS)])  # fmt: skip
    if not engine.embedded:
        with engine._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("vacuum analyze")


def state(number: int) -> str:
    return "RUNNING" if number >= RUNS - 20 else "PENDING" if number >= RUNS - 60 else "COMPLETED"


def asked(engine: Engine, act: Callable[[], object]) -> list[tuple[str, Any]]:
    """The statements that it makes, with their parameters."""
    said: list[tuple[str, Any]] = []

    def listen(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        said.append((statement, parameters))

    shortest = engine.fetch

    def fetch(*questions: Any) -> Any:
        said.extend((sql if engine.embedded else sql.replace("?", "%s"), values) for sql, values in questions)
        return shortest(*questions)

    sa.event.listen(engine._engine, "before_cursor_execute", listen)
    engine.fetch = fetch  # type: ignore[method-assign]
    try:
        act()
    finally:
        sa.event.remove(engine._engine, "before_cursor_execute", listen)
        del engine.fetch
    return said


def plan(engine: Engine, statement: str, parameters: Any) -> str:
    with engine._engine.connect() as connection:
        if engine.embedded:
            found = connection.exec_driver_sql(f"explain query plan {statement}", parameters)
            return "\n".join(row[3] for row in found)
        connection.exec_driver_sql("set plan_cache_mode = force_custom_plan")
        text = "\n".join(row[0] for row in connection.exec_driver_sql(f"explain {statement}", parameters))
        connection.rollback()
        return text


SCAN = re.compile(
    r"Seq Scan on (runs|run_logs|events|extractions|schedules)\b|SCAN (runs|run_logs|events|extractions|schedules|r|e)\b(?!.*USING)",
    re.IGNORECASE,
)


def test_every_hot_question_goes_by_an_index_and_none_grows_with_the_rows(engine: Engine) -> None:
    clock = SystemClock()
    kept, work = SqlExtractions(engine, clock), SqlWork(engine, clock, connections=10, parallel=4)
    registry, accounts = SqlRegistry(engine, clock), SqlAccounts(engine, clock)
    planned, duties = SqlSchedules(engine, clock), SqlLeases(engine)
    lease = duties.take("scheduler", "one", None)
    [due] = planned.due(datetime(1970, 1, 1, tzinfo=UTC))
    assert lease is not None
    asked_for = Asked(extraction=kept.page(limit=1)[0], run_id="new", archive="/a")
    later, deed = datetime(2100, 1, 1, tzinfo=UTC), Deed(actor="schedule:n0", action="run.started", object="extraction:x0")
    questions: dict[str, tuple[int, Callable[[], object]]] = {
        "heads": (1, lambda: kept.heads([(500, 21)])),
        "list": (1, lambda: kept.page(after=500, limit=21)),
        "list of a source": (1, lambda: kept.page(source_id=7, limit=21)),
        "list by age": (1, lambda: kept.page(sort="createdAt", descending=True, limit=20)),
        "get": (1, lambda: kept.get(500)),
        "run": (1, lambda: work.run("r500")),
        "runs": (1, lambda: work.runs(extraction_id=500, limit=51)),
        "unended runs": (1, lambda: work.runs(extraction_id=500, states=[RunState.PENDING, RunState.RUNNING])),
        "log": (1, lambda: work.lines(extraction_id=500)),
        "log of a run": (1, lambda: work.lines(run_id="r500")),
        "statistics": (1, lambda: work.statistics(500)),
        "events": (1, lambda: work.events(RUNS - 5)),
        "last event": (1, work.last_event),
        "waiting": (4, lambda: work.waiting(10)),
        "claim": (12, lambda: work.claim("w", 3)),
        "keep": (8, lambda: work.keep(f"r{RUNS - 1}", 1, 3, Counts(rows=1), "reading", taken=1, most=5)),
        "settle": (4, lambda: work.settle(f"r{RUNS - 1}", 1, RunState.COMPLETED)),
        "source": (1, lambda: registry.source(7)),
        "sources": (1, lambda: registry.sources(after=7, limit=21)),
        "schedule": (1, lambda: planned.get(500)),
        "schedules": (1, lambda: planned.page(after=500, limit=21)),
        "schedules of an extraction": (1, lambda: planned.page(extraction_id=7, limit=21)),
        "due schedules": (1, lambda: planned.due(datetime(1970, 1, 1, tzinfo=UTC))),
        "a time that has come": (13, lambda: planned.settle(lease, due, later, asked_for, "", deed)),
        "beat": (3, lambda: duties.renew(lease)),
        "who has the duty": (1, lambda: duties.lease("scheduler")),
        "stamp": (1, accounts.stamp),
        "revoked": (1, lambda: accounts.is_revoked("x")),
    }
    for name, (most, act) in questions.items():
        said = asked(engine, act)
        assert 1 <= len([one for one in said if "advisory" not in one[0] and not one[0].startswith("BEGIN")]) <= most, (
            name,
            said,
        )
        for statement, parameters in said:
            if statement.split()[0].upper() in {"SELECT", "UPDATE", "DELETE"}:
                found = plan(engine, statement, parameters)
                assert not SCAN.search(found), (name, statement, found)


def test_so_many_runs_of_an_extraction_wait_and_no_more(engine: Engine) -> None:
    """What waits behind another is gone past at each look for work."""
    clock = SystemClock()
    work, extraction = SqlWork(engine, clock, connections=10, parallel=4), SqlExtractions(engine, clock).get(500)
    deed = Deed(actor="a", action="run.started", object="extraction:x")
    assert extraction is not None
    queued = replace(extraction, when_busy=WhenBusy.QUEUE)
    given = {
        "kind": "extract",
        "source": "s",
        "archive": "/a",
        "digest": "",
        "state": "PENDING",
        "epoch": 0,
        "created_at": 1.0,
    }
    with engine.write() as connection:
        connection.execute(runs.insert(), [
            {"id": f"q{number}", "extraction_id": extraction.id, "source_id": 1, "updated_at": 1.0, **given}
            for number in range(submission.MOST_QUEUED - 1)])  # fmt: skip
    try:
        assert work.submit(queued, "q-last", "/a", "a", deed).state is RunState.PENDING
        with pytest.raises(ConflictError, match="1,000 runs that have not ended"):
            work.submit(queued, "q-more", "/a", "a", deed)
    finally:
        with engine.write() as connection:
            connection.execute(runs.delete().where(runs.c.id.like("q%")))
