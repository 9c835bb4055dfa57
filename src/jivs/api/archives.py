"""``/archives``: what was extracted, by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field
from starlette.exceptions import HTTPException

from jivs.api.deps import Count, Given, GoneDep, Model, QuerierDep, ReaderDep, ServiceDep
from jivs.api.document import fails, tells
from jivs.api.downloads import Stream, attachment, part, unchanged
from jivs.api.rows import Form
from jivs.domain.archive import TableState
from jivs.domain.finding import Severity
from jivs.domain.registry import ARCHIVE_NAME
from jivs.domain.schema import Fidelity, TableKind
from jivs.operations import archives
from jivs.operations.manifests import Summary

router = APIRouter(prefix="/archives", tags=["archives"])

NamePath = Annotated[str, Field(pattern=f"^{ARCHIVE_NAME}$", max_length=100, examples=["sales"])]
Number = Annotated[int | None, Query(ge=1, le=99_999_999, description="Of an earlier manifest; left out: the newest.")]
Cursor = Annotated[str, Query(max_length=2000, description="nextCursor of the page before.")]
_TABLES = 200
_FILE = ("ETag", "Accept-Ranges", "Content-Disposition")
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_TEXT = {"type": "string"}
_CONDITIONS = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": meaning,
        "example": example,
    }
    for name, meaning, example in (
        ("Range", "One range of bytes; what cannot be understood, and several ranges, are the whole.", "bytes=0-1023"),
        ("If-Range", "The ETag of the part that is there already: of another file the whole is sent.", f'"{"0" * 64}"'),
        ("If-None-Match", "The ETag of the file that is there already: then 304.", f'"{"0" * 64}"'),
    )
]


class SummaryOut(Model):
    """What a manifest sums up to. ``bytes``: of all files of the state; ``failed``: tables of its run not published."""

    number: Count
    sha256: str
    previous: str
    published_at: str
    run_id: str
    tables: Count
    rows: Count
    bytes: Count
    rows_quarantined: Count
    values_quarantined: Count
    failed: Count


class ArchiveOut(Model):
    """An archive. ``newest`` is null where its newest manifest cannot be read: ``error`` says why."""

    name: str
    newest: SummaryOut | None
    error: str


class ArchivePage(Model):
    """Archives by name; ``nextCursor`` is there if there are more."""

    items: list[ArchiveOut]
    next_cursor: str | None


class ColumnOut(Model):
    """A column: its type in the archive and in the source. ``fidelity``: exact, or text where its text was kept."""

    name: str
    type: str
    source_type: str
    fidelity: Fidelity
    nullable: bool


class ArchivedTable(Model):
    """A table. ``level`` and ``verdict``: what was compared with the source when it was published, and what came out."""

    source: str
    schema_: Annotated[str, Field(alias="schema")]
    name: str
    kind: TableKind
    rows: Count
    bytes: Count
    segments: Count
    rows_quarantined: Count
    values_quarantined: Count
    level: str
    verdict: str
    one_snapshot: bool
    changed_in: Count
    primary_key: list[str]
    columns: list[ColumnOut]
    notes: list[str]


class StateOut(Model):
    """A state of an archive, with a page of its tables."""

    name: str
    archive_id: str
    state: SummaryOut
    tool: str
    sources: dict[str, dict[str, Any]]
    failed: list[dict[str, str]]
    notes: list[str]
    tables: list[ArchivedTable]
    next_cursor: Count | None


class ManifestPage(Model):
    """Manifests, the newest first: each names the SHA-256 of the one before. ``nextCursor`` is there if there are more."""

    items: list[SummaryOut]
    next_cursor: Count | None


class FileOut(Model):
    """A file of a state."""

    path: str
    bytes: Count
    sha256: str


class FilePage(Model):
    """Files by path; ``nextCursor`` is there if there are more."""

    items: list[FileOut]
    next_cursor: str | None


class VerifyIn(Given):
    """How deeply to verify; each level includes those before it. ``expect``: the SHA-256 noted when it was published."""

    level: Literal["files", "count", "full"] = "files"
    expect: Annotated[str, Field(pattern="^([0-9a-fA-F]{64})?$")] = ""


class FindingOut(Model):
    """Something found. ``severity``: an error makes the archive unsound, a note does not."""

    code: str
    severity: Severity
    object: str
    message: str


class VerdictOut(Model):
    """What a verification found: ``found`` findings, of which the first thousand are listed."""

    level: str
    sound: bool
    manifest: Count
    manifest_sha256: str
    tables: Count
    rows: Count
    files: Count
    bytes: Count
    found: Count
    findings: list[FindingOut]
    notes: list[str]


class QueryIn(Given):
    """One SELECT in DuckDB's SQL. Tables are ``schema.table``, and ``table`` where that is unique. ``asOf``: the number of
    an earlier manifest; ``limit``: rows at most, 0: as many as the service gives.
    """

    sql: Annotated[
        str, Field(min_length=1, max_length=100_000, examples=["select country, count(*) from customers group by 1"])
    ]
    limit: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    as_of: Annotated[int | None, Field(ge=1, le=99_999_999)] = None


class ResultColumn(Model):
    """A column of a result, with DuckDB's name of its type."""

    name: str
    type: str


