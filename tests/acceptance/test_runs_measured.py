"""What runs tell the metrics, from real sources."""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from jivs import bootstrap, logs
from jivs.backends.metrics.prometheus import PrometheusMetrics
from jivs.errors import UnreachableError
from jivs.operations.verify import VerifyJob, verify
from jivs.ports.app import App
from jivs.settings import Settings
from jivs.testing.metrics import value
from tests.conftest import Run


@pytest.fixture
def metrics() -> PrometheusMetrics:
    return PrometheusMetrics("worker")


@pytest.fixture
def app(state: Path, metrics: PrometheusMetrics) -> App:
    return replace(bootstrap.build(Settings()), metrics=metrics)


def told(metrics: PrometheusMetrics, name: str, **labels: str) -> float:
    return value(metrics.exposition("")[0].decode(), name, **labels) or 0


def test_a_run_counts_what_it_archived(pg: str, run: Run, metrics: PrometheusMetrics) -> None:
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute("create table sample as select g as id, repeat('x', 200) as t from generate_series(1, 20000) g")
        connection.execute("create table small as select 1 as id")
        connection.execute("analyze")
    seen: list[tuple[float, float]] = []

    def look(step: str) -> None:
        if step == "batch":
            threads = told(metrics, "extraction_threads_active")
            pools = metrics.pools().sources.values()
            seen.append((threads, max((pool.limit for pool in pools), default=0)))

    assert run(pg, pause=look, partition_bytes=1 << 20, limits={"parallel": 2, "batch_rows": 1000}).complete
    assert told(metrics, "extraction_records_total") == 20001
    assert told(metrics, "extraction_errors_total") == 0
    assert told(metrics, "extraction_batch_size") == 1000
    assert max(threads for threads, _ in seen) == 2
    assert max(limit for _, limit in seen) > 1
    assert told(metrics, "extraction_threads_active") == 0
    assert metrics.pools().sources == {}
    assert told(metrics, "jivs_verification_failures_total") == 0


def test_values_set_apart_rows_rejected_and_tables_given_up(run: Run, metrics: PrometheusMetrics, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"id": 1}\nnonsense\n{"id": 2}\n')
    run(f"file://{folder}", archive=tmp_path / "a")
    assert told(metrics, "extraction_records_total") == 2
    assert told(metrics, "extraction_errors_total") == 1
    database = tmp_path / "s.db"
    with sqlite3.connect(database) as connection:
        connection.execute("create table t (id integer primary key, t text)")
        connection.execute("insert into t values (1, 'text'), (2, cast(x'ff00fe' as text))")
    connection.close()
    run(f"sqlite:///{database}", archive=tmp_path / "b")
    assert told(metrics, "jivs_quarantined_values_total") == 1
    assert told(metrics, "extraction_records_total") == 4

    def cut(step: str) -> None:
        if step == "planned":
            (folder / "rows.jsonl").unlink()

    outcome = run(f"file://{folder}", archive=tmp_path / "c", pause=cut)
    assert [table.verdict for table in outcome.tables] == ["failed"]
    assert told(metrics, "extraction_errors_total") == 2  # how many rows it had, nobody estimated: one


def test_what_is_tried_again_is_no_error(run: Run, metrics: PrometheusMetrics, tmp_path: Path) -> None:
    database = tmp_path / "s.db"
    with sqlite3.connect(database) as connection:
        connection.execute("create table t (id integer primary key)")
        connection.execute("insert into t values (1)")
    connection.close()

    def interrupt(step: str) -> None:
        if step == "batch":
            raise UnreachableError("gone")

    with pytest.raises(UnreachableError):
        run(f"sqlite:///{database}", pause=interrupt)
    assert told(metrics, "extraction_records_total") == 0
    assert told(metrics, "extraction_threads_active") == 0
    assert told(metrics, "extraction_errors_total") == 0


def test_damage_is_counted(run: Run, app: App, metrics: PrometheusMetrics, tmp_path: Path) -> None:
    database = tmp_path / "s.db"
    with sqlite3.connect(database) as connection:
        connection.execute("create table t (id integer primary key)")
        connection.executemany("insert into t values (?)", [(number,) for number in range(100)])
    connection.close()
    run(f"sqlite:///{database}")
    archive = tmp_path / "archive"
    job = VerifyJob(archive=str(archive), level="files", limits=app.limits)
    assert verify(app, job).sound
    assert told(metrics, "jivs_verification_failures_total") == 0
    next(archive.rglob("*.parquet")).write_bytes(b"")
    assert not verify(app, job).sound
    assert told(metrics, "jivs_verification_failures_total") >= 1


def test_log_lines_of_a_run_say_which(run: Run, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    database = tmp_path / "s.db"
    with sqlite3.connect(database) as connection:
        connection.execute("create table t (id integer primary key)")
    connection.close()
    told_by: list[str] = []

    def tell(record: logging.LogRecord) -> bool:
        if record.name == "jivs.operations.extract":  # threads of what ran before in this process say things too
            told_by.append(logs.RUN.get())
        return True

    caplog.handler.addFilter(tell)
    readers: set[str] = set()
    with caplog.at_level(logging.INFO, "jivs"):
        outcome = run(f"sqlite:///{database}", pause=lambda _: readers.add(logs.RUN.get()))
    assert told_by == [outcome.run_id]
    assert outcome.run_id in readers
    assert logs.RUN.get() == ""
