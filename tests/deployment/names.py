"""Names that the deployment files and pages may use: metrics and settings, from where each is defined."""

from __future__ import annotations

import re
from functools import cache

import typer

from jivs import bootstrap
from jivs.api.app import create
from jivs.cli.main import app
from jivs.settings import GUIDE_NAMES, Settings
from tests.deployment.deployed import ROOT

OBSERVABILITY = ROOT / "docs/observability.md"

GUIDE_METRICS = frozenset({
    "extraction_records_total", "extraction_errors_total", "extraction_duration", "extraction_cache_hits",
    "extraction_cache_misses", "extraction_pool_active", "extraction_pool_idle", "extraction_pool_max", "hikaricp_connections",
    "hikaricp_connections_active", "hikaricp_connections_idle", "hikaricp_connections_pending", "hikaricp_connections_max",
    "extraction_batch_size", "extraction_threads_active", "http_server_request_duration_seconds", "jivs_run_duration_seconds",
    "jivs_catalog_up", "jivs_temp_bytes", "jivs_process_cpu_seconds_total", "jivs_process_resident_memory_bytes", "jivs_runs", "jivs_queue_depth", "jivs_verification_failures_total", "jivs_quarantined_values_total",
})  # fmt: skip
"""The metrics of the guide and of our own that are promised."""

HISTOGRAMS = ("extraction_duration", "http_server_request_duration_seconds", "jivs_run_duration_seconds")

EXPORTERS = frozenset({
    "up", "ALERTS", "pg_up", "pg_stat_activity_count", "pg_settings_max_connections", "pg_stat_database_xact_commit",
    "pg_stat_database_xact_rollback", "redis_up", "redis_memory_used_bytes", "redis_memory_max_bytes",
    "redis_evicted_keys_total", "redis_keyspace_misses_total",
})  # fmt: skip
"""Metrics of Prometheus itself and of the exporters."""


@cache
def metrics() -> frozenset[str]:
    """Every metric that the service has, as it is scraped: the page that lists them once it is there, else the promise."""
    if OBSERVABILITY.exists():
        cells = re.findall(r"^\|([^|]*)\|", OBSERVABILITY.read_text(encoding="utf-8"), re.MULTILINE)
        listed = frozenset(name for cell in cells for name in re.findall(r"`(\w+)", cell))
    else:
        listed = GUIDE_METRICS
    parts = {f"{name}{part}" for name in HISTOGRAMS if name in listed for part in ("_bucket", "_sum", "_count")}
    return listed | parts


@cache
def settings() -> frozenset[str]:
    """Every name of the deployment guide that sets something."""
    return frozenset(GUIDE_NAMES)


@cache
def routes() -> frozenset[str]:
    """Every path that the service serves."""
    return frozenset(create(bootstrap.build_service(Settings()), origins=[]).openapi()["paths"]) | {
        "/v3/api-docs",
        "/swagger-ui.html",
    }


@cache
def verbs() -> frozenset[str]:
    """Every command of `jivs`."""
    return frozenset(typer.main.get_command(app).commands)


@cache
def targets() -> frozenset[str]:
    """Every target of `make`."""
    return frozenset(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
