"""``/audit``: who did what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from jivs.api.deps import LARGEST, AuditorDep, Count, Id, Model, ServiceDep
from jivs.api.document import fails
from jivs.operations import users

router = APIRouter(prefix="/audit", tags=["audit"])

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


@router.get("")
def list_audit_entries(
    service: ServiceDep,
    _: AuditorDep,
    actor: Annotated[str, Query(max_length=100, pattern=_PLAIN)] = "",
    object_: Annotated[str, Query(alias="object", max_length=300, pattern=_PLAIN)] = "",
    cursor: Annotated[int, Query(ge=0, le=LARGEST)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> EntryPage:
    """The trail."""
    found = service.accounts().deeds(before=cursor, limit=limit + 1, actor=actor, object_=object_)
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
def verify_audit_trail(service: ServiceDep, _: AuditorDep) -> Trail:
    """Prove that nothing in the trail was changed, removed or added later."""
    entries, last = users.verify_trail(service)
    return Trail(entries=entries, hash=last)
