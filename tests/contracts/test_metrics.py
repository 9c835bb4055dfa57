"""Metrics of one process, and of several that are scraped as one."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from jivs.backends.metrics import families as known
from jivs.backends.metrics.folder import MetricsFolder
from jivs.backends.metrics.prometheus import PrometheusMetrics
from jivs.domain.run import RunState
from jivs.ports.cache import CacheName, Counts
from jivs.ports.metrics import Metrics, NoMetrics, PoolUse
from jivs.testing.metrics import samples, value
from jivs.testing.servers import wait_for

ALL = [*known.RECORDED, *known.COMPUTED]


@pytest.fixture
def metrics() -> PrometheusMetrics:
    made = PrometheusMetrics("api", batch_rows=700, source_limit=10, temporary=lambda: 123)
    made.caches(lambda: {CacheName.DATASOURCES: Counts()})
    made.runs(lambda: {RunState.RUNNING: 2, RunState.PENDING: 3})
    return made


def told(metrics: Metrics) -> str:
    return metrics.exposition("")[0].decode()


def test_everything_is_there_from_the_start_and_at_zero(metrics: PrometheusMetrics) -> None:
    metrics.runs(dict)
    found = list(parse(told(metrics)))
    kinds = {family.name: family.type for family in found}
    for family in ALL:
        name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
        assert kinds[name] == family.kind, name
        mine = next(one for one in found if one.name == name)
        assert mine.documentation == family.meaning
        assert mine.samples, name
        assert {label for one in mine.samples for label in one.labels} - {"le"} == set(family.labels), name
    beside = {
        "jivs_process_start_time_seconds",
        "extraction_pool_max",
        "extraction_batch_size",
        "jivs_catalog_up",
        "jivs_temp_bytes",
    }
    for family in found:
        ours = family.name.startswith(("jivs_", "extraction_", "hikaricp_", "http_")) and family.name not in beside
        if ours and not family.name.startswith("jivs_process"):
            assert {one.value for one in family.samples} == {0.0}, family.name
    assert {"process_cpu_seconds", "process_open_fds", "python_gc_collections", "python_info"} <= set(kinds)
    assert not [name for name in kinds if name.endswith("_created")]


def test_the_names_that_dashboards_use(metrics: PrometheusMetrics) -> None:
    metrics.records(5)
    metrics.errors(1)
    told(metrics)
    metrics.caches(lambda: {CacheName.DATASOURCES: Counts(2, 0), CacheName.EXTRACTION_STATS: Counts(0, 1)})
    metrics.quarantined(4)
    metrics.verification_failed()
    metrics.threads_active(3)
    metrics.threads_active(-1)
    metrics.catalog_pool(lambda: PoolUse(active=2, idle=48, pending=1, limit=50))
    metrics.run_ended("extract", RunState.FAILED, 3.0)
    text = told(metrics)
    pool = {"pool": "HikariPool-1"}
    for name, labels, expected in (
        ("extraction_records_total", {}, 5), ("extraction_errors_total", {}, 1), ("extraction_cache_hits", {}, 2),
        ("extraction_cache_misses", {}, 1), ("jivs_cache_requests_total", {"cache": "datasources", "result": "hit"}, 2),
        ("jivs_quarantined_values_total", {}, 4), ("jivs_verification_failures_total", {}, 1), ("extraction_threads_active", {}, 2),
        ("extraction_batch_size", {}, 700), ("hikaricp_connections", pool, 50), ("hikaricp_connections_active", pool, 2),
        ("hikaricp_connections_idle", pool, 48), ("hikaricp_connections_pending", pool, 1), ("hikaricp_connections_max", pool, 50),
        ("jivs_runs", {"state": "RUNNING"}, 2), ("jivs_runs", {"state": "FAILED"}, 0), ("jivs_queue_depth", {}, 3),
        ("jivs_run_duration_seconds_count", {"kind": "extract", "state": "FAILED"}, 1), ("jivs_catalog_up", {}, 1), ("jivs_temp_bytes", {}, 123),
    ):  # fmt: skip
        assert value(text, name, **labels) == expected, name
    assert "# TYPE extraction_cache_hits counter" in text
    assert "extraction_cache_hits_total" not in text


def test_the_guides_bounds_are_there_and_streams_do_not_count(metrics: PrometheusMetrics) -> None:
    metrics.request("GET", "/api/v1/extractions", 200, 0.21, extraction=True)
    metrics.request("GET", "/api/v1/sources", 200, 9.0, extraction=False)
    text = told(metrics)
    for bound, expected in (("0.2", 0), ("0.22", 1), ("0.3", 1), ("0.35", 1), ("0.4", 1), ("0.45", 1), ("0.8", 1)):
        assert value(text, "extraction_duration_bucket", le=bound) == expected
    assert value(text, "extraction_duration_count") == 1
    asked = {"method": "GET", "route": "/api/v1/sources", "status": "200"}
    assert value(text, "http_server_request_duration_seconds_sum", **asked) == 9.0


def test_openmetrics_where_it_is_asked_for(metrics: PrometheusMetrics) -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    text, kind = metrics.exposition(accept)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    found = {family.name for family in parse_openmetrics(text.decode())}
    assert {"extraction_records", "extraction_duration", "extraction_cache_hits", "hikaricp_connections"} <= found
    assert metrics.exposition("text/html")[1] == "text/plain; version=0.0.4; charset=utf-8"
    assert NoMetrics().exposition("")[0] == b""


def test_a_catalog_that_is_silent_leaves_the_rest(metrics: PrometheusMetrics) -> None:
    metrics.runs(lambda: None)
    text = told(metrics)
    assert value(text, "jivs_catalog_up") == 0
    assert value(text, "jivs_queue_depth") is None
    assert value(text, "extraction_records_total") == 0


def test_pools_of_sources_are_those_that_are_open(metrics: PrometheusMetrics) -> None:
    assert value(told(metrics), "extraction_pool_max", source="") == 10
    use = PoolUse(active=2, idle=1, limit=4)
    with metrics.source_pool("sales", lambda: use), metrics.source_pool("sales", lambda: use):
        text = told(metrics)
        assert value(text, "extraction_pool_active", source="sales") == 4
        assert value(text, "extraction_pool_max", source="sales") == 8
        assert value(text, "extraction_pool_max", source="") is None
        assert metrics.pools().sources == {"sales": PoolUse(active=4, idle=2, limit=8)}
        assert metrics.pools().catalog == {"HikariPool-1": PoolUse()}
    assert value(told(metrics), "extraction_pool_active", source="sales") is None
    assert metrics.pools().sources == {}


# -- several processes ------------------------------------------------------------------------------------------------


class Measured:
    def __init__(self, folder: MetricsFolder, name: str) -> None:
        given = [f"{key}={text}" for key, text in folder.variables.items()]
        command = ["env", *given, sys.executable, "-m", "tests.contracts.measured", name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent.parent
        )
        assert self._answer() == "ready"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self._answer()

    def scrape(self) -> str:
        text: str = json.loads(self.say("scrape"))
        return text

    def kill(self) -> int:
        self.process.kill()
        self.process.wait()
        return self.process.pid


@contextmanager
def measured(folder: MetricsFolder, name: str) -> Iterator[Measured]:
    made = Measured(folder, name)
    try:
        yield made
    finally:
        made.kill()
        for stream in (made.process.stdin, made.process.stdout):
            assert stream is not None
            stream.close()


def test_one_scrape_tells_of_all_processes_and_forgets_nothing_of_the_dead() -> None:
    with MetricsFolder() as folder, measured(folder, "api") as api, ExitStack() as stack:
        workers = [stack.enter_context(measured(folder, "worker")) for _ in range(2)]
        for number, worker in enumerate(workers, 1):
            worker.say(f"records {number * 100}")
            worker.say("threads 4")
            worker.say("batch 500")
            worker.say("source 2 1 5")
            worker.say("pool 1 1 4")
        api.say("records 7")
        api.say("pool 3 47 50")
        wait_for(lambda: value(api.scrape(), "extraction_pool_active", source="sales") == 4, 10)
        before = api.scrape()
        assert value(before, "extraction_records_total") == 307
        assert value(before, "extraction_duration_count") == 3
        assert value(before, "extraction_threads_active") == 8
        assert value(before, "extraction_batch_size") == 500
        assert value(before, "extraction_pool_max", source="sales") == 10
        assert value(before, "hikaricp_connections", pool="HikariPool-1") == 50
        assert value(before, "jivs_catalog_connections", process="worker", state="active") == 2
        assert value(before, "jivs_catalog_connections", process="api", state="idle") == 47
        assert {labels for name, labels in samples(before) if name == "hikaricp_connections"} == {
            (("pool", "HikariPool-1"),)
        }
        assert sum(name == "jivs_process_resident_memory_bytes" for name, _ in samples(before)) == 3
        for worker in workers:
            dead = worker.kill()
            folder.tidy()
            assert not list(folder.path.glob(f"*_{dead}.db"))
        after = api.scrape()
        assert value(after, "extraction_threads_active") == 0
        assert value(after, "extraction_batch_size") == 0
        assert value(after, "extraction_pool_active", source="sales") is None
        assert value(after, "jivs_catalog_connections", process="worker", state="active") is None
        assert sum(name == "jivs_process_resident_memory_bytes" for name, _ in samples(after)) == 1
        lasting = {
            key: number for key, number in samples(before).items() if key[0].startswith(("extraction_dur", "jivs_run_d"))
        }
        assert {key: samples(after)[key] for key in lasting} == lasting
        assert value(after, "extraction_records_total") == 307
        with measured(folder, "worker") as again:
            again.say("records 1000")
            assert value(api.scrape(), "extraction_records_total") == 1307
    assert not folder.path.exists()


def test_counts_never_fall_while_processes_end() -> None:
    """A counter that falls is a restart to Prometheus: it would count everything once more."""
    with MetricsFolder() as folder, measured(folder, "api") as api, ExitStack() as stack:
        workers = [stack.enter_context(measured(folder, "worker")) for _ in range(6)]
        for worker in workers:
            worker.say("records 10")
        ended = threading.Event()
        seen: list[float] = []

        def watch() -> None:
            while not ended.is_set():
                seen.append(value(api.scrape(), "extraction_records_total") or 0)

        watcher = threading.Thread(target=watch)
        watcher.start()
        for worker in workers:
            worker.kill()
            folder.tidy()
        ended.set()
        watcher.join()
        assert set(seen) == {60.0}
        assert len(list(folder.path.glob("counter_*.db"))) == 2


def test_a_file_that_a_killed_process_left_empty_harms_nobody() -> None:
    with MetricsFolder() as folder, measured(folder, "api") as api:
        (folder.path / "counter_4194399.db").touch()
        assert value(api.scrape(), "extraction_records_total") == 0
        folder.tidy()
        assert not (folder.path / "counter_4194399.db").exists()


def test_the_folder_of_a_service_that_was_killed_is_swept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("jivs.backends.metrics.folder._YOUNG_SECONDS", 0)
    left = tmp_path / "jivs-metrics-left"
    left.mkdir()
    (left / "counter_1.db").touch()
    (tmp_path / "jivs-metrics-file").touch()
    with MetricsFolder() as living:
        assert not left.exists()
        assert living.path.stat().st_mode & 0o077 == 0
        with MetricsFolder():
            assert living.path.exists()
    assert (tmp_path / "jivs-metrics-file").exists()
