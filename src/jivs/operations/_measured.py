"""What reading tells the metrics."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager

from jivs.domain.archive import Part
from jivs.domain.plan import TablePlan
from jivs.operations.job import ExtractJob
from jivs.ports.metrics import Metrics


@contextmanager
def readers(metrics: Metrics, job: ExtractJob, threads: int) -> Iterator[None]:
    """So many threads read, for the duration of the block."""
    metrics.batch_size(job.limits.batch_rows)
    metrics.threads_active(threads)
    try:
        yield
    finally:
        metrics.threads_active(-threads)


def finished(metrics: Metrics, part: Part) -> None:
    """A partition is in the archive."""
    metrics.records(part.rows)
    metrics.errors(part.quarantined_rows)
    metrics.quarantined(sum(segment.values_quarantined for segment in part.segments))


def given_up(metrics: Metrics, plan: TablePlan, done: Container[str]) -> None:
    """A table failed for good: what was planned of it and is not ``done`` counts, one row where nobody estimated."""
    metrics.errors(sum(max(1, part.estimated_rows) for part in plan.partitions if part.id not in done))
