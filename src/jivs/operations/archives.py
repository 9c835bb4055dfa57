"""Archives of the service, by name: looked at, verified, queried, downloaded. Nobody is told where they lie."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from threading import Event
from typing import Any, BinaryIO

from jivs.archive import chain, layout
from jivs.archive import sql as engine
from jivs.domain.archive import FileRef
from jivs.domain.audit import Deed
from jivs.domain.finding import Severity
from jivs.errors import DamagedError, JivsError, NotFoundError, OverLimitError, TooManyError, UsageError, UserError
from jivs.operations import manifests as recent
from jivs.operations import shelf
from jivs.operations.manifests import Summary
from jivs.ports.children import Read
from jivs.ports.service import Service
from jivs.ports.store import Store


@dataclass(frozen=True, kw_only=True)
class Listed:
    """An archive in a list. ``error``: why its newest manifest cannot be read, as a sentence."""

    name: str
    newest: Summary | None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The result of a query, in an open file without a name."""

    file: BinaryIO
    bytes: int
    rows: int
    truncated: bool
    manifest: int


def listed(service: Service, *, after: str, limit: int, name: str) -> list[Listed]:
    """Archives by name, those after ``after``; with ``name``, those whose name has it, whatever its case."""
    shelf.at_hand(service)  # of a folder whose volume is not mounted the list would be empty
    names = [one for one in service.shelf.names() if one > after and name.casefold() in one.casefold()]
    return [_listed(service, one) for one in names[:limit]]


def _listed(service: Service, name: str) -> Listed:
    try:
        with _opened(service, name) as store:
            return Listed(name=name, newest=recent.summary(store, _number(service, store, name, None)))
    except JivsError as error:
        return Listed(name=name, newest=None, error=error.message)


def state(service: Service, name: str, number: int | None) -> tuple[Summary, chain.Link]:
    """The newest manifest, or that of a number. Raises NotFoundError."""
    with _opened(service, name) as store:
        found = recent.link(store, _number(service, store, name, number))
        return recent.summed(found), found


def manifest(service: Service, name: str, number: int | None) -> tuple[bytes, str]:
    """A manifest's bytes and their SHA-256."""
    with _opened(service, name) as store:
        raw = store.read(layout.manifest(_number(service, store, name, number)))
        return raw, hashlib.sha256(raw).hexdigest()


def manifests(service: Service, name: str, *, before: int, limit: int) -> list[Summary]:
    """The chain, the newest first; ``before``: only those with a smaller number."""
    with _opened(service, name) as store:
        known = [number for number in reversed(_numbers(service, store, name)) if not before or number < before]
        return [recent.summary(store, number) for number in known[:limit]]


def files(service: Service, name: str, number: int | None, *, after: str, limit: int) -> list[FileRef]:
    """The files of a state in the order of their paths, those after ``after``."""
    _, found = state(service, name, number)
    return sorted((file for file in found.manifest.files if file.path > after), key=lambda file: file.path)[:limit]


def file(service: Service, name: str, path: str, number: int | None) -> FileRef:
    """A file of a state, which is there and has its size. Raises NotFoundError for what the manifest does not list."""
    _, found = state(service, name, number)
    wanted = next((one for one in found.manifest.files if one.path == path), None)
    if wanted is None:
        raise NotFoundError(
            f"Manifest {found.manifest.number} of {name} lists no such file: GET /archives/{name}/files does."
        )
    with _opened(service, name) as store:
        try:
            size = store.size(path)
        except (FileNotFoundError, ValueError):
            size = -1
    if size != wanted.bytes:
        raise DamagedError(f"{path} of {name} is missing or has another size than its manifest says: verify the archive.")
    return wanted


def read(service: Service, actor: str, name: str, wanted: FileRef, first: int, count: int) -> BinaryIO:
    """A reader of a file, at its byte ``first``; it is recorded who is about to read how many."""
    _record(service, actor, "archive.downloaded", name, path=wanted.path, first=first, bytes=count)
    with _opened(service, name) as store:
        handle = store.open(wanted.path)
        handle.seek(first)
        return handle


