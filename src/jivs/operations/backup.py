"""Backups of the catalog: made while others go on with it, read before they are trusted, put back whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from jivs import __version__
from jivs.domain.audit import Deed
from jivs.domain.backup import HEADER_BYTES, Backup
from jivs.errors import ConflictError, DamagedError, JivsError, StoreError, UsageError, UserError
from jivs.ports.clock import Clock, stamp
from jivs.ports.upkeep import Upkeep

_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What came back. ``kept``: where the catalog is now that was there before, empty if there was none; ``schema``: what it
    was brought up to.
    """

    backup: Backup
    kept: str
    schema: str


class _Summed:
    """A file being written, with its length and SHA-256."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sum = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._sum.update(data)
        self.size += len(data)

    @property
    def sha256(self) -> str:
        return self._sum.hexdigest()


def backup(upkeep: Upkeep, clock: Clock, target: Path) -> Backup:
    """Save the catalog in a file. The file has its name when it is whole and durable, and only its owner can read it.

    An older backup of that name is replaced. Raises UsageError if the file is anything else.
    """
    if upkeep.covers(str(target)):
        raise UsageError(f"{target} belongs to the catalog itself: choose another name for the backup.")
    with _clear_errors(target):
        _require_ours(target)
        fresh = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                made = _write(upkeep, clock, file)
            fresh.replace(target)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        _sync(target.parent)
    return made


def _write(upkeep: Upkeep, clock: Clock, file: BinaryIO) -> Backup:
    file.write(bytes(HEADER_BYTES))
    summed, created = _Summed(file), stamp(clock.now())
    schema = upkeep.save(summed.write)
    made = Backup(
        kind=upkeep.kind,
        schema=schema,
        created=created,
        tool=f"jivs {__version__}",
        size=summed.size,
        sha256=summed.sha256,
    )
    file.seek(0)
    file.write(made.header())
    file.flush()
    os.fsync(file.fileno())
    return made


def _require_ours(target: Path) -> None:
    """Nothing is written over but a backup."""
    if not os.path.lexists(target):
        return
    if target.is_file():
        with target.open("rb") as file:
            if _header(target, file) is not None:
                return
    raise UsageError(f"{target} exists and is no backup of JiVS: choose another name.")


def read(path: Path) -> Backup:
    """What a backup says of itself, and it is true: every byte was read. Raises UserError or DamagedError."""
    with _clear_errors(path), path.open("rb") as file:
        found = _header(path, file)
        if found is None:
            raise UserError(
                f"{path} is no backup of JiVS. What pg_dump wrote is loaded with psql: see DISASTER_RECOVERY.md."
            )
        if os.fstat(file.fileno()).st_size != HEADER_BYTES + found.size:
            raise DamagedError(f"{path} is not as long as it was: it was cut or added to. Take another backup.")
        sums = hashlib.sha256()
        while block := file.read(_BLOCK):
            sums.update(block)
        if sums.hexdigest() != found.sha256:
            raise DamagedError(f"{path} was changed since it was made: its checksum differs. Take another backup.")
    return found


def _header(path: Path, file: BinaryIO) -> Backup | None:
    try:
        return Backup.from_header(file.read(HEADER_BYTES))
    except ValueError as error:
        raise UserError(f"{path} was made by a newer JiVS ({error}): upgrade JiVS.") from None


def restore(upkeep: Upkeep, clock: Clock, path: Path, *, force: bool = False) -> Restored:
    """Put a backup in the place of the catalog, and bring it up to this version's schema.

    What was there before is saved beside the backup first. Raises ConflictError while others use the catalog, and whatever
    keeps it from being saved; ``force`` goes on without either. After any error the catalog is as it was.
    """
    found = read(path)
    if found.kind != upkeep.kind:
        raise UsageError(
            f"{path} is of a catalog in {found.kind}, and this one is in {upkeep.kind} ({upkeep.shown}): set DATABASE_URL."
        )
    if found.schema > upkeep.newest:
        raise UserError(
            f"{path} has schema {found.schema}, and this JiVS knows those up to {upkeep.newest}: upgrade JiVS ({found.tool} "
            "made it)."
        )
    others = upkeep.in_use()
    if others and not force:
        raise ConflictError(
            f"The catalog {upkeep.shown} is in use ({others}): stop the API and the workers, or say --force if what you see "
            "cannot be them."
        )
    kept = _keep(upkeep, clock, path, force=force)
    with _clear_errors(path), path.open("rb") as file:
        file.seek(HEADER_BYTES)
        upkeep.load(file, force=force)
    upkeep.upgrade()
    now = clock.now().timestamp()
    upkeep.record(now, Deed(actor="command line", action="catalog.restored", object="catalog", detail=_told(found)))
    return Restored(backup=found, kept=kept, schema=upkeep.version())


def _told(found: Backup) -> dict[str, str | int | bool | None]:
    return {"created": found.created, "sha256": found.sha256, "tool": found.tool}


def _keep(upkeep: Upkeep, clock: Clock, path: Path, *, force: bool) -> str:
    """Save what is there now; where."""
    aside = path.with_name(f"{path.name}.before-{clock.now():%Y%m%dT%H%M%S%fZ}")
    try:
        if not upkeep.version():
            return ""
        backup(upkeep, clock, aside)
    except DamagedError:
        return upkeep.set_aside()
    except JivsError as error:
        if not force:
            raise type(error)(
                f"What the catalog {upkeep.shown} has now cannot be saved before the restore: {error.message} --force "
                "restores without."
            ) from error
        return ""
    return str(aside)


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UsageError(f"There is no {path}: check the path.") from None
    except OSError as error:
        raise StoreError(f"Cannot use {path}: {error.strerror}.", detail=repr(error)) from error


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
