"""Extractions that users keep: which source, what of it, into which archive, and how."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from jivs.domain.plan import Level, Selection


class WhenBusy(StrEnum):
    """What happens to a start while an earlier run of the same extraction has not ended."""

    REFUSE = "REFUSE"
    QUEUE = "QUEUE"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a run does. 0 in a number means the service's default; ``timeout_seconds`` 0: none.

    ``attempts``: how often a run begins, and no part of its work gets done, before an error that may pass makes it fail.
    """

    archive: str
    selection: Selection = field(default_factory=Selection)
    level: Level = Level.COUNT
    options: dict[str, str] = field(default_factory=dict)
    parallel: int = 0
    batch_rows: int = 0
    timeout_seconds: int = 0
    attempts: int = 3

    def to_json(self) -> str:
        picked = self.selection
        return json.dumps(
            {
                "archive": self.archive,
                "tables": picked.tables,
                "exclude": picked.exclude,
                "queries": picked.queries,
                "columns": picked.columns,
                "where": picked.where,
                "level": self.level,
                "options": self.options,
                "parallel": self.parallel,
                "batch_rows": self.batch_rows,
                "timeout_seconds": self.timeout_seconds,
                "attempts": self.attempts,
            },
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        data: dict[str, Any] = json.loads(text)
        selection = Selection(
            tables=tuple(data.pop("tables")),
            exclude=tuple(data.pop("exclude")),
            queries=tuple((name, sql) for name, sql in data.pop("queries")),
            columns=tuple(data.pop("columns")),
            where=data.pop("where"),
        )
        return cls(selection=selection, level=Level(data.pop("level")), **data)


@dataclass(frozen=True, kw_only=True)
class ExtractionDraft:
    """An extraction as it is to be."""

    name: str
    source_id: int
    job: Job
    description: str = ""
    priority: int = 0
    when_busy: WhenBusy = WhenBusy.REFUSE


@dataclass(frozen=True, kw_only=True)
class Extraction(ExtractionDraft):
    """An extraction that is kept. ``last_run`` and ``last_state``: of its newest run, empty if it never ran."""

    id: int
    version: int
    created_by: str
    created_at: datetime
    updated_at: datetime
    source_name: str = ""
    source_version: int = 0
    last_run: str = ""
    last_state: str = ""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What an extraction's kept runs add up to. Seconds are of runs that have ended; times are None where nothing ran."""

    by_state: dict[str, int]
    rows: int
    bytes: int
    quarantined_rows: int
    quarantined_values: int
    average_seconds: float
    last_completed_at: datetime | None

    @property
    def runs(self) -> int:
        return sum(self.by_state.values())
