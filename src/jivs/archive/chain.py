"""The chain of manifests: reading it, and publishing the next one."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jivs import __version__
from jivs.archive import layout
from jivs.archive.parallel import each
from jivs.archive.writer import file_ref
from jivs.domain.archive import FORMAT_VERSION, Manifest, TableState
from jivs.domain.schema import TableName
from jivs.errors import AlreadyExistsError, ArchiveFormatError, DamagedError, FatalError, TransientError
from jivs.ports.clock import Clock, stamp
from jivs.ports.store import Store

_TRIES = 50
_MANIFEST = re.compile(r"manifests/([0-9]{8})[.]json")


@dataclass(frozen=True, kw_only=True)
class Link:
    """A manifest with its bytes' SHA-256."""

    manifest: Manifest
    sha256: str


def numbers(store: Store) -> list[int]:
    """The numbers of the manifests in the store, ascending."""
    found = []
    for entry in store.list("manifests/"):
        if (match := _MANIFEST.fullmatch(entry.path)) is not None:
            found.append(int(match[1]))
    return sorted(found)


def newest(store: Store) -> Link | None:
    """The newest manifest, or None where nothing was published yet."""
    known = numbers(store)
    return load(store, known[-1]) if known else None


def require(store: Store, number: int | None = None) -> Link:
    """The newest manifest (or that of a number). Raises ArchiveFormatError where there is none."""
    known = numbers(store)
    if not known:
        raise ArchiveFormatError(
            f"{store.address} is not a JiVS archive: it has no manifests. Check the path, or make one with jivs extract."
        )
    if number is not None and number not in known:
        raise ArchiveFormatError(f"{store.address} has no manifest {number}: it has {known[0]} to {known[-1]}.")
    return load(store, number if number is not None else known[-1])


def load(store: Store, number: int) -> Link:
    """Read a manifest. Raises ArchiveFormatError for a newer format, DamagedError for what is none."""
    return parse(store, number, store.read(layout.manifest(number)))


def parse(store: Store, number: int, raw: bytes) -> Link:
    """``load`` of a manifest whose bytes were read already."""
    path = layout.manifest(number)
    try:
        data: dict[str, Any] = json.loads(raw)
        version = data["format_version"]
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise ArchiveFormatError(
                f"{store.address} has archive format {version}; this JiVS reads up to {FORMAT_VERSION}: upgrade JiVS."
            )
        manifest = Manifest.from_json(data)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{path} in {store.address} is not a manifest: it is damaged.", detail=repr(error)) from error
    if manifest.number != number:
        raise DamagedError(f"{path} in {store.address} says it is manifest {manifest.number}: it was moved or forged.")
    return Link(manifest=manifest, sha256=hashlib.sha256(raw).hexdigest())


def checksums(manifest: Manifest, raw: bytes, earlier: dict[str, str]) -> bytes:
    """The lines of ``N.sha256``: every file of the state, and all manifests, in the form of ``sha256sum``."""
    lines = {file.path: file.sha256 for file in manifest.files} | earlier
    lines[layout.manifest(manifest.number)] = hashlib.sha256(raw).hexdigest()
    return "".join(f"{sha256}  {path}\n" for path, sha256 in sorted(lines.items())).encode()


def manifest_sums(store: Store, below: int) -> dict[str, str]:
    """Path and SHA-256 of each manifest with a smaller number."""
    paths = [layout.manifest(number) for number in numbers(store) if number < below]
    return dict(zip(paths, each(store, lambda path: hashlib.sha256(store.read(path)).hexdigest(), paths), strict=True))


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What a run wants to publish. ``bases`` holds the manifest number that each table's run started from."""

    run_id: str
    source: str
    source_facts: dict[str, Any]
    tables: Sequence[TableState]
    bases: dict[TableName, int]
    failed: Sequence[dict[str, str]]
    notes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Published:
    """The manifest that holds the run, and the tables that another run had changed meanwhile."""

    link: Link
    overtaken: tuple[TableName, ...]


