"""Verification from the archive alone, at three levels (``docs/verification.md``)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from jivs.archive import chain, layout
from jivs.archive.parallel import each
from jivs.archive.reader import batches, quarantined_cells
from jivs.archive.runs import open_runs, run_of_file
from jivs.domain.archive import FileRef, Manifest, Segment, TableState
from jivs.domain.finding import Finding, Severity, Verdict
from jivs.domain.fingerprint import EMPTY, Fingerprint
from jivs.errors import DamagedError
from jivs.ports.store import Store
from jivs.wire.rowhash import RowHasher

_BLOCK = 4 << 20
_SMALL = 1 << 20
_NO_ANCHOR = (
    "a chain has no anchor of its own: to prove that its newest manifest is the one once published, compare its SHA-256 "
    "with the one printed then (--expect)"
)
Progress = Callable[[str, int], None]


@dataclass
class _Work:
    """What a verification has found so far."""

    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    bad: set[str] = field(default_factory=set)

    def error(self, code: str, what: str, message: str) -> None:
        self.findings.append(Finding(code=code, severity=Severity.ERROR, object=what, message=message))

    def note(self, code: str, what: str, message: str) -> None:
        self.findings.append(Finding(code=code, severity=Severity.NOTE, object=what, message=message))


def verify(
    store: Store, level: str, *, expect: str = "", threads: int = 2, progress: Progress = lambda _name, _bytes: None
) -> Verdict:
    """Verify at ``files``, ``count`` or ``full``; each level includes those before it."""
    link = chain.require(store)
    manifest = link.manifest
    work = _Work()
    manifests = _check_chain(store, link, expect, work)
    _check_files(store, manifests, work, threads, progress)
    if not any(finding.code == "chain-broken" for finding in work.findings):
        _check_extra(store, work)
    for table in manifest.tables:
        _check_totals(table, work)
    if level in {"count", "full"}:
        _check_counts(store, manifest.tables, work)
    if level == "full":
        known = _small_fingerprints(store, manifest.tables, work)
        for table in manifest.tables:
            _check_fingerprints(store, table, known, work)
    notes = [] if expect else [_NO_ANCHOR]
    if level == "full":
        segments = [segment for table in manifest.tables if table.columns for segment in table.segments]
        hashed = sum(1 for segment in segments if segment.fingerprint)
        notes.append(f"{hashed} of {len(segments)} segments have a fingerprint and were compared with it")
    return Verdict(
        level=level,
        manifest=manifest.number,
        manifest_sha256=link.sha256,
        tables=len(manifest.tables),
        rows=sum(table.rows for table in manifest.tables),
        files=work.files,
        bytes=work.bytes,
        findings=tuple(work.findings),
        notes=tuple(notes),
    )


def _check_chain(store: Store, link: chain.Link, expect: str, work: _Work) -> list[Manifest]:
    """Every manifest from the newest to the first: readable, linked by hash, consistent with its checksums."""
    known = chain.numbers(store)
    sums = chain.manifest_sums(store, known[-1] + 1)
    if expect and expect.lower() != link.sha256:
        work.error(
            "manifest-forged",
            layout.manifest(link.manifest.number),
            f"its SHA-256 is {link.sha256}, expected was {expect.lower()}: it is not the manifest that was published",
        )
    if known != list(range(1, known[-1] + 1)):
        missing = sorted(set(range(1, known[-1] + 1)) - set(known))
        work.error("chain-broken", "manifests/", f"manifests {missing} are missing")
    manifests = [link.manifest]
    after = link
    for number in reversed(known[:-1]):
        try:
            before = chain.load(store, number)
        except DamagedError as error:
            work.error("chain-broken", layout.manifest(number), error.message)
            break
        if number == after.manifest.number - 1 and after.manifest.previous != before.sha256:
            work.error(
                "chain-broken",
                layout.manifest(number),
                f"its SHA-256 is {before.sha256}, manifest {after.manifest.number} was made after {after.manifest.previous}",
            )
        if before.manifest.archive_id != link.manifest.archive_id:
            work.error("chain-broken", layout.manifest(number), "it belongs to another archive")
        manifests.append(before.manifest)
        after = before
    if after.manifest.number == 1 and after.manifest.previous:
        work.error("chain-broken", layout.manifest(1), "the first manifest names a predecessor")
    for manifest in manifests:
        _check_sums(store, manifest, sums, work, newest=manifest is link.manifest)
    return manifests


def _check_sums(store: Store, manifest: Manifest, sums: dict[str, str], work: _Work, *, newest: bool) -> None:
    """A manifest must be in canonical form, and the checksums beside it those that it lists. ``sums``: of all manifests."""
    raw = manifest.to_bytes()
    if sums[layout.manifest(manifest.number)] != hashlib.sha256(raw).hexdigest():
        work.error(
            "manifest-forged",
            layout.manifest(manifest.number),
            "it is not in canonical form: it was edited after it was published",
        )
        return
    earlier = {path: sha256 for path, sha256 in sums.items() if path < layout.manifest(manifest.number)}
    lines = chain.checksums(manifest, raw, earlier)
    path = layout.sums(manifest.number)
    if not store.exists(path):
        work.note("stale", path, "it is missing: the run was cut off after it published; the next run writes it")
    elif store.read(path) != lines:
        work.error("checksums-differ", path, "it does not list what the manifest lists: one of the two was changed")
    elif newest and (not store.exists(layout.SUMS) or store.read(layout.SUMS) != lines):
        work.note("stale", layout.SUMS, "it is missing or not that of the newest manifest; the next run writes it")


def _check_files(store: Store, manifests: Iterable[Manifest], work: _Work, threads: int, progress: Progress) -> None:
    """Hash every file that any manifest of the chain names."""
    files: dict[str, FileRef] = {}
    for manifest in manifests:
        for file in manifest.files:
            known = files.setdefault(file.path, file)
            if known.sha256 != file.sha256:
                work.error("manifest-forged", file.path, "two manifests give different checksums for it")
    ordered = sorted(files.values(), key=lambda file: file.bytes, reverse=True)
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="verify") as pool:
        for file, problem in zip(ordered, pool.map(lambda file: _check_file(store, file), ordered), strict=True):
            work.files += 1
            work.bytes += file.bytes
            progress(file.path, file.bytes)
            if problem:
                work.bad.add(file.path)
                work.error(problem[0], file.path, problem[1])


def _check_file(store: Store, file: FileRef) -> tuple[str, str] | None:
    if not file.path.endswith(f"{file.sha256}.parquet") and file.path.startswith(("data/", "quarantine/")):
        return "manifest-forged", f"its name is not its SHA-256 {file.sha256}"
    try:
        digest = hashlib.sha256()
        with store.open(file.path) as handle:
            size = handle.seek(0, 2)
            if size != file.bytes:
                return "truncated" if size < file.bytes else "changed", f"it has {size} bytes instead of {file.bytes}"
            handle.seek(0)
            while block := handle.read(_BLOCK):
                digest.update(block)
    except FileNotFoundError:
        return "missing", "the manifest lists it, but it is not there"
    except ValueError as error:
        return "manifest-forged", str(error)
    if digest.hexdigest() != file.sha256:
        return "changed", f"its SHA-256 is {digest.hexdigest()}"
    return None


def _check_extra(store: Store, work: _Work) -> None:
    """Files where data lies that no manifest names and no run in progress claims.

    Runs may publish meanwhile: what was listed first is held against signs of life and manifests read afterwards.
    """
    present = [entry.path for prefix in ("data/", "quarantine/", "schema/") for entry in store.list(prefix)]
    living = {run.plan.run_id for run in open_runs(store)}
    manifests = [chain.load(store, number).manifest for number in chain.numbers(store)]
    listed = {file.path for manifest in manifests for file in manifest.files}
    published = {manifest.run_id for manifest in manifests}
    for path in present:
        if path in listed:
            continue
        owner = run_of_file(store, path)
        if owner and owner in published:
            work.note("left-over", path, f"left by run {owner}; the next run's sweep removes it")
        elif owner and owner in living:
            work.note("in-progress", path, f"run {owner} is not published yet")
        elif store.exists(path):
            work.error("extra", path, "no manifest lists it and no run claims it")


def _check_totals(table: TableState, work: _Work) -> None:
    """A table's numbers must agree with each other: source rows = archived rows + quarantined rows."""
    source = table.proof.source_rows
    if source >= 0 and source != table.rows + table.rows_quarantined:
        work.error(
            "totals-differ",
            table.label,
            f"{source} rows in the source, {table.rows} archived and {table.rows_quarantined} quarantined",
        )
    fingerprint = table.proof.archive_fingerprint
    if fingerprint and str(table.fingerprint()) != fingerprint:
        work.error("totals-differ", table.label, "its fingerprint is not the sum of its segments' fingerprints")


