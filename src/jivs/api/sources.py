"""``/sources``: where data comes from."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from jivs.api.deps import (
    AdminDep,
    Count,
    Estimate,
    Given,
    GoneDep,
    Hidden,
    Id,
    Model,
    ReaderDep,
    ServiceDep,
    VersionDep,
    WorkerDep,
    etag,
)
from jivs.api.document import fails, tells
from jivs.api.idempotency import Idempotent
from jivs.api.paging import Part, part_in
from jivs.api.rates import ConnectingDep
from jivs.domain.registry import Source, SourceDraft
from jivs.domain.schema import TableKind
from jivs.domain.source import Secret
from jivs.operations import sources
from jivs.ports.cache import CacheName, Miss

router = APIRouter(prefix="/sources", tags=["sources"], route_class=Idempotent)

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$", examples=["sales"])]


class SourceIn(Given):
    """A source. The URL may hold user and password; ``password`` counts before it. Left out, a kept password stays."""

    name: Name
    url: Annotated[str, Field(min_length=1, max_length=4000, examples=["postgresql://reader@db.example:5432/sales"])]
    username: Annotated[str, Field(max_length=300)] = ""
    password: Annotated[Hidden | None, Field(max_length=4000)] = None
    max_connections: Annotated[int, Field(ge=0, le=1000, description="At once; 0: the service's default.")] = 0
    max_rows_per_second: Annotated[int, Field(ge=0, le=10**9, description="0: no limit.")] = 0


class SourceOut(Model):
    """A source, without its password."""

    id: Id
    name: str
    kind: str
    url: str
    username: str
    has_password: bool
    options: dict[str, str]
    max_connections: Count
    max_rows_per_second: Count
    created_at: datetime
    updated_at: datetime


class SourcePage(Model):
    """Sources. By ``cursor``: ``nextCursor`` is there if there are more. By ``page``: ``total`` and ``totalPages``."""

    items: list[SourceOut]
    next_cursor: Id | None = None
    page: Count | None = None
    size: Count | None = None
    total: Count | None = None
    total_pages: Count | None = None


class Tried(Model):
    """What answered, or why nothing did."""

    success: bool
    message: str
    product: str = ""
    version: str = ""


class Turned(Model):
    """How many passwords were under an older key, and how many there are."""

    turned: Count
    passwords: Count


class SourceTable(Model):
    """A table of a source. Estimates are -1 where the source has none."""

    schema_: Annotated[str, Field(alias="schema")]
    name: str
    kind: TableKind
    estimated_rows: Estimate
    estimated_bytes: Estimate


def _draft(body: SourceIn) -> SourceDraft:
    address = sources.parse(body.url)
    password = Secret(body.password.get_secret_value()) if body.password is not None else address.password
    return SourceDraft(
        name=body.name,
        address=replace(address, password=password, username=body.username or address.username),
        max_connections=body.max_connections,
        max_rows_per_second=body.max_rows_per_second,
    )


def _out(source: Source) -> SourceOut:
    return SourceOut(
        id=source.id,
        name=source.name,
        kind=source.address.scheme,
        url=source.address.shown,
        username=source.address.username,
        has_password=bool(source.sealed),
        options=source.address.options,
        max_connections=source.max_connections,
        max_rows_per_second=source.max_rows_per_second,
        created_at=source.created_at,
        updated_at=source.updated_at,
    )


def tried(answer: sources.Answer) -> Tried:
    """What answered, as a body."""
    if answer.server is None:
        return Tried(success=False, message=answer.error)
    return Tried(success=True, message="It answers.", product=answer.server.product, version=answer.server.version)


@router.get("")
def list_sources(
    service: ServiceDep,
    _: ReaderDep,
    part: Annotated[Part, Depends(part_in("name", "createdAt", "updatedAt"))],
    name: Annotated[str, Query(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$", description="Part of the name.")] = "",
) -> SourcePage:
    """All sources."""
    kept = service.registry()
    return SourcePage(**part.shown(part.find(kept.sources, name=name), _out, kept.count_sources, name=name))


@router.post("", status_code=201, responses=fails(409))
def add_source(service: ServiceDep, worker: WorkerDep, body: SourceIn, response: Response) -> SourceOut:
    """Keep a source. Nothing is connected: POST /sources/{id}/test does."""
    source = sources.add(service, worker.user.username, _draft(body))
    response.headers["Location"] = f"/api/v1/sources/{source.id}"
    response.headers["ETag"] = etag(source.version)
    return _out(source)


@router.get("/{source_id:id}", responses=tells("ETag"))
def get_source(service: ServiceDep, _: ReaderDep, source_id: Id, response: Response) -> SourceOut:
    """One source."""
    known = service.cache.get(CacheName.DATASOURCES, str(source_id))
    if isinstance(known, Miss):
        source = sources.get(service, source_id)
        response.headers["ETag"] = tag = etag(source.version)
        shown = _out(source)
        service.cache.put(known, f"{tag}\n{shown.model_dump_json(by_alias=True)}".encode())
        return shown
    response.headers["ETag"], _newline, body = known.decode().partition("\n")
    return SourceOut.model_validate_json(body)


@router.put("/{source_id:id}", responses=tells("ETag"))
def change_source(
    service: ServiceDep, worker: WorkerDep, source_id: Id, version: VersionDep, body: SourceIn, response: Response
) -> SourceOut:
    """Replace a source."""
    draft = _draft(body)
    keep = body.password is None and not draft.address.password
    source = sources.change(service, worker.user.username, source_id, version, draft, keep_password=keep)
    response.headers["ETag"] = etag(source.version)
    return _out(source)


@router.delete("/{source_id:id}", status_code=204, responses=fails(409))
def remove_source(service: ServiceDep, worker: WorkerDep, source_id: Id) -> None:
    """Delete a source. Archives that were made from it stay."""
    sources.remove(service, worker.user.username, source_id)


@router.post("/turn-keys", responses=fails(409))
def turn_keys(service: ServiceDep, admin: AdminDep) -> Turned:
    """Encrypt every password with the newest key. When all are, the old keys may go from ENCRYPTION_KEY."""
    turned, seen = sources.turn_keys(service, admin.user.username)
    return Turned(turned=turned, passwords=seen)


@router.post("/{source_id:id}/test", responses=fails(409))
def try_source(service: ServiceDep, _: WorkerDep, __: ConnectingDep, left: GoneDep, source_id: Id) -> Tried:
    """Connect, and say what answered."""
    return tried(sources.try_kept(service, source_id, left))


@router.get("/{source_id:id}/tables", responses=fails(409))
def list_source_tables(
    service: ServiceDep, _: WorkerDep, __: ConnectingDep, left: GoneDep, source_id: Id
) -> list[SourceTable]:
    """What the source has."""
    return [
        SourceTable(
            schema_=listing.name.schema,
            name=listing.name.name,
            kind=listing.kind,
            estimated_rows=listing.estimated_rows,
            estimated_bytes=listing.estimated_bytes,
        )
        for listing in sources.tables(service, source_id, left)
    ]
