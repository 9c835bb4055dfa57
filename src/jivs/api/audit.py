"""``/audit``: who did what."""

from __future__ import annotations

import threading
import time
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from jivs.api.deps import LARGEST, AuditorDep, Count, GoneDep, Id, Model, Moment, ServiceDep
from jivs.api.document import fails
from jivs.domain.audit import End, Wanted
from jivs.errors import TooManyError
from jivs.operations import users

router = APIRouter(prefix="/audit", tags=["audit"])

_VERIFYING = threading.BoundedSemaphore(1)
"""All of the trail is read and hashed here, beside other requests."""

_SECONDS = 300
_BACK = 5
_PLAIN = r"^[^\x00-\x1f\x7f]*$"


class EntryOut(Model):
    """An entry. ``hash`` binds it to all entries before it."""

    seq: Id
    at: datetime
    actor: str
    action: str
    object: str
    detail: dict[str, Any]
    hash: str


class EntryPage(Model):
    """Entries, the newest first; ``nextCursor`` is there if there are more."""

    items: list[EntryOut]
    next_cursor: Id | None


class Trail(Model):
    """A trail that is whole. Note count and hash: a trail that is cut at its end shows only against them."""

    entries: Count
    hash: str


class Noted(Model):
    """What was noted of an earlier verification."""

    entries: Annotated[int, Field(ge=1, le=LARGEST)]
    hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@router.get("")
def list_audit_entries(
    service: ServiceDep,
    _: AuditorDep,
    actor: Annotated[str, Query(max_length=100, pattern=_PLAIN)] = "",
    action: Annotated[str, Query(max_length=60, pattern=_PLAIN)] = "",
    object_: Annotated[str, Query(alias="object", max_length=300, pattern=_PLAIN)] = "",
    since: Moment | None = None,
    until: Moment | None = None,
    cursor: Annotated[int, Query(ge=0, le=LARGEST)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> EntryPage:
    """The trail: of one actor, one action, one object, from ``since`` until before ``until``."""
    wanted = Wanted(
        actor=actor,
        action=action,
        object=object_,
        since=since.timestamp() if since else None,
        until=until.timestamp() if until else None,
    )
    found = service.accounts().deeds(wanted, before=cursor, limit=limit + 1)
    items = [
        EntryOut(
            seq=entry.seq,
            at=entry.moment,
            actor=entry.deed.actor,
            action=entry.deed.action,
            object=entry.deed.object,
            detail=dict(entry.deed.detail),
            hash=entry.hash,
        )
        for entry in found[:limit]
    ]
    return EntryPage(items=items, next_cursor=items[-1].seq if len(found) > limit else None)


@router.post("/verify", responses=fails(409))
def verify_audit_trail(service: ServiceDep, _: AuditorDep, left: GoneDep, noted: Noted | None = None) -> Trail:
    """Prove that nothing in the trail was changed, removed or added later, nor cut off behind what was noted."""
    if not _VERIFYING.acquire(blocking=False):
        raise TooManyError("Somebody is verifying the trail: try again in a moment.", seconds=_BACK)
    try:
        until = time.monotonic() + _SECONDS
        earlier = End(entries=noted.entries, hash=noted.hash) if noted else None
        end = users.verify_trail(service, earlier, lambda: left.is_set() or time.monotonic() > until)
    finally:
        _VERIFYING.release()
    return Trail(entries=end.entries, hash=end.hash)
