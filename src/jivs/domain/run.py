"""Runs and their steps: states, allowed transitions, leases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class RunState(StrEnum):
    """The life of a run."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    INCOMPLETE = "INCOMPLETE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        return not TRANSITIONS[self]


TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    RunState.PENDING: frozenset({RunState.RUNNING, RunState.CANCELLED, RunState.FAILED}),
    RunState.RUNNING: frozenset(
        {RunState.PAUSED, RunState.COMPLETED, RunState.INCOMPLETE, RunState.FAILED, RunState.CANCELLED}
    ),
    RunState.PAUSED: frozenset({RunState.RUNNING, RunState.CANCELLED, RunState.FAILED}),
    RunState.COMPLETED: frozenset(),
    RunState.INCOMPLETE: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run as the catalog knows it. ``epoch`` is the fencing token of its owner's lease."""

    id: str
    kind: str
    source: str
    archive: str
    digest: str
    state: RunState
    created_at: datetime
    updated_at: datetime
    epoch: int = 0
    owner: str = ""
    lease_until: datetime | None = None
    message: str = ""


class StepState(StrEnum):
    """The life of a partition in a run."""

    READY = "READY"
    CLAIMED = "CLAIMED"
    DONE = "DONE"
    FAILED = "FAILED"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One partition's work. A claim raises ``epoch``; only the holder of the newest epoch may commit."""

    run_id: str
    partition: str
    state: StepState
    epoch: int
    rows: int = 0
    attempts: int = 0
