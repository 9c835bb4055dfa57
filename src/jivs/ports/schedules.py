"""The record of schedules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from jivs.domain.audit import Deed
from jivs.domain.extraction import Extraction
from jivs.domain.schedule import Schedule, ScheduleDraft
from jivs.ports.leases import Lease


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A run that a schedule asks for."""

    extraction: Extraction
    run_id: str
    archive: str


class Schedules(Protocol):
    """Each call is one short transaction; what changes something records its deed in the same one."""

    def add(self, draft: ScheduleDraft, next_run_at: datetime | None, actor: str, deed: Deed) -> Schedule:
        """A new schedule. Raises AlreadyExistsError for a name that is taken, whatever its case, NotFoundError if there is
        no such extraction.
        """

    def get(self, schedule_id: int) -> Schedule | None:
        """By id."""

    def page(
        self,
        *,
        after: int = 0,
        offset: int = 0,
        limit: int = 100,
        name: str = "",
        extraction_id: int = 0,
        enabled: bool | None = None,
        sort: str = "id",
        descending: bool = False,
    ) -> list[Schedule]:
        """Those above ``after`` by id, or from ``offset`` on in the order of ``sort`` (id, name, nextRunAt, createdAt,
        updatedAt); those without a next run come last. ``name``: part of the name, whatever its case.
        """

    def count(self, *, name: str = "", extraction_id: int = 0, enabled: bool | None = None) -> int:
        """How many ``page`` would give in all."""

    def change(
        self,
        schedule_id: int,
        version: int,
        draft: ScheduleDraft,
        deed: Deed,
        *,
        retimed: bool,
        next_run_at: datetime | None,
    ) -> Schedule:
        """Replace a schedule; its next time only if it is ``retimed``, or else one that is due now could be lost or come
        twice. Raises ConflictError if it changed since ``version``, AlreadyExistsError for a taken name, NotFoundError if
        there is no such extraction.
        """

    def remove(self, schedule_id: int, deed: Deed) -> bool:
        """Delete a schedule; False if there is none. Its runs go on."""

    def due(self, now: datetime, limit: int = 100) -> list[Schedule]:
        """Those whose next time has come, the longest due first."""

    def settle(
        self, lease: Lease, seen: Schedule, following: datetime | None, asked: Asked | None, message: str, deed: Deed
    ) -> Schedule | None:
        """See to the next time of a schedule: on it goes to the ``following`` one, with the run that is asked for.

        All in one transaction, in which the lease is the newest (or else FencedError) and the schedule is as it was seen
        (or else None, and nothing happened): no time comes twice. ``message`` and ``deed`` say what became of it; if the
        extraction has a run that has not ended and refuses another, that is said instead.
        """
