"""Schedules that users keep: when an extraction runs by itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class MissedRuns(StrEnum):
    """What happens to times that passed while nothing could run."""

    SKIP = "SKIP"
    RUN_ONCE = "RUN_ONCE"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """When: the times of ``cron`` on the clocks of a time zone, none before ``not_before`` or after ``not_after``."""

    cron: str
    time_zone: str = "UTC"
    not_before: datetime | None = None
    not_after: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ScheduleDraft:
    """A schedule as it is to be."""

    name: str
    extraction_id: int
    timing: Timing
    missed_runs: MissedRuns = MissedRuns.SKIP
    enabled: bool = True


@dataclass(frozen=True, kw_only=True)
class Schedule(ScheduleDraft):
    """A schedule that is kept. ``next_run_at``: the next time that is to be seen to, None if there is none.

    ``last_run_at`` and ``last_run_id``: of the last run that it asked for; ``last_message``: why a time gave no run, empty
    if the last one did.
    """

    id: int
    version: int
    created_by: str
    created_at: datetime
    updated_at: datetime
    extraction_name: str
    next_run_at: datetime | None
    last_run_at: datetime | None
    last_run_id: str
    last_message: str

    @property
    def actor(self) -> str:
        """Who asks for its runs, in the audit trail."""
        return f"schedule:{self.name}"
