"""Metrics in Prometheus' own client library.

Alone, a process keeps its numbers in memory. Where ``MetricsFolder`` gave it a folder, it keeps them in memory that is
mapped to files there, and whichever process is scraped answers for all of them (the library's multiprocess mode).
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.process_collector import ProcessCollector

from jivs.backends.metrics import families as known
from jivs.backends.metrics.families import Family
from jivs.backends.metrics.folder import reading
from jivs.domain.run import RunState
from jivs.ports.cache import CacheName, Counts
from jivs.ports.metrics import Pools, PoolUse

_ASKED = frozenset({"api", "management"})
"""Processes that Prometheus asks. The others open connections to the catalog when they need them: how many of those that are
open are in use says nothing of them.
"""

_SAMPLING_SECONDS = 1.0
_MAKERS: dict[str, Any] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


class PrometheusMetrics:
    """``process``: what this process is in the service. ``folder``: where it and its neighbours are measured, if anywhere.

    What is told until something else is known: rows of a batch, connections that a source may have.
    """

    def __init__(
        self,
        process: str,
        *,
        folder: Path | None = None,
        batch_rows: int = 0,
        source_limit: int = 0,
        temporary: Callable[[], int] = int,
    ) -> None:
        disable_created_metrics()
        self._process = process
        self._folder = folder
        self._source_limit = source_limit
        self._temporary = temporary
        self._registry = CollectorRegistry()
        self._made = {family.name: self._make(family) for family in known.RECORDED}
        self._requests: dict[tuple[str, str, int], Histogram] = {}
        self._lookups: Callable[[], Mapping[CacheName, Counts]] = dict
        self._told: dict[tuple[str, str], int] = defaultdict(int)
        self._catalog: Callable[[], PoolUse] = PoolUse
        self._sources: dict[str, list[Callable[[], PoolUse]]] = defaultdict(list)
        self._changing = threading.Lock()
        self._count: Callable[[], Mapping[str, int] | None] | None = None
        self._begin(batch_rows)

    def _make(self, family: Family) -> Any:
        more: dict[str, Any] = {}
        if family.bounds:
            more["buckets"] = family.bounds
        if family.kind == "gauge":
            more["multiprocess_mode"] = family.mode
        labels = [label for label in family.labels if label != "pid"]
        return _MAKERS[family.kind](family.name, family.meaning, labels, registry=self._registry, **more)

    def _begin(self, batch_rows: int) -> None:
        """Everything is there at 0 from the start."""
        self._made[known.STARTED.name].labels(self._process).set(time.time())
        if self._process in _ASKED:
            self.batch_size(batch_rows)
            self._child("GET", "/actuator/prometheus", 200)
            for state in (state for state in RunState if state.ended):
                self._made[known.RUN_DURATION.name].labels("extract", state.value)
        self._sample()
        if self._folder is not None:
            threading.Thread(target=self._keep_sampling, name="metrics", daemon=True).start()

    # -- what happened --------------------------------------------------------------------------------------------

    def records(self, rows: int) -> None:
        self._made[known.RECORDS.name].inc(rows)

    def errors(self, rows: int) -> None:
        self._made[known.ERRORS.name].inc(rows)

    def quarantined(self, values: int) -> None:
        self._made[known.QUARANTINED.name].inc(values)

    def verification_failed(self, count: int = 1) -> None:
        self._made[known.UNVERIFIED.name].inc(count)

    def request(self, method: str, route: str, status: int, seconds: float, *, extraction: bool) -> None:
        child = self._requests.get((method, route, status)) or self._child(method, route, status)
        child.observe(seconds)
        if extraction:
            self._made[known.DURATION.name].observe(seconds)

    def _child(self, method: str, route: str, status: int) -> Histogram:
        child: Histogram = self._made[known.REQUESTS.name].labels(method, route, status)
        self._requests[method, route, status] = child
        return child

    def run_ended(self, kind: str, state: RunState, seconds: float) -> None:
        self._made[known.RUN_DURATION.name].labels(kind, state.value).observe(seconds)

    def batch_size(self, rows: int) -> None:
        self._made[known.BATCH_SIZE.name].set(rows)

    def threads_active(self, change: int) -> None:
        self._made[known.THREADS.name].inc(change)

    # -- what is asked for ----------------------------------------------------------------------------------------

    def catalog_pool(self, use: Callable[[], PoolUse]) -> None:
        self._catalog = use
        self._sample()

    @contextmanager
    def source_pool(self, source: str, use: Callable[[], PoolUse]) -> Iterator[None]:
        with self._changing:
            self._sources[source].append(use)
        try:
            yield
        finally:
            with self._changing:
                self._sources[source].remove(use)
            self._sample()

    def caches(self, counts: Callable[[], Mapping[CacheName, Counts]]) -> None:
        self._lookups = counts
        self._sample()

    def runs(self, count: Callable[[], Mapping[str, int] | None]) -> None:
        self._count = count

    def _keep_sampling(self) -> None:
        while True:
            time.sleep(_SAMPLING_SECONDS)
            self._sample()

    def _sample(self) -> None:
        """Write down how pools and caches are used. Gauges of a closed source stay, at 0; ``collect`` leaves them out."""
        mine = self._catalog()
        for state, value in (("active", mine.active), ("idle", mine.idle)):
            self._made[known.CONNECTIONS.name].labels(self._process, state).set(value)
        for family, value in (
            (known.POOL, mine.active + mine.idle),
            (known.POOL_ACTIVE, mine.active),
            (known.POOL_IDLE, mine.idle),
            (known.POOL_PENDING, mine.pending),
            (known.POOL_MAX, mine.limit),
        ):
            if self._process in _ASKED:
                self._made[family.name].labels(known.CATALOG_POOL).set(value)
        with self._changing:
            for cache, counts in self._lookups().items():
                for result, total in (("hit", counts.hits), ("miss", counts.misses)):
                    self._made[known.LOOKUPS.name].labels(cache, result).inc(total - self._told[cache, result])
                    self._told[cache, result] = total
            for source, uses in self._sources.items():
                found = [use() for use in uses]
                self._made[known.SOURCE_ACTIVE.name].labels(source).set(sum(one.active for one in found))
                self._made[known.SOURCE_IDLE.name].labels(source).set(sum(one.idle for one in found))
                self._made[known.SOURCE_MAX.name].labels(source).set(sum(one.limit for one in found))

    # -- what is told ---------------------------------------------------------------------------------------------

    def pools(self) -> Pools:
        found = self._recorded()

        def values(family: Family) -> dict[str, int]:
            return {sample.labels[family.labels[0]]: int(sample.value) for sample in found[family.name].samples}

        active, idle, pending, sizes = map(values, (known.POOL_ACTIVE, known.POOL_IDLE, known.POOL_PENDING, known.POOL_MAX))
        lent, free, limit = map(values, (known.SOURCE_ACTIVE, known.SOURCE_IDLE, known.SOURCE_MAX))
        return Pools(
            catalog={
                name: PoolUse(active=active[name], idle=idle[name], pending=pending[name], limit=size)
                for name, size in sizes.items()
            },
            sources={name: PoolUse(active=lent[name], idle=free[name], limit=most) for name, most in limit.items() if most},
        )

    def exposition(self, accept: str) -> tuple[bytes, str]:
        if "application/openmetrics-text" in accept:
            return generate_openmetrics(self), OPENMETRICS
        text = generate_latest(self)
        for family in (known.HITS, known.MISSES):  # the library would have a counter's name end in _total
            name = family.name.encode()
            text = text.replace(b"# TYPE " + name + b" untyped", b"# TYPE " + name + b" counter", 1)
        return text, CONTENT_TYPE_PLAIN_0_0_4

    def collect(self) -> Iterable[Metric]:
        """All families: what the library's writers of text ask for."""
        found = self._recorded()
        self._drop_closed_sources(found)
        yield from found.values()
        lookups = found[known.LOOKUPS.name.removesuffix("_total")].samples
        for family, result in ((known.HITS, "hit"), (known.MISSES, "miss")):
            made = Metric(family.name, family.meaning, "unknown")
            made.add_sample(family.name, {}, sum(one.value for one in lookups if one.labels["result"] == result))
            yield made
        yield from self._counted()
        spooled = _family(known.TEMPORARY)
        spooled.add_sample(known.TEMPORARY.name, {}, self._temporary())
        yield spooled
        yield from self._processes(found[known.STARTED.name])
        for collector in (ProcessCollector(registry=None), GC_COLLECTOR, PLATFORM_COLLECTOR):
            yield from collector.collect()

    def _recorded(self) -> dict[str, Metric]:
        """What all processes wrote down, each family once and in order."""
        self._sample()
        if self._folder is None:
            found = {metric.name: metric for metric in self._registry.collect()}
            for sample in found[known.STARTED.name].samples:
                sample.labels["pid"] = str(os.getpid())
        else:
            with reading(self._folder) as files:
                found = {metric.name: metric for metric in MultiProcessCollector.merge(files)}
        names = [(family, family.name.removesuffix("_total")) for family in known.RECORDED]
        return {name: found.get(name) or Metric(name, family.meaning, family.kind) for family, name in names}

    def _drop_closed_sources(self, found: dict[str, Metric]) -> None:
        """Only sources that are open; while none is, one without a name tells that nothing of what may be open is in use."""
        families = known.SOURCE_ACTIVE, known.SOURCE_IDLE, known.SOURCE_MAX
        opened = {one.labels["source"] for one in found[known.SOURCE_MAX.name].samples if one.value}
        for family in families:
            metric = found[family.name]
            metric.samples = [one for one in metric.samples if one.labels["source"] in opened]
            if not opened:
                metric.add_sample(family.name, {"source": ""}, self._source_limit if family is known.SOURCE_MAX else 0)

    def _counted(self) -> Iterator[Metric]:
        """Runs by state, as the catalog has them; nothing of them while it does not answer."""
        if self._count is None:
            return
        counts = self._count()
        up = _family(known.CATALOG_UP)
        up.add_sample(known.CATALOG_UP.name, {}, 0 if counts is None else 1)
        yield up
        if counts is not None:
            states, depth = _family(known.RUNS), _family(known.QUEUE)
            for state in RunState:
                states.add_sample(known.RUNS.name, {"state": state.value}, counts.get(state, 0))
            depth.add_sample(known.QUEUE.name, {}, counts.get(RunState.PENDING, 0))
            yield from (states, depth)

    def _processes(self, started: Metric) -> Iterator[Metric]:
        """Memory and processor time of each process that is measured here."""
        memory, cpu = _family(known.MEMORY), _family(known.CPU)
        for sample in started.samples:
            process = sample.labels["pid"]
            for metric in ProcessCollector(pid=lambda process=process: process, registry=None).collect():  # type: ignore[misc]
                for one in metric.samples:
                    if one.name == "process_resident_memory_bytes":
                        memory.add_sample(known.MEMORY.name, sample.labels, one.value)
                    elif one.name == "process_cpu_seconds_total":
                        cpu.add_sample(known.CPU.name, sample.labels, one.value)
        yield from (memory, cpu)


def _family(family: Family) -> Metric:
    return Metric(family.name.removesuffix("_total"), family.meaning, family.kind)
