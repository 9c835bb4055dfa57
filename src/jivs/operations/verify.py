"""Verify: an archive by itself, and against its source."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jivs.archive import chain
from jivs.archive import verify as proof
from jivs.archive.reader import batches, quarantined_cells
from jivs.domain.archive import TableState
from jivs.domain.finding import Finding, Severity, Verdict
from jivs.domain.fingerprint import EMPTY
from jivs.domain.schema import TableKind
from jivs.domain.source import Address, Limits
from jivs.errors import UsageError
from jivs.ports.app import App
from jivs.ports.connector import Connector, Narrowing, Request, Session
from jivs.ports.store import Store
from jivs.transfer.conform import conform
from jivs.transfer.rowdiff import RowDiff, Rows
from jivs.transfer.throttle import Throttle
from jivs.wire.rowhash import RowHasher


@dataclass(frozen=True, kw_only=True)
class VerifyJob:
    """What is to be verified, how deeply, and against what."""

    archive: str
    level: str
    limits: Limits
    source: str = ""
    source_name: str = ""
    expect: str = ""


def verify(app: App, job: VerifyJob, progress: proof.Progress = lambda _name, _bytes: None) -> Verdict:
    """The verdict on an archive; with ``source`` also on what differs in the source by now."""
    verdict = _verify(app, job, progress)
    app.metrics.verification_failed(sum(finding.severity is Severity.ERROR for finding in verdict.findings))
    return verdict


def _verify(app: App, job: VerifyJob, progress: proof.Progress) -> Verdict:
    store = app.store(job.archive)
    verdict = proof.verify(store, job.level, expect=job.expect, threads=max(2, store.parallel // 2), progress=progress)
    if not job.source:
        return verdict
    if job.level == "files":
        raise UsageError("--source compares with the source: say --level count or --level full.")
    findings, notes = _against_source(app, store, job)
    return replace(verdict, findings=(*verdict.findings, *findings), notes=(*verdict.notes, *notes))


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Tables that were taken of the source in the same way, and so share a session."""

    columns: tuple[str, ...]
    where: str
    tables: tuple[TableState, ...]


def _against_source(app: App, store: Store, job: VerifyJob) -> tuple[list[Finding], list[str]]:
    address = app.address(job.source)
    connector = app.connector(address)
    manifest = chain.require(store).manifest
    label = job.source_name or connector.label(address)
    mine = [table for table in manifest.tables if table.source == label]
    if not mine:
        known = ", ".join(sorted({table.source for table in manifest.tables}))
        raise UsageError(f"The archive has no table of a source named {label}; it has: {known}. Say --source-name.")
    findings: list[Finding] = []
    notes = ["differences from the source tell what the source is now; they are no damage of the archive"]
    for group in _groups(store, mine):
        findings += _check_group(app, store, job, address, connector, group)
    return findings, notes


def _groups(store: Store, tables: list[TableState]) -> list[_Group]:
    found: dict[tuple[tuple[str, ...], str], list[TableState]] = {}
    for table in tables:
        taken: dict[str, Any] = {"columns": [], "where": ""}
        if table.schema_file is not None:
            taken = json.loads(store.read(table.schema_file.path))["taken"]
        found.setdefault((tuple(taken["columns"]), taken["where"]), []).append(table)
    return [_Group(columns=columns, where=where, tables=tuple(own)) for (columns, where), own in found.items()]


def _check_group(
    app: App, store: Store, job: VerifyJob, address: Address, connector: Connector, group: _Group
) -> list[Finding]:
    queries = {
        table.name.name: json.loads(store.read(table.schema_file.path))["definition"]
        for table in group.tables
        if table.kind is TableKind.QUERY and table.schema_file is not None
    }
    request = Request(queries=queries, narrowing=Narrowing(columns=group.columns, where=group.where))
    pace = Throttle(job.limits.rows_per_second, app.clock)
    findings: list[Finding] = []
    with closing(connector.open(address, job.limits, request, pace)) as session:
        there = {listing.name for listing in session.tables()}
        for table in group.tables:
            if table.name not in there:
                findings.append(_differs(table, "it is gone from the source"))
        present = [table for table in group.tables if table.name in there]
        session.begin([table.name for table in present])
        for table in present:
            findings += _check_table(store, session, job, table)
    return findings


def _check_table(store: Store, session: Session, job: VerifyJob, table: TableState) -> list[Finding]:
    now = session.describe(table.name)
    before = [(column.name, column.type, column.source_type) for column in table.columns]
    if before != [(column.name, column.type, column.source_type) for column in now.columns]:
        return [_differs(table, "its columns are others now")]
    if not table.columns or job.level == "count":
        rows = session.count(now, {})
        expected = table.rows + table.rows_quarantined
        return [_differs(table, f"{rows} rows in the source, {expected} in the archive")] if rows != expected else []
    found = session.fingerprint(now, {})
    cells = quarantined_cells(store, table)
    hasher = RowHasher(table.columns)
    mine = EMPTY
    for segment in table.segments:
        mine += proof.segment_fingerprint(store, table, segment, cells.get(segment.sha256, {}), hasher)
    return [] if found == mine else _row_differences(store, session, table)


def _row_differences(store: Store, session: Session, table: TableState) -> list[Finding]:
    """Which rows and columns, by key."""
    now = session.describe(table.name)

    def source() -> Rows:
        for chunk in session.read(now, {}):
            done = conform(now.columns, chunk)
            yield done.batch, done.overrides

    def archive() -> Rows:
        return _archived(store, table)

    with (
        tempfile.TemporaryDirectory(prefix="jivs-") as folder,
        RowDiff(Path(folder), table.columns, table.primary_key) as diff,
    ):
        diff.add("source", source())
        diff.add("archive", archive())
        added, removed, changed = diff.counts()
        if not added and not removed and not changed:
            message = (
                "the source computes another fingerprint, but every row as read now equals the archive: the source's hash "
                "and the driver disagree; report this"
            )
            return [Finding(code="hash-differs", severity=Severity.ERROR, object=table.label, message=message)]
        findings = [_differs(table, f"rows added: {added}, removed: {removed}, changed: {changed}")]
        suspects = diff.suspects()
        theirs, mine = diff.texts(source(), suspects), diff.texts(archive(), suspects)
        findings += [_differs(table, diff.sentence(theirs.get(key, []), mine.get(key, []))) for key in sorted(suspects)]
    return findings


def _archived(store: Store, table: TableState) -> Iterator[Any]:
    cells = quarantined_cells(store, table)
    for segment in table.segments:
        yield from batches(store, table, segment, cells.get(segment.sha256, {}))


def _differs(table: TableState, message: str) -> Finding:
    return Finding(
        code="source-differs", severity=Severity.DIFFERS, object=table.label, message=f"the source differs now: {message}"
    )
