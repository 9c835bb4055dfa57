"""What an extraction is asked to do, and how it tells of its progress."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from jivs.domain.plan import Level, RunPlan, Selection
from jivs.domain.schema import TableName
from jivs.domain.source import Limits

PARTITION_BYTES = 128 << 20
"""Size of a partition in the source: small enough that a crash costs little, large enough for good row groups."""


@dataclass(frozen=True, kw_only=True)
class ExtractJob:
    """One extraction, as asked for. ``options`` are added to those of the URL; ``stop`` is set by whoever wants it to end
    early.
    """

    url: str
    archive: str
    selection: Selection
    limits: Limits
    level: Level = Level.COUNT
    source_name: str = ""
    resume: bool = False
    options: dict[str, str] = field(default_factory=dict)
    partition_bytes: int = PARTITION_BYTES
    stop: threading.Event = field(default_factory=threading.Event)


class Progress:
    """Hears of a run's progress; this one ignores it. Methods are called from any thread."""

    def planned(self, plan: RunPlan, resumed: int) -> None:
        """The plan stands; ``resumed`` partitions are finished already."""

    def advanced(self, table: TableName, rows: int, size: int) -> None:
        """Rows (and bytes of Arrow data) of a table were read."""

    def partition(self, table: TableName, partition: str) -> None:
        """A partition is finished."""

    def warned(self, message: str) -> None:
        """Something worth knowing."""

    def phase(self, name: str) -> None:
        """Another phase begins."""


@dataclass(frozen=True, kw_only=True)
class TableResult:
    """A line of the closing table. ``source_rows`` is -1 where nothing was counted."""

    table: TableName
    source_rows: int
    archived: int
    quarantined_rows: int
    quarantined_values: int
    verdict: str
    seconds: float
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended. ``complete``: every table verified as asked."""

    run_id: str
    complete: bool
    schema_changed: bool
    level: Level
    snapshot_one: bool
    manifest: int
    manifest_sha256: str
    tables: tuple[TableResult, ...]
    notes: tuple[str, ...]
    seconds: float
