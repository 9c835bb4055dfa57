"""``/extractions``: what is read from where, and its runs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import Field, model_validator

from jivs.api.connections import ConnectionConfig, SourceType, address
from jivs.api.deps import LARGEST, Count, Given, GoneDep, Id, Model, ReaderDep, ServiceDep, VersionDep, WorkerDep, etag
from jivs.api.document import fails, tells
from jivs.api.idempotency import Idempotent
from jivs.api.paging import Part, part_in
from jivs.api.rates import ConnectingDep
from jivs.api.runs import (
    LogPage,
    PartitionPage,
    Priority,
    RunOut,
    RunPage,
    StatisticsOut,
    log_page,
    partition_page,
    run_out,
    run_page,
    statistics_out,
)
from jivs.api.sources import Name, Tried, tried
from jivs.domain.extraction import Extraction, ExtractionDraft, Job, WhenBusy
from jivs.domain.plan import Level, Selection
from jivs.domain.registry import ARCHIVE_NAME, SourceDraft, archive_name_of
from jivs.domain.run import Command, RunState
from jivs.errors import JivsError, UsageError
from jivs.operations import extractions, runs, sources
from jivs.ports.cache import CacheName, Miss
from jivs.ports.service import Service

router = APIRouter(prefix="/extractions", tags=["extractions"], route_class=Idempotent)

NEW = "NEW"
"""The status of an extraction that never ran."""

RunId = Annotated[str, Path(max_length=40, pattern="^[A-Za-z0-9-]+$", examples=["20260301T021500Z-3f9c21ab"])]
Pattern = Annotated[str, Field(min_length=1, max_length=300)]
Sql = Annotated[str, Field(max_length=100_000)]


class ExtractionIn(Given):
    """An extraction: a source, and what of it; all tables, if nothing is said.

    The source is ``sourceId``, or ``sourceType`` with ``connectionConfig``, which is kept as a source of the same name.
    """

    name: Name
    description: Annotated[str, Field(max_length=4000)] = ""
    source_id: Id | None = None
    source_type: SourceType | None = None
    connection_config: ConnectionConfig | None = None
    tables: Annotated[tuple[Pattern, ...], Field(max_length=10_000, examples=[["sales.*"]])] = ()
    exclude: Annotated[tuple[Pattern, ...], Field(max_length=10_000)] = ()
    extraction_query: Annotated[Sql, Field(description="One SELECT in the source's SQL, archived as a table.")] = ""
    query_name: Annotated[str, Field(max_length=100, description="Name of that table; the extraction's, if left out.")] = ""
    columns: Annotated[tuple[Pattern, ...], Field(max_length=10_000)] = ()
    where: Annotated[Sql, Field(description="Only rows that meet this condition, in the source's SQL.")] = ""
    archive: Annotated[
        str, Field(pattern=f"^({ARCHIVE_NAME})?$", description="Name of the archive; made from the name, if left out.")
    ] = ""
    verify: Level = Level.COUNT
    options: dict[str, str] = Field(
        default_factory=dict, max_length=50, description="Options of the source for this extraction."
    )
    parallel: Annotated[int, Field(ge=0, le=64, description="Readers at once; 0: the service's default.")] = 0
    batch_size: Annotated[int, Field(ge=0, le=10**9, description="Ceiling of rows per batch; 0: by bytes alone.")] = 0
    priority: Priority = 0
    when_busy: WhenBusy = WhenBusy.REFUSE
    timeout_seconds: Annotated[int, Field(ge=0, le=31_536_000, description="0: none.")] = 0
    attempts: Annotated[
        int, Field(ge=1, le=100, description="How often a run begins without getting any further before it fails.")
    ] = 3

    @model_validator(mode="after")
    def _one_source(self) -> ExtractionIn:
        given = self.source_type is not None or self.connection_config is not None
        if (self.source_id is None) is not given or (self.source_type is None) is not (self.connection_config is None):
            raise ValueError("give either sourceId, or sourceType and connectionConfig")
        return self


class ExtractionOut(Model):
    """An extraction. ``status``: the state of its newest run, NEW if it never ran."""

    status: Annotated[str, Field(json_schema_extra={"enum": [NEW, *RunState]})]
    last_run_id: str
    id: Id
    name: str
    description: str
    source_id: Id
    source_name: str
    tables: list[str]
    exclude: list[str]
    extraction_query: str
    query_name: str
    columns: list[str]
    where: str
    archive: str
    verify: Level
    options: dict[str, str]
    parallel: Count
    batch_size: Count
    priority: Priority
    when_busy: WhenBusy
    timeout_seconds: Count
    attempts: Count
    created_by: str
    created_at: datetime
    updated_at: datetime


class ExtractionPage(Model):
    """Extractions. By ``cursor``: ``nextCursor`` is there if there are more. By ``page``: ``total`` and ``totalPages``."""

    items: list[ExtractionOut]
    next_cursor: Id | None = None
    page: Count | None = None
    size: Count | None = None
    total: Count | None = None
    total_pages: Count | None = None


class TestedConnection(Given):
    """A connection to be tried: a source that is kept, or one that is not."""

    source_id: Id | None = None
    source_type: SourceType | None = None
    connection_config: ConnectionConfig | None = None


class Bulk(Model):
    """The same for several extractions."""

    action: Literal["start", "stop", "pause", "resume", "delete"]
    ids: Annotated[list[Id], Field(min_length=1, max_length=1000)]


class BulkResult(Model):
    """What became of one of them."""

    id: Id
    success: bool
    message: str = ""
    run_id: str = ""


class BulkResults(Model):
    """What became of each, in the order asked for."""

    results: list[BulkResult]


def _draft(body: ExtractionIn) -> ExtractionDraft:
    query = ((body.query_name or archive_name_of(body.name), body.extraction_query),) if body.extraction_query else ()
    return ExtractionDraft(
        name=body.name,
        description=body.description,
        source_id=body.source_id or 0,
        job=Job(
            archive=body.archive or archive_name_of(body.name),
            selection=Selection(
                tables=body.tables,
                exclude=body.exclude,
                queries=query,
                columns=body.columns,
                where=body.where,
            ),
            level=body.verify,
            options=body.options,
            parallel=body.parallel,
            batch_rows=body.batch_size,
            timeout_seconds=body.timeout_seconds,
            attempts=body.attempts,
        ),
        priority=body.priority,
        when_busy=body.when_busy,
    )


def extraction_out(one: Extraction) -> ExtractionOut:
    """An extraction as a body."""
    job, picked = one.job, one.job.selection
    name, query = picked.queries[0] if picked.queries else ("", "")
    return ExtractionOut(
        id=one.id,
        name=one.name,
        description=one.description,
        source_id=one.source_id,
        source_name=one.source_name,
        status=one.last_state or NEW,
        last_run_id=one.last_run,
        tables=list(picked.tables),
        exclude=list(picked.exclude),
        extraction_query=query,
        query_name=name,
        columns=list(picked.columns),
        where=picked.where,
        archive=job.archive,
        verify=job.level,
        options=job.options,
        parallel=job.parallel,
        batch_size=job.batch_rows,
        priority=one.priority,
        when_busy=one.when_busy,
        timeout_seconds=job.timeout_seconds,
        attempts=job.attempts,
        created_by=one.created_by,
        created_at=one.created_at,
        updated_at=one.updated_at,
    )


@router.get("")
def list_extractions(
    service: ServiceDep,
    _: ReaderDep,
    part: Annotated[Part, Depends(part_in("name", "createdAt", "updatedAt"))],
    name: Annotated[str, Query(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$", description="Part of the name.")] = "",
    source_id: Annotated[int, Query(alias="sourceId", ge=0, le=LARGEST)] = 0,
    status: RunState | None = None,
) -> ExtractionPage:
    """All extractions."""
    kept = service.extractions()
    filters = {"name": name, "source_id": source_id, "state": status.value if status else ""}
    return ExtractionPage(**part.shown(part.find(kept.page, **filters), extraction_out, kept.count, **filters))


@router.post("", status_code=201, response_model=ExtractionOut, responses=fails(404, 409))
def add_extraction(service: ServiceDep, worker: WorkerDep, body: ExtractionIn) -> Response:
    """Keep an extraction. Nothing is connected and nothing runs: POST /extractions/{id}/start does."""
    source = None
    if body.source_type is not None and body.connection_config is not None:
        source = SourceDraft(name=body.name, address=address(body.source_type, body.connection_config))
    made = extractions.add(service, worker.user.username, _draft(body), source)
    # Written here, in the thread that it was made in: the framework would hand it to another one to be checked.
    text = extraction_out(made).model_dump_json(by_alias=True)
    headers = {"Location": f"/api/v1/extractions/{made.id}", "ETag": etag(made.version)}
    return Response(text, status_code=201, headers=headers, media_type="application/json")


@router.post("/test-connection", responses=fails(404, 409))
def try_connection(service: ServiceDep, _: WorkerDep, __: ConnectingDep, left: GoneDep, body: TestedConnection) -> Tried:
    """Connect, and say what answered."""
    if body.source_id is not None:
        return tried(sources.try_kept(service, body.source_id, left))
    if body.source_type is None or body.connection_config is None:
        raise UsageError("Give either sourceId, or sourceType and connectionConfig.")
    where = address(body.source_type, body.connection_config)
    service.app.connector(where)  # of a kind that is there
    return tried(sources.try_address(service, where, left))


@router.post("/bulk")
def change_many_extractions(service: ServiceDep, worker: WorkerDep, body: Bulk) -> BulkResults:
    """Start, stop, pause, resume or delete several; each for itself."""
    results = []
    for one in body.ids:
        try:
            run_id = _do(service, worker.user.username, body.action, one)
            results.append(BulkResult(id=one, success=True, run_id=run_id))
        except JivsError as error:
            results.append(BulkResult(id=one, success=False, message=error.message))
    return BulkResults(results=results)


def _do(service: ServiceDep, actor: str, action: str, extraction_id: int) -> str:
    if action == "delete":
        extractions.remove(service, actor, extraction_id)
        return ""
    if action == "start":
        return runs.start(service, actor, extraction_id).id
    return runs.command(service, actor, extraction_id, Command(action)).id


@router.get("/{extraction_id:id}", responses=tells("ETag"))
def get_extraction(service: ServiceDep, _: ReaderDep, extraction_id: Id, response: Response) -> ExtractionOut:
    """One extraction."""
    found = extractions.get(service, extraction_id)
    response.headers["ETag"] = etag(found.version)
    return extraction_out(found)


@router.put("/{extraction_id:id}", responses=tells("ETag"))
def change_extraction(
    service: ServiceDep,
    worker: WorkerDep,
    extraction_id: Id,
    version: VersionDep,
    body: ExtractionIn,
    response: Response,
) -> ExtractionOut:
    """Replace an extraction; its source is changed at /sources. Runs that have begun go on as they were asked for."""
    if body.source_id is None:
        raise UsageError("Give sourceId: the connection of a kept source is changed at /sources.")
    changed = extractions.change(service, worker.user.username, extraction_id, version, _draft(body))
    response.headers["ETag"] = etag(changed.version)
    return extraction_out(changed)


@router.delete("/{extraction_id:id}", status_code=204, responses=fails(409))
def remove_extraction(service: ServiceDep, worker: WorkerDep, extraction_id: Id) -> None:
    """Delete an extraction and the record of its runs. Archives stay."""
    extractions.remove(service, worker.user.username, extraction_id)


@router.post("/{extraction_id:id}/start", status_code=202, responses=fails(409) | tells("Location", status=202))
def start_extraction(service: ServiceDep, worker: WorkerDep, extraction_id: Id, response: Response) -> RunOut:
    """Ask for a run; a worker takes it up."""
    run = runs.start(service, worker.user.username, extraction_id)
    response.headers["Location"] = f"/api/v1/extractions/{extraction_id}/runs/{run.id}"
    return run_out(run)


@router.post("/{extraction_id:id}/stop", status_code=202, responses=fails(409))
def stop_extraction(service: ServiceDep, worker: WorkerDep, extraction_id: Id) -> RunOut:
    """End the run at the next batch: CANCELLED, and nothing of it is published. One that is published by then ends as that.

    While the archive cannot be asked it stays RUNNING; a second stop asks once more, and ends it if the archive is still
    away.
    """
    return run_out(runs.command(service, worker.user.username, extraction_id, Command.STOP))


@router.post("/{extraction_id:id}/pause", status_code=202, responses=fails(409))
def pause_extraction(service: ServiceDep, worker: WorkerDep, extraction_id: Id) -> RunOut:
    """Hold the run at the next batch: PAUSED. It keeps its snapshot of the source for a while."""
    return run_out(runs.command(service, worker.user.username, extraction_id, Command.PAUSE))


@router.post("/{extraction_id:id}/resume", status_code=202, responses=fails(409))
def resume_extraction(service: ServiceDep, worker: WorkerDep, extraction_id: Id) -> RunOut:
    """Let a paused run go on."""
    return run_out(runs.command(service, worker.user.username, extraction_id, Command.RESUME))


@router.get("/{extraction_id:id}/statistics")
def get_extraction_statistics(service: ServiceDep, _: ReaderDep, extraction_id: Id) -> StatisticsOut:
    """What its kept runs add up to. While one is at work, the figures may be as old as CACHE_TTL_EXTRACTION_STATS."""
    extractions.get(service, extraction_id)
    return StatisticsOut.model_validate_json(statistics_body(service, extraction_id))


def statistics_body(service: Service, extraction_id: int) -> bytes:
    """The figures as they are shown, from the cache where it has them."""
    known = service.cache.get(CacheName.EXTRACTION_STATS, str(extraction_id))
    if not isinstance(known, Miss):
        return known
    found = statistics_out(service.work().statistics(extraction_id)).model_dump_json(by_alias=True).encode()
    service.cache.put(known, found)
    return found


@router.get("/{extraction_id:id}/logs")
def list_extraction_logs(
    service: ServiceDep,
    _: ReaderDep,
    extraction_id: Id,
    run_id: Annotated[str, Query(alias="runId", max_length=40, pattern="^[A-Za-z0-9-]*$")] = "",
    cursor: Annotated[int, Query(ge=0, le=LARGEST)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> LogPage:
    """What its runs said, the newest first."""
    extractions.get(service, extraction_id)
    return log_page(service.work().lines(extraction_id=extraction_id, run_id=run_id, before=cursor, limit=limit + 1), limit)


@router.get("/{extraction_id:id}/runs")
def list_runs(
    service: ServiceDep,
    _: ReaderDep,
    extraction_id: Id,
    state: RunState | None = None,
    cursor: Annotated[int, Query(ge=0, le=LARGEST)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> RunPage:
    """Its runs, the newest first."""
    extractions.get(service, extraction_id)
    states = [state] if state else []
    found = service.work().runs(extraction_id=extraction_id, states=states, before=cursor, limit=limit + 1)
    return run_page(found, limit)


@router.get("/{extraction_id:id}/runs/{run_id}")
def get_run(service: ServiceDep, _: ReaderDep, extraction_id: Id, run_id: RunId) -> RunOut:
    """One of its runs."""
    return run_out(runs.get(service, extraction_id, run_id))


@router.get("/{extraction_id:id}/runs/{run_id}/partitions")
def list_partitions(
    service: ServiceDep,
    _: ReaderDep,
    extraction_id: Id,
    run_id: RunId,
    cursor: Annotated[int, Query(ge=0, le=LARGEST)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> PartitionPage:
    """The parts of a run's work, and how far each is. There are none before its worker has planned it."""
    runs.get(service, extraction_id, run_id)
    return partition_page(service.app.catalog().steps(run_id, after=cursor, limit=limit + 1), limit)