def _check_counts(store: Store, tables: Sequence[TableState], work: _Work) -> None:
    """The rows that each file says it has."""
    files = [
        *((table, segment, segment.rows, "rows") for table in tables for segment in table.segments),
        *((table, file, file.values + file.rows, "entries") for table in tables for file in table.quarantine),
    ]
    files = [item for item in files if item[1].path not in work.bad]
    for (table, file, expected, what), found in zip(
        files, each(store, lambda item: _rows(store, item[1]), files), strict=True
    ):
        if isinstance(found, str):
            work.bad.add(file.path)
            work.error("changed", file.path, f"no Parquet file: {found}")
        elif found != expected:
            work.error("rows-differ", file.path, f"{table.label}: {found} {what} in the file, {expected} in the manifest")


def _rows(store: Store, file: FileRef) -> int | str:
    """The rows of a Parquet file, or why it is none."""
    try:
        with store.open(file.path) as handle:
            return int(pq.read_metadata(handle).num_rows)
    except (pa.ArrowException, OSError) as error:
        return type(error).__name__


def _small_fingerprints(store: Store, tables: Sequence[TableState], work: _Work) -> dict[str, Fingerprint]:
    """Fingerprints of small segments by their SHA-256, where the store is worth several at a time; none of damaged ones."""
    if store.parallel == 1:
        return {}
    small = [
        (table, segment)
        for table in tables
        if table.columns and not table.quarantine
        for segment in table.segments
        if segment.fingerprint and segment.bytes <= _SMALL and segment.path not in work.bad
    ]

    def compute(item: tuple[TableState, Segment]) -> Fingerprint | None:
        with suppress(DamagedError):
            return segment_fingerprint(store, *item, {}, RowHasher(item[0].columns))
        return None

    found = zip(small, each(store, compute, small), strict=True)
    return {segment.sha256: fingerprint for (_, segment), fingerprint in found if fingerprint is not None}


