"""What operators see of the work: counts, durations, and how full the pools are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from jivs.domain.run import RunState
from jivs.ports.cache import CacheName, Counts


@dataclass(frozen=True, kw_only=True)
class PoolUse:
    """A pool of connections: ``active`` are lent, ``idle`` are open, ``pending`` callers wait, ``limit`` may be open."""

    active: int = 0
    idle: int = 0
    pending: int = 0
    limit: int = 0


@dataclass(frozen=True, kw_only=True)
class Pools:
    """All pools of the service, those of the catalog by pool and those of sources by source."""

    catalog: Mapping[str, PoolUse]
    sources: Mapping[str, PoolUse]


class Metrics(Protocol):
    """Hears what happened. Methods are called from any thread, cost microseconds, and never raise."""

    def records(self, rows: int) -> None:
        """Rows were archived."""

    def errors(self, rows: int) -> None:
        """Rows were not: rejected whole, or planned in a partition that failed for good. Retries do not count."""

    def quarantined(self, values: int) -> None:
        """Values were set apart."""

    def verification_failed(self, count: int = 1) -> None:
        """Tables or archives turned out not to be what they should be."""

    def request(self, method: str, route: str, status: int, seconds: float, *, extraction: bool) -> None:
        """A request was answered. ``route``: its template, never its path. ``extraction``: it counts as one of the
        extraction API.
        """

    def run_ended(self, kind: str, state: RunState, seconds: float) -> None:
        """A run reached an end."""

    def batch_size(self, rows: int) -> None:
        """Batches have this many rows now; 0: their size in bytes decides."""

    def threads_active(self, change: int) -> None:
        """So many more (or fewer) threads read from sources."""

    def catalog_pool(self, use: Callable[[], PoolUse]) -> None:
        """Ask here how this process uses its connections to the catalog. ``use`` answers at once."""

    def source_pool(self, source: str, use: Callable[[], PoolUse]) -> AbstractContextManager[None]:
        """For the duration of the block, ask here how this process uses its connections to a source."""

    def caches(self, counts: Callable[[], Mapping[CacheName, Counts]]) -> None:
        """Ask here what this process found in its caches so far. ``counts`` answers at once, and never less than before."""

    def runs(self, count: Callable[[], Mapping[str, int] | None]) -> None:
        """Ask here how many runs are in which state. ``count`` answers soon; None: it is not known now."""

    def pools(self) -> Pools:
        """How all processes that are measured together use their pools."""

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Everything for Prometheus, other processes' part included, and its media type: what the Accept header asks for."""


class NoMetrics:
    """Nobody listens."""

    def records(self, rows: int) -> None:
        """Nothing."""

    def errors(self, rows: int) -> None:
        """Nothing."""

    def quarantined(self, values: int) -> None:
        """Nothing."""

    def verification_failed(self, count: int = 1) -> None:
        """Nothing."""

    def request(self, method: str, route: str, status: int, seconds: float, *, extraction: bool) -> None:
        """Nothing."""

    def run_ended(self, kind: str, state: RunState, seconds: float) -> None:
        """Nothing."""

    def batch_size(self, rows: int) -> None:
        """Nothing."""

    def threads_active(self, change: int) -> None:
        """Nothing."""

    def catalog_pool(self, use: Callable[[], PoolUse]) -> None:
        """Nothing."""

    def source_pool(self, source: str, use: Callable[[], PoolUse]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Nothing."""
        return nullcontext()

    def caches(self, counts: Callable[[], Mapping[CacheName, Counts]]) -> None:
        """Nothing."""

    def runs(self, count: Callable[[], Mapping[str, int] | None]) -> None:
        """Nothing."""

    def pools(self) -> Pools:
        """None."""
        return Pools(catalog={}, sources={})

    def exposition(self, accept: str) -> tuple[bytes, str]:  # noqa: ARG002
        """Nothing."""
        return b"", "text/plain; charset=utf-8"
