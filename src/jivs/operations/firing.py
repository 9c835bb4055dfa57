"""Times of schedules that have come: each asks for its run once, or says why not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from jivs.domain import cron
from jivs.domain.audit import Deed
from jivs.domain.schedule import MissedRuns, Schedule
from jivs.errors import UsageError
from jivs.operations._run_id import new_run_id
from jivs.ports.cache import CacheName
from jivs.ports.clock import stamp
from jivs.ports.leases import Lease
from jivs.ports.schedules import Asked
from jivs.ports.service import Service

ON_TIME = timedelta(seconds=60)
"""A time that nobody could see to for longer was missed."""

_INSTANT = timedelta(microseconds=1)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Verdict:
    """What becomes of what is due: the time that gets a run, the time that the schedule goes on to, why there is no run."""

    run_for: datetime | None
    following: datetime | None
    message: str = ""


def fire(service: Service, lease: Callable[[], Lease | None]) -> None:
    """See to the schedules whose time has come, as long as this process has the duty. Raises FencedError once it has not."""
    for schedule in service.schedules().due(service.clock.now()):
        held = lease()
        if held is None:
            return
        _settle(service, held, schedule)


def _settle(service: Service, lease: Lease, schedule: Schedule) -> None:
    due = schedule.next_run_at
    extraction = service.extractions().get(schedule.extraction_id)
    if due is None or extraction is None:  # it went in the meantime
        return
    verdict = _judge(schedule, due, service.clock.now())
    if verdict.run_for is None:
        detail: dict[str, str | int | bool | None] = {"due": stamp(due), "why": verdict.message}
        deed = Deed(actor=schedule.actor, action="run.skipped", object=f"extraction:{extraction.name}", detail=detail)
        asked = None
    else:
        run_id = new_run_id(service.clock)
        detail = {"run": run_id, "due": stamp(verdict.run_for)}
        deed = Deed(actor=schedule.actor, action="run.started", object=f"extraction:{extraction.name}", detail=detail)
        asked = Asked(extraction=extraction, run_id=run_id, archive=service.shelf.address(extraction.job.archive))
    settled = service.schedules().settle(lease, schedule, verdict.following, asked, verdict.message, deed)
    if settled is None:  # somebody changed it, or was first
        return
    began = asked is not None and settled.last_run_id == asked.run_id
    if began:
        service.cache.drop(CacheName.EXTRACTION_STATS, str(extraction.id))
        service.queue.publish(settled.last_run_id)
    what = f"run {settled.last_run_id}" if began else settled.last_message
    _LOG.info("Schedule %s, due %s: %s", schedule.name, stamp(due), what)


def _judge(schedule: Schedule, due: datetime, now: datetime) -> _Verdict:
    """A time on time gets its run, and so does each one after it. Of times that were missed none does, or all together get
    one, unless another one is on time.
    """
    timing, oldest = schedule.timing, now - ON_TIME
    try:
        if due >= oldest:
            return _Verdict(run_for=due, following=cron.following(timing, due))
        current = cron.following(timing, oldest - _INSTANT)
        if current is not None and current <= now:
            return _Verdict(run_for=current, following=cron.following(timing, current))
        if schedule.missed_runs is MissedRuns.RUN_ONCE:
            return _Verdict(run_for=due, following=current)
    except UsageError as error:  # of another version of JiVS, or a zone that is no more
        return _Verdict(run_for=None, following=None, message=error.message)
    message = f"Nothing could run at {stamp(due)}, and it was missed by more than a minute: skipped, as missedRuns says."
    return _Verdict(run_for=None, following=current, message=message)