def _check_fingerprints(store: Store, table: TableState, known: dict[str, Fingerprint], work: _Work) -> None:
    if not table.columns:
        return
    if any(file.path in work.bad for file in table.quarantine):
        work.error("unchecked", table.label, "its quarantine is damaged: the fingerprints cannot be computed")
        return
    try:
        cells = quarantined_cells(store, table)
    except DamagedError as error:
        work.error("changed", table.label, error.message)
        return
    hasher = RowHasher(table.columns)
    for segment in table.segments:
        if segment.path in work.bad:
            continue
        if not segment.fingerprint:
            work.note("no-fingerprint", segment.path, f"{table.label}: extracted without --verify full")
            continue
        try:
            found = known.get(segment.sha256) or segment_fingerprint(
                store, table, segment, cells.get(segment.sha256, {}), hasher
            )
        except DamagedError as error:
            work.error("changed", segment.path, f"{table.label}: {error.message}")
            continue
        if str(found) != segment.fingerprint or found.rows != segment.rows:
            work.error(
                "values-differ",
                segment.path,
                f"{table.label}: fingerprint {found} over {found.rows} rows, the manifest has {segment.fingerprint} "
                f"over {segment.rows}",
            )


def segment_fingerprint(
    store: Store, table: TableState, segment: Segment, cells: dict[int, dict[int, bytes]], hasher: RowHasher
) -> Fingerprint:
    """A: the fingerprint over a Parquet file read back."""
    total = EMPTY
    for batch, overrides in batches(store, table, segment, cells):
        total += hasher.fingerprint(batch, overrides)
    return total