class ResultOut(Model):
    """Rows; ``truncated`` if there are more. No value is rounded: docs/api.md says which come as text."""

    columns: list[ResultColumn]
    rows: list[list[Any]]
    truncated: bool
    seconds: float


def _summary(found: Summary) -> SummaryOut:
    return SummaryOut(
        number=found.number,
        sha256=found.sha256,
        previous=found.previous,
        published_at=found.created,
        run_id=found.run_id,
        tables=found.tables,
        rows=found.rows,
        bytes=found.bytes,
        rows_quarantined=found.rows_quarantined,
        values_quarantined=found.values_quarantined,
        failed=found.failed,
    )


def _table(table: TableState) -> ArchivedTable:
    return ArchivedTable(
        source=table.source,
        schema_=table.name.schema,
        name=table.name.name,
        kind=table.kind,
        rows=table.rows,
        bytes=sum(segment.bytes for segment in table.segments),
        segments=len(table.segments),
        rows_quarantined=table.rows_quarantined,
        values_quarantined=table.values_quarantined,
        level=table.proof.level,
        verdict=table.proof.verdict,
        one_snapshot=table.proof.one_snapshot,
        changed_in=table.changed_in,
        primary_key=list(table.primary_key),
        columns=[
            ColumnOut(
                name=column.name,
                type=str(column.type),
                source_type=column.source_type,
                fidelity=column.fidelity,
                nullable=column.nullable,
            )
            for column in table.columns
        ],
        notes=list(table.notes),
    )


async def _form(request: Request) -> Form:
    """The first media type of Accept that there is; JSON for whoever takes anything."""
    for given in request.headers.get("accept", "*/*").split(","):
        wanted = given.partition(";")[0].strip().lower()
        if wanted in {"*/*", "application/*", ""}:
            return Form.JSON
        for form in Form:
            if wanted in {form.value, form.value.partition("/")[0] + "/*"}:
                return form
    raise HTTPException(406, f"Results come as {', '.join(Form)}.")


FormDep = Annotated[Form, Depends(_form)]


