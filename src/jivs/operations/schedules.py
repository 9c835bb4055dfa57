"""Schedules that users keep in the service: made, changed, deleted, looked ahead of."""

from __future__ import annotations

from datetime import datetime

from jivs.domain import cron
from jivs.domain.audit import Deed
from jivs.domain.schedule import Schedule, ScheduleDraft
from jivs.errors import NotFoundError
from jivs.ports.service import Service


def add(service: Service, actor: str, draft: ScheduleDraft) -> Schedule:
    """A new schedule; its first time is after now."""
    cron.check(draft.timing)
    return service.schedules().add(draft, _next(service, draft), actor, _deed(actor, "added", draft))


def change(service: Service, actor: str, schedule_id: int, version: int, draft: ScheduleDraft) -> Schedule:
    """Replace a schedule. Its next time is looked for from now on if its times change or it is switched on or off; if not,
    a time that is due stays due.
    """
    old = get(service, schedule_id)
    cron.check(draft.timing)
    retimed = (old.timing, old.enabled) != (draft.timing, draft.enabled)
    following = _next(service, draft) if retimed else None
    deed = _deed(actor, "changed", draft)
    return service.schedules().change(schedule_id, version, draft, deed, retimed=retimed, next_run_at=following)


def remove(service: Service, actor: str, schedule_id: int) -> None:
    """Delete a schedule. Runs that it asked for go on."""
    old = get(service, schedule_id)
    service.schedules().remove(schedule_id, _deed(actor, "removed", old))


def get(service: Service, schedule_id: int) -> Schedule:
    """A schedule by id. Raises NotFoundError."""
    found = service.schedules().get(schedule_id)
    if found is None:
        raise NotFoundError(f"There is no schedule {schedule_id}.")
    return found


def preview(service: Service, schedule_id: int, count: int) -> list[datetime]:
    """The next times of a schedule on the clocks of its zone, whether it is enabled or not."""
    timing = get(service, schedule_id).timing
    times: list[datetime] = []
    found = cron.following(timing, service.clock.now())
    while found is not None and len(times) < count:
        times.append(cron.local(timing, found))
        found = cron.following(timing, found)
    return times


def _next(service: Service, draft: ScheduleDraft) -> datetime | None:
    return cron.following(draft.timing, service.clock.now()) if draft.enabled else None


def _deed(actor: str, verb: str, draft: ScheduleDraft) -> Deed:
    return Deed(actor=actor, action=f"schedule.{verb}", object=f"schedule:{draft.name}")