def publish(
    store: Store,
    clock: Clock,
    proposal: Proposal,
    pause: Callable[[str], None] = lambda _: None,
    require: Callable[[], None] = lambda: None,
) -> Published:
    """Append one manifest with the run's tables; idempotent by run id, atomic against any other writer.

    A table that another run has changed since this one started is not overwritten: it is listed as failed. ``pause`` is
    called with the name of each step, for tests that end the process there; ``require`` right before the manifest is
    created, and raises if the run may not publish any more.
    """
    base = min(proposal.bases.values(), default=0)
    for _ in range(_TRIES):
        known = numbers(store)
        done = _find_run(store, [number for number in known if number > base], proposal.run_id)
        if done is not None:
            _finish(store, done, pause)
            return Published(link=done, overtaken=_overtaken_of(done, proposal))
        current = load(store, known[-1]) if known else None
        manifest, overtaken = _next(current, clock, proposal, _readme(store, current))
        raw = manifest.to_bytes()
        written = [file.path for table in proposal.tables for file in table.files]
        lost = [path for path, there in zip(written, each(store, store.exists, written), strict=True) if not there]
        if lost:
            raise FatalError(f"{lost[0]} and {len(lost) - 1} more files of this run are gone from {store.address}.")
        pause("before manifest")
        require()
        try:
            store.create(layout.manifest(manifest.number), raw)
        except AlreadyExistsError:
            continue
        pause("after manifest")
        link = Link(manifest=manifest, sha256=hashlib.sha256(raw).hexdigest())
        _finish(store, link, pause)
        return Published(link=link, overtaken=overtaken)
    raise TransientError(f"{store.address}: {_TRIES} other runs published at the same time; try again with --resume.")


def repair(store: Store) -> None:
    """Write the derived files that a crash left missing or stale."""
    link = newest(store)
    if link is not None:
        _finish(store, link, lambda _: None)


def _finish(store: Store, link: Link, pause: Callable[[str], None]) -> None:
    """Write each missing ``N.sha256``, and SHA256SUMS where it is not the newest.

    They follow the manifest and are made from it alone, so whoever writes them writes the same bytes: written before it,
    the loser of a race for its number could leave checksums of a manifest that was never published.
    """
    known = numbers(store)
    if known[-1] != link.manifest.number:
        return
    for number in known:
        if not store.exists(layout.sums(number)):
            pause(f"before checksums {number}")
            one = link if number == link.manifest.number else load(store, number)
            store.replace(layout.sums(number), _checksums_of(store, one))
    newest_lines = _checksums_of(store, link)
    if not store.exists(layout.SUMS) or store.read(layout.SUMS) != newest_lines:
        pause("before SHA256SUMS")
        store.replace(layout.SUMS, newest_lines)


def _checksums_of(store: Store, link: Link) -> bytes:
    return checksums(link.manifest, link.manifest.to_bytes(), manifest_sums(store, link.manifest.number))


def _find_run(store: Store, known: Sequence[int], run_id: str) -> Link | None:
    for number in reversed(known):
        link = load(store, number)
        if link.manifest.run_id == run_id:
            return link
    return None


def _overtaken_of(link: Link, proposal: Proposal) -> tuple[TableName, ...]:
    mine = {table.name for table in link.manifest.tables if table.run_id == proposal.run_id}
    return tuple(table.name for table in proposal.tables if table.name not in mine)


def _readme(store: Store, current: Link | None) -> Any:
    if current is not None:
        return current.manifest.readme
    data = layout.README_TEXT.encode()
    if not store.exists(layout.README):
        store.replace(layout.README, data)
    return file_ref(layout.README, store.read(layout.README))


def _next(current: Link | None, clock: Clock, proposal: Proposal, readme: Any) -> tuple[Manifest, tuple[TableName, ...]]:
    old = current.manifest if current else None
    number = old.number + 1 if old else 1
    kept = {table.key: table for table in old.tables} if old else {}
    overtaken = []
    for table in proposal.tables:
        before = kept.get(table.key)
        if before is not None and before.changed_in > proposal.bases[table.name]:
            overtaken.append(table.name)
            continue
        kept[table.key] = replace(table, changed_in=number)
    failed = [
        *proposal.failed,
        *(
            {"table": str(name), "reason": "another run published this table meanwhile; its state was kept"}
            for name in overtaken
        ),
    ]
    manifest = Manifest(
        archive_id=old.archive_id if old else str(uuid.uuid4()),
        number=number,
        previous=current.sha256 if current else "",
        created=stamp(clock.now()),
        tool=f"jivs {__version__}",
        run_id=proposal.run_id,
        readme=readme,
        sources={**(old.sources if old else {}), proposal.source: proposal.source_facts},
        tables=tuple(kept.values()),
        failed=tuple(failed),
        notes=tuple(proposal.notes),
    )
    return manifest, tuple(overtaken)