@router.get("")
def list_archives(
    service: ServiceDep,
    _: ReaderDep,
    name: Annotated[str, Query(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$", description="Part of the name.")] = "",
    cursor: Cursor = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> ArchivePage:
    """All archives, each with what its newest manifest sums up to."""
    found = archives.listed(service, after=cursor, limit=limit + 1, name=name)
    items = [
        ArchiveOut(name=one.name, newest=_summary(one.newest) if one.newest else None, error=one.error)
        for one in found[:limit]
    ]
    return ArchivePage(items=items, next_cursor=items[-1].name if len(found) > limit else None)


@router.get("/{name}", responses=fails(409))
def get_archive(
    service: ServiceDep,
    _: ReaderDep,
    name: NamePath,
    number: Number = None,
    cursor: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = _TABLES,
) -> StateOut:
    """One archive: its tables with their columns, and what was proved of them when they were published."""
    summary, link = archives.state(service, name, number)
    manifest = link.manifest
    return StateOut(
        name=name,
        archive_id=manifest.archive_id,
        state=_summary(summary),
        tool=manifest.tool,
        sources=manifest.sources,
        failed=list(manifest.failed),
        notes=list(manifest.notes),
        tables=[_table(table) for table in manifest.tables[cursor : cursor + limit]],
        next_cursor=cursor + limit if len(manifest.tables) > cursor + limit else None,
    )


@router.get(
    "/{name}/manifest",
    response_class=Response,
    responses=tells("ETag", content={"application/json": {"schema": {"type": "object", "title": "Manifest"}}})
    | tells("ETag", status=304, description="The client has it already.")
    | fails(409),
)
def get_manifest(service: ServiceDep, _: ReaderDep, name: NamePath, request: Request, number: Number = None) -> Response:
    """A manifest, byte for byte. Its ETag is its SHA-256: note it, and give it to a verification as ``expect``."""
    raw, sha256 = archives.manifest(service, name, number)
    tag = f'"{sha256}"'
    if unchanged(request, tag):
        return Response(status_code=304, headers={"ETag": tag})
    return Response(raw, media_type="application/json", headers={"ETag": tag})


@router.get("/{name}/manifests", responses=fails(409))
def list_manifests(
    service: ServiceDep,
    _: ReaderDep,
    name: NamePath,
    cursor: Annotated[int, Query(ge=0, le=99_999_999)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> ManifestPage:
    """The chain of manifests."""
    found = archives.manifests(service, name, before=cursor, limit=limit + 1)
    items = [_summary(one) for one in found[:limit]]
    return ManifestPage(items=items, next_cursor=items[-1].number if len(found) > limit else None)


@router.post("/{name}/verify", responses=fails(409, 429))
def verify_archive(service: ServiceDep, querier: QuerierDep, name: NamePath, gone: GoneDep, body: VerifyIn) -> VerdictOut:
    """Prove that an archive is what was published. It has a time limit, which ``jivs verify`` does not have."""
    said = archives.verify(service, querier.user.username, name, body.level, body.expect, gone)
    return VerdictOut(
        level=said["level"],
        sound=said["sound"],
        manifest=said["manifest"],
        manifest_sha256=said["manifest_sha256"],
        tables=said["tables"],
        rows=said["rows"],
        files=said["files"],
        bytes=said["bytes"],
        found=said["found"],
        findings=[FindingOut(**finding) for finding in said["findings"]],
        notes=said["notes"],
    )


@router.post(
    "/{name}/query",
    response_class=Response,
    responses=tells(
        "JiVS-Manifest",
        "JiVS-Rows",
        "JiVS-Truncated",
        model=ResultOut,
        content={
            Form.CSV: {"schema": {"type": "string"}, "example": "status,orders\r\npaid,20\r\nopen,2\r\n"},
            Form.ARROW: {"schema": {"type": "string", "format": "binary"}},
        },
    )
    | fails(406, 409, 429),
)
def query_archive(
    service: ServiceDep, querier: QuerierDep, name: NamePath, gone: GoneDep, form: FormDep, body: QueryIn
) -> Response:
    """Run one SELECT, in a process of its own with limits on time, memory and rows."""
    found = archives.query(
        service, querier.user.username, name, body.sql, form.value, gone, number=body.as_of, limit=body.limit
    )
    headers = {
        "JiVS-Manifest": str(found.manifest),
        "JiVS-Rows": str(found.rows),
        "JiVS-Truncated": "true" if found.truncated else "false",
    }
    return Stream(lambda: found.file, found.bytes, media_type=form.value, headers=headers)


@router.get("/{name}/files", responses=fails(409))
def list_archive_files(
    service: ServiceDep,
    _: ReaderDep,
    name: NamePath,
    number: Number = None,
    cursor: Cursor = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> FilePage:
    """The files of a state. Written as ``sha256  path``, a line each, they are what sha256sum --check reads."""
    found = archives.files(service, name, number, after=cursor, limit=limit + 1)
    items = [FileOut(path=one.path, bytes=one.bytes, sha256=one.sha256) for one in found[:limit]]
    return FilePage(items=items, next_cursor=items[-1].path if len(found) > limit else None)


@router.get(
    "/{name}/files/{path:path}",
    response_class=Response,
    responses=tells(*_FILE, content=_BYTES, description="The file.")
    | tells(
        "ETag",
        "Accept-Ranges",
        "Content-Disposition",
        "Content-Range",
        status=206,
        content=_BYTES,
        description="A part of it.",
    )
    | tells(*_FILE, status=304, description="The client has it already.")
    | fails(409, 416),
    openapi_extra={"parameters": _CONDITIONS},
)
def download_file(
    service: ServiceDep,
    querier: QuerierDep,
    name: NamePath,
    path: Annotated[str, Field(max_length=2000)],
    request: Request,
    number: Number = None,
) -> Response:
    """Download a file, or a part of it. Its ETag is the SHA-256 that it has to have."""
    wanted = archives.file(service, name, path, number)
    tag = f'"{wanted.sha256}"'
    headers = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Disposition": attachment(wanted.path)}
    if unchanged(request, tag):
        return Response(status_code=304, headers=headers)
    asked = part(request, tag, wanted.bytes)
    first, count = asked or (0, wanted.bytes)
    if asked:
        headers["Content-Range"] = f"bytes {first}-{first + count - 1}/{wanted.bytes}"
    return Stream(
        lambda: archives.read(service, querier.user.username, name, wanted, first, count),
        count,
        media_type="application/octet-stream",
        headers=headers,
        status=206 if asked else 200,
    )
