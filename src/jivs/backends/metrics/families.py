"""Every metric: name, type, labels, meaning. docs/observability.md lists the same; a test holds the two together."""

from __future__ import annotations

from dataclasses import dataclass

CATALOG_POOL = "HikariPool-1"
"""The pool of the process that is asked. Names of the pool and its metrics are those of the deployment guide."""

API_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.22, 0.25, 0.3, 0.35, 0.4, 0.45, 0.6, 0.8, 1.5, 3.0, 10.0)
REQUEST_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 10.0)
RUN_BOUNDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0)


@dataclass(frozen=True)
class Family:
    """A metric. ``bounds``: those of a histogram's buckets. ``mode``: how a gauge of several processes becomes one."""

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    mode: str = "livesum"


RECORDS = Family("extraction_records_total", "counter", "Rows read and archived, also by runs that were given up later.")
ERRORS = Family(
    "extraction_errors_total",
    "counter",
    "Rows not archived: rejected whole, or planned in a table that failed for good; retries do not count.",
)
DURATION = Family(
    "extraction_duration",
    "histogram",
    "Seconds of requests below /api/v1/extractions, streams of events and downloads left out.",
    bounds=API_BOUNDS,
)
HITS = Family("extraction_cache_hits", "counter", "Lookups that a cache answered, all caches together.")
MISSES = Family("extraction_cache_misses", "counter", "Lookups that no cache answered, all caches together.")
LOOKUPS = Family("jivs_cache_requests_total", "counter", "Lookups by cache, result hit or miss.", ("cache", "result"))
SOURCE_ACTIVE = Family("extraction_pool_active", "gauge", "Connections to a source in use.", ("source",))
SOURCE_IDLE = Family("extraction_pool_idle", "gauge", "Connections to a source that are open and not in use.", ("source",))
SOURCE_MAX = Family("extraction_pool_max", "gauge", "Connections to a source that may be open.", ("source",))
POOL = Family("hikaricp_connections", "gauge", "Connections to the catalog that are open.", ("pool",))
POOL_ACTIVE = Family("hikaricp_connections_active", "gauge", "Connections to the catalog in use.", ("pool",))
POOL_IDLE = Family(
    "hikaricp_connections_idle", "gauge", "Connections to the catalog that are open and not in use.", ("pool",)
)
POOL_PENDING = Family(
    "hikaricp_connections_pending", "gauge", "Threads that wait for a connection to the catalog.", ("pool",)
)
POOL_MAX = Family("hikaricp_connections_max", "gauge", "Connections to the catalog that may be open.", ("pool",))
CONNECTIONS = Family(
    "jivs_catalog_connections", "gauge", "Open connections to the catalog by process, active or idle.", ("process", "state")
)
BATCH_SIZE = Family(
    "extraction_batch_size", "gauge", "Rows of a batch; 0: its size in bytes decides.", mode="livemostrecent"
)
THREADS = Family("extraction_threads_active", "gauge", "Threads that read from sources.")
REQUESTS = Family(
    "http_server_request_duration_seconds",
    "histogram",
    "Time of requests by method, route and status; of a stream of events until it begins.",
    ("method", "route", "status"),
    REQUEST_BOUNDS,
)
RUN_DURATION = Family(
    "jivs_run_duration_seconds",
    "histogram",
    "Time of runs that ended, since they first began.",
    ("kind", "state"),
    RUN_BOUNDS,
)
UNVERIFIED = Family(
    "jivs_verification_failures_total",
    "counter",
    "Tables that differed from their source when extracted, errors that verifying found.",
)
QUARANTINED = Family("jivs_quarantined_values_total", "counter", "Values set apart because no archive type holds them.")
STARTED = Family(
    "jivs_process_start_time_seconds", "gauge", "When a process of the service began.", ("process", "pid"), mode="liveall"
)
RUNS = Family("jivs_runs", "gauge", "Runs in the catalog by state.", ("state",))
QUEUE = Family("jivs_queue_depth", "gauge", "Runs that wait to begin.")
CATALOG_UP = Family("jivs_catalog_up", "gauge", "1: the catalog counted the runs just now; 0: it did not answer.")
TEMPORARY = Family("jivs_temp_bytes", "gauge", "Bytes of files on their way to object stores, on this machine.")
MEMORY = Family("jivs_process_resident_memory_bytes", "gauge", "Memory of a process of the service.", ("process", "pid"))
CPU = Family("jivs_process_cpu_seconds_total", "counter", "Processor time of a process of the service.", ("process", "pid"))

RECORDED = (
    RECORDS, ERRORS, DURATION, LOOKUPS, SOURCE_ACTIVE, SOURCE_IDLE, SOURCE_MAX, POOL, POOL_ACTIVE, POOL_IDLE, POOL_PENDING,
    POOL_MAX, CONNECTIONS, BATCH_SIZE, THREADS, REQUESTS, RUN_DURATION, UNVERIFIED, QUARANTINED, STARTED,
)  # fmt: skip
"""What each process writes down."""

COMPUTED = (HITS, MISSES, RUNS, QUEUE, CATALOG_UP, TEMPORARY, MEMORY, CPU)
"""What is found out when somebody scrapes."""