def verify(service: Service, actor: str, name: str, level: str, expect: str, gone: Event) -> dict[str, Any]:
    """The verdict on an archive by itself, as ``Verdict.to_json``; ``found`` counts the findings, of which it has the first.

    Raises TooManyError and OverLimitError.
    """
    with _opened(service, name) as store, _recorded(service, actor, "archive.verified", name, level=level) as detail:
        _numbers(service, store, name)
        said = service.verifications.run({"archive": service.shelf.address(name), "level": level, "expect": expect}, gone)
        service.metrics.verification_failed(sum(one["severity"] == Severity.ERROR for one in said["findings"]))
        for finding in said["findings"]:
            finding["message"] = finding["message"].replace(store.address, name)
        detail |= {"sound": said["sound"], "manifest": said["manifest"]}
        return said


def query(
    service: Service, actor: str, name: str, text: str, form: str, gone: Event, *, number: int | None = None, limit: int = 0
) -> Answer:
    """The result of one SELECT, written in a form; ``limit`` 0: as many rows as the service gives.

    Recorded with the SHA-256 of the text, for a text may name persons. Raises UsageError for what is refused,
    TooManyError and OverLimitError.
    """
    digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()
    out = tempfile.TemporaryFile()  # noqa: SIM115 - the answer is read when this has returned
    try:
        with _opened(service, name) as store, _recorded(service, actor, "archive.queried", name, sql=digest) as detail:
            found = recent.link(store, _number(service, store, name, number)).manifest
            detail["manifest"] = found.number
            root = _root(store)
            views = engine.mentioned(engine.views(found), text, few=engine.FEW if root else 0)
            known = {path for view in views for path in view.files}
            sizes = {one.path: one.bytes for table in found.tables for one in table.segments if one.path in known}
            job = {"views": [asdict(view) for view in views], "sql": text, "limit": limit, "form": form}
            if root:
                said = service.queries.run({**job, "root": root}, gone, out)
            else:
                said = service.queries.run({**job, "sizes": sizes}, gone, out, _reader(store, sizes))
            detail["rows"] = said["rows"]
    except BaseException:
        out.close()
        raise
    size = out.seek(0, 2)
    out.seek(0)
    return Answer(file=out, bytes=size, rows=said["rows"], truncated=said["truncated"], manifest=found.number)


def _root(store: Store) -> str:
    """The folder of an archive, where it is one on this machine."""
    known = layout.manifest(1)
    place = store.local(known)
    return "" if place is None else str(place).removesuffix(f"/{known}")


def _reader(store: Store, known: Container[str]) -> Read:
    """Reads files for a query whose process has no way to them: these, and no others."""

    def read(path: str, start: int, count: int) -> bytes:
        if path not in known:
            raise UsageError("The query reads the tables of this archive and nothing else: no other file, folder or place.")
        return store.read(path, start, count)

    return read


@contextmanager
def _opened(service: Service, name: str) -> Iterator[Store]:
    """The store of an archive. Errors that leave name the archive, not its place."""
    store = service.app.store(service.shelf.address(name))
    try:
        yield store
    except FileNotFoundError as error:
        raise DamagedError(f"A file of {name} is not there: verify the archive.", detail=repr(error)) from None
    except JivsError as error:
        error.message = error.message.replace(store.address, name)
        error.args = (error.message,)
        raise


def _numbers(service: Service, store: Store, name: str) -> list[int]:
    known = chain.numbers(store)
    if not known:
        shelf.at_hand(service)
        raise NotFoundError(f"There is no archive {name}.")
    return known


def _number(service: Service, store: Store, name: str, wanted: int | None) -> int:
    known = _numbers(service, store, name)
    if wanted is not None and wanted not in known:
        raise NotFoundError(f"{name} has no manifest {wanted}: it has {known[0]} to {known[-1]}.")
    return known[-1] if wanted is None else wanted


@contextmanager
def _recorded(
    service: Service, actor: str, action: str, name: str, **detail: str | int | bool | None
) -> Iterator[dict[str, str | int | bool | None]]:
    """Record what was done and how it ended; nothing where it did not begin."""
    known = dict(detail)
    try:
        yield known
    except (NotFoundError, TooManyError):
        raise
    except JivsError as error:
        ends = ((OverLimitError, "over limit"), (UserError, "refused"), (JivsError, "failed"))
        outcome = next(end for kind, end in ends if isinstance(error, kind))
        _record(service, actor, action, name, **known, outcome=outcome)
        raise
    _record(service, actor, action, name, **known, outcome="done")


def _record(service: Service, actor: str, action: str, name: str, **detail: str | int | bool | None) -> None:
    service.accounts().record(Deed(actor=actor, action=action, object=f"archive:{name}", detail=detail))
