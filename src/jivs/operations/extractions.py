"""Extractions that users keep in the service: made, changed, deleted, looked at."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from jivs.domain.audit import Deed
from jivs.domain.extraction import Extraction, ExtractionDraft
from jivs.domain.registry import SourceDraft, require_archive_name, without_password
from jivs.domain.source import Address
from jivs.errors import NotFoundError, UsageError
from jivs.operations import sources
from jivs.operations._select_only import require_condition, require_select
from jivs.ports.connector import Request
from jivs.ports.service import Service
from jivs.transfer.throttle import Throttle


def add(service: Service, actor: str, draft: ExtractionDraft, source: SourceDraft | None = None) -> Extraction:
    """A new extraction. With ``source`` that is made too, of the same name, both or none. Nothing is connected."""
    deed = Deed(actor=actor, action="extraction.added", object=f"extraction:{draft.name}")
    if source is None:
        _check(service, draft, sources.get(service, draft.source_id).address)
        return service.extractions().add(draft, actor, deed)
    sources.check(service, source)
    _check(service, draft, source.address)
    password = source.address.password
    added = Deed(
        actor=actor, action="source.added", object=f"source:{source.name}", detail={"address": source.address.shown}
    )
    return service.extractions().add_with_source(
        draft,
        replace(source, address=without_password(source.address)),
        lambda where: service.vault.seal(password, where) if password else "",
        actor,
        (added, deed),
    )


def change(service: Service, actor: str, extraction_id: int, version: int, draft: ExtractionDraft) -> Extraction:
    """Replace an extraction. Runs that have begun go on as they were asked for."""
    get(service, extraction_id)
    _check(service, draft, sources.get(service, draft.source_id).address)
    deed = Deed(actor=actor, action="extraction.changed", object=f"extraction:{draft.name}")
    return service.extractions().change(extraction_id, version, draft, deed)


def remove(service: Service, actor: str, extraction_id: int) -> None:
    """Delete an extraction and the record of its runs. Archives stay."""
    old = get(service, extraction_id)
    service.extractions().remove(
        extraction_id, Deed(actor=actor, action="extraction.removed", object=f"extraction:{old.name}")
    )


def get(service: Service, extraction_id: int) -> Extraction:
    """An extraction by id. Raises NotFoundError."""
    extraction = service.extractions().get(extraction_id)
    if extraction is None:
        raise NotFoundError(f"There is no extraction {extraction_id}.")
    return extraction


def _check(service: Service, draft: ExtractionDraft, address: Address) -> None:
    """Whether it can work, as far as that can be said without asking the source."""
    job = draft.job
    require_archive_name(job.archive)
    address = replace(address, options={**address.options, **job.options})
    connector = service.app.connector(address)
    if (job.selection.queries or job.selection.where) and not connector.capabilities.can_query:
        raise UsageError(f"A source of the kind {connector.kind} has no SQL: leave extractionQuery and where out.")
    for name, sql in job.selection.queries:
        require_select(sql, address.scheme, f"Query {name}")
    if job.selection.where:
        require_condition(job.selection.where, address.scheme)
    with closing(connector.open(address, service.app.limits, Request(), Throttle(0, service.clock))):
        pass  # its options are typed, and nothing connects before it is asked for something
