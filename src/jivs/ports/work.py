"""The record of the service's runs: asked for, claimed by workers, told what to do, ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from jivs.domain.audit import Deed
from jivs.domain.extraction import Extraction, Statistics
from jivs.domain.run import Command, Counts, Order, Run, RunState


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a worker learns when it renews its lease. ``connections``: how many it may have from now on."""

    order: Order
    state: RunState
    connections: int


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a run's log."""

    seq: int
    run_id: str
    at: datetime
    level: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a run; ``data`` is the run's state as JSON."""

    id: int
    kind: str
    run_id: str
    extraction_id: int
    data: str


class Work(Protocol):
    """Each call is one short transaction. A change of a run's state is an event in the same transaction, and so is the deed
    of whoever asked for it.

    A run is at work while its lease lasts; its worker's connections count against the cap of its source until then. That is
    until somebody has seen it unchanged for too long (``silent``) or knows that its process has ended (``lost``), on no
    wall's clock: clocks that differ or are set take no lease away, and keep none with the dead.
    """

    def submit(self, extraction: Extraction, run_id: str, archive: str, actor: str, deed: Deed) -> Run:
        """A new PENDING run. Raises ConflictError if the extraction has a run that has not ended and refuses another,
        NotFoundError if it has gone.
        """

    def run(self, run_id: str) -> Run | None:
        """By id."""

    def runs(
        self,
        *,
        extraction_id: int = 0,
        states: Iterable[RunState] = (),
        before: int = 0,
        limit: int = 100,
        oldest: bool = False,
    ) -> list[Run]:
        """The newest first, or the ``oldest``; ``before``: only those with a smaller ``seq``."""

    def waiting(self, limit: int = 100) -> int:
        """About how many runs a claim could take now, at most ``limit``."""

    def claim(self, owner: str, seconds: float) -> Run | None:
        """Take the next run: one whose worker fell silent, or the PENDING one of the highest priority that waits longest and
        whose source has connections to spare. It is RUNNING then (or still PAUSED, if that is what it was told), with
        ``connections`` granted, and ``failures`` counts how often its workers fell silent.
        """

    def keep(
        self, run_id: str, epoch: int, seconds: float, counts: Counts, phase: str, *, taken: int = 0, most: int = 0
    ) -> Kept | None:
        """Renew the lease and tell how far it is; None: fenced.

        ``taken``: connections that it has, if they became fewer; ``most``: how many it could use. Where others wait for the
        source and find no room, it may have only its share from now on, and what is above counts until it is given up; where
        nobody waits, it may have more.
        """

    def pace(self, source_id: int, rows: int, rate: int) -> float:
        """Queue for so many rows of a source, behind those that all of its runs asked for before, at ``rate`` rows per
        second; how many seconds from now they may be read.
        """

    def hold(self, run_id: str, epoch: int) -> bool:
        """The worker has paused, and holds its place: PAUSED under its lease. False if it was told to go on meanwhile.
        Raises FencedError.
        """

    def settle(
        self,
        run_id: str,
        epoch: int,
        to: RunState,
        message: str = "",
        *,
        counts: Counts | None = None,
        retry_at: float = 0.0,
        doubtful: bool = False,
    ) -> bool:
        """The worker lets go of the run in this state. False: it was told to go on meanwhile (a hold that is given up).

        ``retry_at``: for PENDING, not before this time (seconds since the epoch), and it counts as a failure.
        ``doubtful``: whether it is published cannot be told: that is no failure to give up by, and a run that was told to
        stop or, given back, to pause, stays as it is until ``retry_at``, for whoever claims it then. Raises FencedError,
        ConflictError where the table of transitions forbids it.
        """

    def command(self, run_id: str, command: Command, deed: Deed, *, doubtful: bool | None = None) -> Run:
        """Carry out what needs no worker, and leave the rest to the run's. ``doubtful``: whether it is published cannot be
        told, so that a stop is left to a worker; a second one, while the first waits for the archive, ends it. None: its
        archive was not asked, for a worker had it or none ever had. Raises NotFoundError, ConflictError where the state
        forbids it.
        """

    def lost(self, owner_prefix: str) -> int:
        """The processes whose owner's name begins so have ended: their leases end now. How many."""

    def silent(self, seconds: float) -> int:
        """End the leases that nobody renewed for so long while this process watched, by its monotonic clock. How many. To be
        called at least as often as leases are renewed.
        """

    def log(self, run: Run, lines: Iterable[tuple[datetime, str, str]]) -> None:
        """Add lines (time, level, message) to a run's log."""

    def lines(self, *, extraction_id: int = 0, run_id: str = "", before: int = 0, limit: int = 100) -> list[Line]:
        """The newest first."""

    def statistics(self, extraction_id: int) -> Statistics:
        """Of all kept runs of an extraction."""

    def events(self, after: int, limit: int = 500) -> list[Event]:
        """The oldest first, those above ``after``."""

    def last_event(self) -> int:
        """The newest event's id; 0 if there is none."""

    def sweep(self, *, keep_runs: int, keep_seconds: float) -> int:
        """Remove ended runs that are older than ``keep_seconds`` or not among the newest ``keep_runs`` of their extraction,
        and old events. The number of runs removed.
        """

    def by_state(self) -> dict[str, int]:
        """How many runs there are in each state."""
