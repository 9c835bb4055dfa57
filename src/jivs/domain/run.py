"""Runs and their steps: states, allowed transitions, orders, progress."""

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
    RunState.PENDING: frozenset({RunState.RUNNING, RunState.PAUSED, RunState.CANCELLED, RunState.FAILED}),
    RunState.RUNNING: frozenset(RunState) - {RunState.RUNNING},
    RunState.PAUSED: frozenset(RunState) - {RunState.PAUSED},
    RunState.COMPLETED: frozenset(),
    RunState.INCOMPLETE: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
}
"""From RUNNING back to PENDING: given back by a worker that is shut down, or to be tried again. From PAUSED to an end: its
last batch was done when it was held.
"""

OPEN = tuple(state for state in RunState if not state.ended)
"""The states of runs that have not ended."""


class Order(StrEnum):
    """What a run's worker is told to do at the next batch."""

    GO_ON = ""
    PAUSE = "pause"
    CANCEL = "cancel"


class Command(StrEnum):
    """What users may ask of a run that has not ended."""

    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How far a run is. ``bytes`` of Arrow data; of a run that was begun again they count what its last worker did."""

    rows: int = 0
    bytes: int = 0
    quarantined_rows: int = 0
    quarantined_values: int = 0
    partitions: int = 0
    partitions_done: int = 0


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run as the catalog knows it. ``epoch`` is the fencing token of its owner's lease.

    Runs of the service have an extraction and a source; ``job`` is what the extraction was when the run was asked for,
    ``connections`` what its worker may open, ``failures`` how often it had to be tried again so far, and ``stalled`` how
    often since a part of its work got done: then ``done_before`` parts were.
    """

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
    seq: int = 0
    extraction_id: int = 0
    source_id: int = 0
    job: str = ""
    actor: str = ""
    priority: int = 0
    order: Order = Order.GO_ON
    phase: str = ""
    failures: int = 0
    stalled: int = 0
    done_before: int = 0
    not_before: float = 0.0
    connections: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    counts: Counts = Counts()


def stalled(run: Run, done: int) -> int:
    """How often a run that fails now, with so many parts done, has failed since a part of its work got done."""
    return 1 if done > run.done_before else run.stalled + 1


class StepState(StrEnum):
    """The life of a partition in a run."""

    READY = "READY"
    CLAIMED = "CLAIMED"
    DONE = "DONE"
    FAILED = "FAILED"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One partition's work. A claim raises ``epoch``; only the holder of the newest epoch may commit. ``seq``: its place."""

    run_id: str
    partition: str
    state: StepState
    epoch: int
    rows: int = 0
    attempts: int = 0
    seq: int = 0
