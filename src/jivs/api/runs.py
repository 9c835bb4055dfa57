"""Runs, their logs and what they add up to, as bodies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import Field

from jivs.api.deps import Count, Id, Model
from jivs.domain.extraction import Statistics
from jivs.domain.run import Order, Run, RunState, Step, StepState
from jivs.ports.work import Line

Priority = Annotated[int, Field(ge=-100, le=100, description="Runs of higher priority begin first.")]


class RunOut(Model):
    """A run. ``order``: what it was told and has not done yet. ``failures``: how often it had to be tried again.

    ``bytes`` are of data in memory: what was read again after a fault counts again, and what a worker read in the second
    before it was killed does not. While it runs, ``rows`` are those of finished parts, and what was read of others.
    """

    id: str
    extraction_id: Id
    state: RunState
    order: Order
    phase: str
    message: str
    archive: str
    started_by: str
    priority: Priority
    failures: Count
    rows: Count
    bytes: Count
    quarantined_rows: Count
    quarantined_values: Count
    partitions: Count
    partitions_done: Count
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class RunPage(Model):
    """Runs, the newest first; ``nextCursor`` is there if there are more."""

    items: list[RunOut]
    next_cursor: Id | None


class PartitionOut(Model):
    """A part of a run's work: a range of a table, or several small tables. ``attempts``: how often a reader began it."""

    id: str
    state: StepState
    rows: Count
    attempts: Count


class PartitionPage(Model):
    """Partitions in the order in which they are read; ``nextCursor`` is there if there are more."""

    items: list[PartitionOut]
    next_cursor: Id | None


class LineOut(Model):
    """A line of a log."""

    run_id: str
    at: datetime
    level: Annotated[str, Field(json_schema_extra={"enum": ["INFO", "WARN", "ERROR"]})]
    message: str


class LogPage(Model):
    """Lines, the newest first; ``nextCursor`` is there if there are more."""

    items: list[LineOut]
    next_cursor: Id | None


class StatisticsOut(Model):
    """What the kept runs of an extraction add up to, those that were given up too.

    ``successRate``: COMPLETED among those that ended, 0 to 1.
    """

    runs: Count
    by_state: dict[RunState, Count]
    success_rate: Annotated[float, Field(ge=0, le=1)]
    rows: Count
    bytes: Count
    quarantined_rows: Count
    quarantined_values: Count
    average_seconds: Annotated[float, Field(ge=0)]
    last_completed_at: datetime | None


def run_out(run: Run) -> RunOut:
    """A run as a body."""
    return RunOut(
        id=run.id,
        extraction_id=run.extraction_id,
        state=run.state,
        order=run.order,
        phase=run.phase,
        message=run.message,
        archive=PurePosixPath(run.archive).name,
        started_by=run.actor,
        priority=run.priority,
        failures=run.failures,
        rows=run.counts.rows,
        bytes=run.counts.bytes,
        quarantined_rows=run.counts.quarantined_rows,
        quarantined_values=run.counts.quarantined_values,
        partitions=run.counts.partitions,
        partitions_done=run.counts.partitions_done,
        created_at=run.created_at,
        started_at=run.started_at,
        ended_at=run.ended_at,
    )


def run_page(found: Sequence[Run], limit: int) -> RunPage:
    """The first ``limit`` of them, one more having been asked for."""
    return RunPage(
        items=[run_out(run) for run in found[:limit]], next_cursor=found[limit - 1].seq if len(found) > limit else None
    )


def partition_page(found: Sequence[Step], limit: int) -> PartitionPage:
    """The first ``limit`` of them, one more having been asked for."""
    items = [PartitionOut(id=one.partition, state=one.state, rows=one.rows, attempts=one.attempts) for one in found[:limit]]
    return PartitionPage(items=items, next_cursor=found[limit - 1].seq if len(found) > limit else None)


def log_page(found: Sequence[Line], limit: int) -> LogPage:
    """The first ``limit`` of them, one more having been asked for."""
    lines = [LineOut(run_id=one.run_id, at=one.at, level=one.level, message=one.message) for one in found[:limit]]
    return LogPage(items=lines, next_cursor=found[limit - 1].seq if len(found) > limit else None)


def statistics_out(found: Statistics) -> StatisticsOut:
    """Statistics as a body."""
    ended = sum(count for state, count in found.by_state.items() if RunState(state).ended)
    return StatisticsOut(
        runs=found.runs,
        by_state={state: found.by_state.get(state.value, 0) for state in RunState},
        success_rate=found.by_state.get(RunState.COMPLETED.value, 0) / ended if ended else 0.0,
        rows=found.rows,
        bytes=found.bytes,
        quarantined_rows=found.quarantined_rows,
        quarantined_values=found.quarantined_values,
        average_seconds=found.average_seconds,
        last_completed_at=found.last_completed_at,
    )
