"""Rows of the catalog's tables as nouns of the domain."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from jivs.domain.run import Counts, Order, Run, RunState, Step, StepState, stalled

COUNTS = ("rows", "bytes", "quarantined_rows", "quarantined_values", "partitions", "partitions_done")


def moment(seconds: float | None) -> datetime | None:
    """A time that may not be there."""
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None


def run(row: Any) -> Run:
    """A row of ``runs``."""
    return Run(
        seq=row["seq"],
        id=row["id"],
        kind=row["kind"],
        source=row["source"],
        archive=row["archive"],
        digest=row["digest"],
        state=RunState(row["state"]),
        message=row["message"],
        epoch=row["epoch"],
        owner=row["owner"],
        lease_until=moment(row["lease_until"]),
        created_at=datetime.fromtimestamp(row["created_at"], UTC),
        updated_at=datetime.fromtimestamp(row["updated_at"], UTC),
        extraction_id=row["extraction_id"],
        source_id=row["source_id"],
        job=row["job"],
        actor=row["actor"],
        priority=row["priority"],
        order=Order(row["order"]),
        phase=row["phase"],
        failures=max(row["failed"], row["failures"]),  # the older code of a rollout knows the second only
        stalled=row["failures"],
        done_before=row["done_before"],
        not_before=row["not_before"],
        connections=row["connections"],
        started_at=moment(row["started_at"]),
        ended_at=moment(row["ended_at"]),
        counts=Counts(**{name: row[name] for name in COUNTS}),
    )


def failed(row: Any, done: int) -> dict[str, int]:
    """What changes in a row of ``runs`` that failed once more, with so many parts done."""
    one = run(row)
    return {"failed": one.failures + 1, "failures": stalled(one, done), "done_before": max(done, one.done_before)}


def step(row: Any) -> Step:
    """A row of ``steps``."""
    return Step(
        run_id=row["run_id"],
        partition=row["partition"],
        state=StepState(row["state"]),
        epoch=row["epoch"],
        rows=row["rows"],
        attempts=row["attempts"],
        seq=row["seq"],
    )


def told(row: Any) -> str:
    """What an event tells of a run: JSON in the names of the API."""
    return json.dumps(
        {
            "runId": row["id"],
            "extractionId": row["extraction_id"],
            "state": row["state"],
            "phase": row["phase"],
            "message": row["message"],
            "rows": row["rows"],
            "bytes": row["bytes"],
            "partitions": row["partitions"],
            "partitionsDone": row["partitions_done"],
        },
        ensure_ascii=False,
    )
