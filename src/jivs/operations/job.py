"""What an extraction is asked to do, and how it tells of its progress."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from jivs.domain.plan import Level, RunPlan, Selection
from jivs.domain.schema import TableName
from jivs.domain.source import Address, Limits
from jivs.errors import InterruptedRunError
from jivs.ports.connector import Pace

PARTITION_BYTES = 128 << 20
"""Size of a partition in the source: small enough that a crash costs little, large enough for good row groups."""


class Gate:
    """Where a run's readers ask at every batch whether to go on. Thread-safe."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._stop = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether the run is to end early."""
        return self._stop.is_set()

    @property
    def closed(self) -> bool:
        """Whether readers are to wait."""
        return not self._open.is_set()

    def stop(self) -> None:
        """Let the run end at the next batch; for good."""
        self._stop.set()
        self._open.set()

    def close(self) -> None:
        """Let readers wait at the next batch, with their place in the source."""
        if not self._stop.is_set():
            self._open.clear()

    def open(self) -> None:
        """Let them go on."""
        self._open.set()

    def rest(self, seconds: float) -> None:
        """Wait so long. Raises InterruptedRunError as soon as the run is to end."""
        if self._stop.wait(seconds):
            raise InterruptedRunError("Stopped. Go on with: --resume")

    def passed(self) -> None:
        """Wait while the gate is closed. Raises InterruptedRunError once the run is to end."""
        self._open.wait()
        if self._stop.is_set():
            raise InterruptedRunError("Stopped. Go on with: --resume")


class Room:
    """The connections of a run to its source, while other runs want some too: how many it may have, and how many it has.

    Thread-safe.
    """

    def __init__(self, allowed: int) -> None:
        self._lock = threading.Lock()
        self._allowed = self._taken = self._answered = allowed
        self._opening = 0

    @property
    def allowed(self) -> int:
        """How many it may have."""
        return self._allowed

    def allow(self, connections: int) -> None:
        """It may have so many from now on."""
        with self._lock:
            self._allowed = connections

    def fit(self, resize: Callable[[int], int]) -> None:
        """Have ``resize`` make it so many, and remember how many there are."""
        with self._lock:
            allowed = self._opening = self._allowed
        taken = resize(allowed)  # waits for servers: nobody may wait for that
        with self._lock:
            self._taken, self._answered, self._opening = taken, allowed, 0

    @property
    def taken(self) -> int:
        """How many it has, or may open."""
        with self._lock:
            most = self._taken if self._answered == self._allowed else max(self._taken, self._allowed)
            return max(most, self._opening)


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A run that the caller made and claimed in the catalog: its id, its epoch, and for how many seconds a renewal holds.

    The caller renews it too, and records how the run ended.
    """

    run_id: str
    epoch: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ExtractJob:
    """One extraction, as asked for. ``options`` are added to those of the address.

    ``resume``: go on with an unfinished run that reads the same; with a ``lease`` it is that run which goes on, if the
    archive knows it. ``pace``: instead of the limits' rows per second. ``room``: what it may have of the limits' connections
    just now.
    """

    address: Address
    archive: str
    selection: Selection
    limits: Limits
    level: Level = Level.COUNT
    source_name: str = ""
    resume: bool = False
    options: dict[str, str] = field(default_factory=dict)
    partition_bytes: int = PARTITION_BYTES
    gate: Gate = field(default_factory=Gate)
    pace: Pace | None = None
    lease: Lease | None = None
    room: Room | None = None


class Progress:
    """Hears of a run's progress; this one ignores it. Methods are called from any thread."""

    def planned(self, plan: RunPlan, resumed: int, rows: int) -> None:
        """The plan stands; ``resumed`` partitions are finished already, which have so many rows."""

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
