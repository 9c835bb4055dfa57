"""``/schedules``: extractions that run by themselves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from jivs.api.deps import LARGEST, Count, Given, Id, Model, Moment, ReaderDep, ServiceDep, VersionDep, WorkerDep, etag
from jivs.api.document import fails, tells
from jivs.api.idempotency import Idempotent
from jivs.api.paging import Part, part_in
from jivs.domain.schedule import MissedRuns, Schedule, ScheduleDraft, Timing
from jivs.operations import schedules

router = APIRouter(prefix="/schedules", tags=["schedules"], route_class=Idempotent)


class ScheduleIn(Given):
    """A schedule: which extraction, and when."""

    name: Annotated[str, Field(min_length=1, max_length=90, pattern=r"^[^\x00-\x1f\x7f]*$", examples=["nightly"])]
    extraction_id: Id
    cron: Annotated[
        str,
        Field(
            min_length=1,
            max_length=200,
            pattern=r"^[\x20-\x7e]*$",
            description="Minute, hour, day of month, month, day of week; or @hourly, @daily, @weekly, @monthly, @yearly.",
            examples=["30 2 * * MON-FRI"],
        ),
    ]
    time_zone: Annotated[
        str, Field(max_length=60, description="Of the IANA: on whose clocks.", examples=["Europe/Berlin"])
    ] = "UTC"
    missed_runs: Annotated[MissedRuns, Field(description="What happens to times that passed while nothing could run.")] = (
        MissedRuns.SKIP
    )
    enabled: bool = True
    not_before: Moment | None = None
    not_after: Moment | None = None


class ScheduleOut(Model):
    """A schedule. ``lastMessage``: why its last time gave no run; empty if it did."""

    id: Id
    name: str
    extraction_id: Id
    extraction_name: str
    cron: str
    time_zone: str
    missed_runs: MissedRuns
    enabled: bool
    not_before: datetime | None
    not_after: datetime | None
    next_run_at: datetime | None
    last_run_at: datetime | None
    last_run_id: str
    last_message: str
    created_by: str
    created_at: datetime
    updated_at: datetime


class SchedulePage(Model):
    """Schedules. By ``cursor``: ``nextCursor`` is there if there are more. By ``page``: ``total`` and ``totalPages``."""

    items: list[ScheduleOut]
    next_cursor: Id | None = None
    page: Count | None = None
    size: Count | None = None
    total: Count | None = None
    total_pages: Count | None = None


class TimeOut(Model):
    """A time, in UTC and on the clocks of the schedule's zone."""

    at: datetime
    local: datetime


class Preview(Model):
    """The next times of a schedule. Fewer than asked for: there are no more."""

    time_zone: str
    times: list[TimeOut]


def _draft(body: ScheduleIn) -> ScheduleDraft:
    return ScheduleDraft(
        name=body.name,
        extraction_id=body.extraction_id,
        timing=Timing(
            cron=body.cron,
            time_zone=body.time_zone,
            not_before=body.not_before.astimezone(UTC) if body.not_before else None,
            not_after=body.not_after.astimezone(UTC) if body.not_after else None,
        ),
        missed_runs=body.missed_runs,
        enabled=body.enabled,
    )


def _out(one: Schedule) -> ScheduleOut:
    timing = one.timing
    return ScheduleOut(
        id=one.id,
        name=one.name,
        extraction_id=one.extraction_id,
        extraction_name=one.extraction_name,
        cron=timing.cron,
        time_zone=timing.time_zone,
        missed_runs=one.missed_runs,
        enabled=one.enabled,
        not_before=timing.not_before,
        not_after=timing.not_after,
        next_run_at=one.next_run_at,
        last_run_at=one.last_run_at,
        last_run_id=one.last_run_id,
        last_message=one.last_message,
        created_by=one.created_by,
        created_at=one.created_at,
        updated_at=one.updated_at,
    )


@router.get("")
def list_schedules(
    service: ServiceDep,
    _: ReaderDep,
    part: Annotated[Part, Depends(part_in("name", "nextRunAt", "createdAt", "updatedAt"))],
    name: Annotated[str, Query(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$", description="Part of the name.")] = "",
    extraction_id: Annotated[int, Query(alias="extractionId", ge=0, le=LARGEST)] = 0,
    enabled: bool | None = None,
) -> SchedulePage:
    """All schedules."""
    kept = service.schedules()
    filters: dict[str, Any] = {"name": name, "extraction_id": extraction_id, "enabled": enabled}
    return SchedulePage(**part.shown(part.find(kept.page, **filters), _out, kept.count, **filters))


@router.post("", status_code=201, responses=fails(404, 409))
def add_schedule(service: ServiceDep, worker: WorkerDep, body: ScheduleIn, response: Response) -> ScheduleOut:
    """Keep a schedule. Its first time is after now."""
    made = schedules.add(service, worker.user.username, _draft(body))
    response.headers["Location"] = f"/api/v1/schedules/{made.id}"
    response.headers["ETag"] = etag(made.version)
    return _out(made)


@router.get("/{schedule_id:id}", responses=tells("ETag"))
def get_schedule(service: ServiceDep, _: ReaderDep, schedule_id: Id, response: Response) -> ScheduleOut:
    """One schedule. Its ETag is of what users set, not of its times."""
    found = schedules.get(service, schedule_id)
    response.headers["ETag"] = etag(found.version)
    return _out(found)


@router.put("/{schedule_id:id}", responses=tells("ETag"))
def change_schedule(
    service: ServiceDep, worker: WorkerDep, schedule_id: Id, version: VersionDep, body: ScheduleIn, response: Response
) -> ScheduleOut:
    """Replace a schedule. If its times change, or it is switched on, the next one is after now."""
    changed = schedules.change(service, worker.user.username, schedule_id, version, _draft(body))
    response.headers["ETag"] = etag(changed.version)
    return _out(changed)


@router.delete("/{schedule_id:id}", status_code=204)
def remove_schedule(service: ServiceDep, worker: WorkerDep, schedule_id: Id) -> None:
    """Delete a schedule. Runs that it asked for go on."""
    schedules.remove(service, worker.user.username, schedule_id)


@router.get("/{schedule_id:id}/preview")
def preview_schedule(
    service: ServiceDep, _: ReaderDep, schedule_id: Id, count: Annotated[int, Query(ge=1, le=100)] = 10
) -> Preview:
    """Its next times from now on, also of one that is not enabled."""
    times = schedules.preview(service, schedule_id, count)
    timing = schedules.get(service, schedule_id).timing
    return Preview(time_zone=timing.time_zone, times=[TimeOut(at=one.astimezone(UTC), local=one) for one in times])
