"""A store in a folder."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from pathlib import Path
from typing import BinaryIO

from jivs.backends import processes
from jivs.backends.store import _marking
from jivs.backends.store._paths import require_path
from jivs.backends.store._probing import probe
from jivs.backends.store._spool import clean
from jivs.domain.registry import is_archive_name, require_archive_name
from jivs.errors import AlreadyExistsError, FatalError, StoreError, UsageError
from jivs.ports.store import Entry

_TRIES = 100
_TOGETHER = 8
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LocalStore:
    """Files below ``root``. The folder is made with the first write, not before.

    Writes go to ``tmp/`` first, are fsynced, and take their name in one step; folders are fsynced after it.
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(root)

    @property
    def address(self) -> str:
        return str(self._root)

    @property
    def spool(self) -> Path:
        folder = self._root / "tmp"
        with self._clear_errors(folder):
            _make(folder)
            self._handle  # noqa: B018 - opened before anything is written
        return folder

    @property
    def parallel(self) -> int:
        return 1

    @property
    def memory(self) -> int:
        return 0

    @cached_property
    def _handle(self) -> int:
        """A descriptor of the root, for as long as the process lives."""
        return os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)

    def __del__(self) -> None:
        if "_handle" in self.__dict__:
            os.close(self._handle)

    def put(self, local: Path, path: str) -> None:
        target = self._path(path)
        with self._clear_errors(target):
            with local.open("rb") as file:
                os.fsync(file.fileno())
            self._name(target, lambda: local.replace(target))

    def put_all(self, files: Sequence[tuple[Path, str]]) -> None:
        with self._clear_errors(self._root):
            _sync_all(self._handle, [local for local, _ in files])
            folders: set[Path] = set()
            for local, path in files:
                target = self._path(path)
                self._take_name(target, lambda local=local, target=target: local.replace(target), folders.add)  # type: ignore[misc]
            _sync_all(self._handle, list(folders))

    def create(self, path: str, data: bytes) -> None:
        target = self._path(path)
        with self._clear_errors(target):
            temporary = self._write(data)
            try:
                self._name(target, lambda: os.link(temporary, target))
            except FileExistsError:
                raise AlreadyExistsError(f"{path} exists already in {self.address}.") from None
            except OSError as error:
                if error.errno in _NO_LINKS:
                    raise FatalError(
                        f"The file system of {self.address} cannot make hard links, so two runs could publish over each "
                        "other. Choose a folder on a file system that can (ext4, xfs, btrfs, NFS)."
                    ) from error
                raise
            finally:
                temporary.unlink(missing_ok=True)

    def replace(self, path: str, data: bytes) -> None:
        target = self._path(path)
        with self._clear_errors(target):
            temporary = self._write(data)
            try:
                self._name(target, lambda: temporary.replace(target))
            finally:
                temporary.unlink(missing_ok=True)

    def read(self, path: str, start: int = 0, count: int | None = None) -> bytes:
        target = self._path(path)
        with self._clear_errors(target), target.open("rb") as file:
            file.seek(start)
            return file.read(count)

    def open(self, path: str) -> BinaryIO:
        target = self._path(path)
        with self._clear_errors(target):
            return target.open("rb")

    def size(self, path: str) -> int:
        target = self._path(path)
        with self._clear_errors(target):
            return target.stat().st_size

    def exists(self, path: str) -> bool:
        return self._path(path).is_file()

    def list(self, prefix: str = "") -> Iterator[Entry]:
        folder = self._root / prefix.rpartition("/")[0]
        with self._clear_errors(folder):
            found = []
            for parent, _, names in os.walk(folder, onerror=_unless_missing):
                for name in names:
                    file = Path(parent, name)
                    path = file.relative_to(self._root).as_posix()
                    if path.startswith(prefix):
                        with suppress(FileNotFoundError):  # another process has just removed it
                            found.append(Entry(path=path, bytes=file.lstat().st_size))
        yield from sorted(found, key=lambda entry: entry.path)

    def delete(self, path: str) -> None:
        target = self._path(path)
        with self._clear_errors(target):
            target.unlink(missing_ok=True)
        parent = target.parent
        while parent != self._root:
            try:
                parent.rmdir()
            except OSError:
                break
            parent = parent.parent

    def clean_spool(self, gone: Callable[[str], bool]) -> int:
        folder = self._root / "tmp"
        with self._clear_errors(folder):
            return clean(folder, gone)

    def local(self, path: str) -> Path | None:
        return self._path(path)

    def _path(self, path: str) -> Path:
        return self._root / require_path(path)

    def _name(self, target: Path, act: Callable[[], object]) -> None:
        """Give a file its name, durably."""
        self._take_name(target, act, _sync_folder)

    def _take_name(self, target: Path, act: Callable[[], object], changed: Callable[[Path], object]) -> None:
        """Give a file its name. ``changed`` gets each folder with a new entry.

        Somebody else may be removing the folder because it was empty: then it is made again.
        """
        for attempt in range(_TRIES):
            try:
                self._make_folder(target.parent, changed)
                act()
                changed(target.parent)
            except FileNotFoundError:
                if attempt == _TRIES - 1:
                    raise
            else:
                return

    def _make_folder(self, folder: Path, changed: Callable[[Path], object]) -> None:
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for new in reversed(missing):
            _make(new)
            changed(new.parent)

    def _write(self, data: bytes) -> Path:
        temporary, file = self._new_part()
        try:
            with file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def _new_part(self) -> tuple[Path, BinaryIO]:
        """A new file in the spool, although somebody else may remove that because it is empty."""
        name = f"{processes.here()}.{os.getpid()}.{uuid.uuid4().hex}.part"
        for left in reversed(range(_TRIES)):
            temporary = self.spool / name
            try:
                return temporary, temporary.open("xb")
            except FileNotFoundError:
                if not left:
                    raise
        raise AssertionError

    @contextmanager
    def _clear_errors(self, target: Path) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in {errno.EEXIST, errno.ENOTDIR}:
                raise UsageError(f"{self._root} is not a folder: choose another path for the archive.") from error
            what = {
                errno.ENOSPC: "the disk is full: free some space",
                errno.EDQUOT: "the disk quota is used up: free some space",
                errno.EACCES: "access is denied: check the permissions of the folder",
                errno.EROFS: "the file system is read-only: choose another folder",
            }.get(error.errno or 0, os.strerror(error.errno or 0))
            raise StoreError(f"Cannot use {target}: {what}, then try again.", detail=repr(error)) from error


def _make(folder: Path) -> None:
    """Make a folder, also while somebody else removes it, or one above it, because it is empty."""
    for left in reversed(range(_TRIES)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, FileNotFoundError):
            if not left or (os.path.lexists(folder) and not folder.is_dir()):
                raise
        else:
            return


def _sync_all(handle: int, paths: Sequence[Path]) -> None:
    """Make files and folders durable: the whole file system at once where the system can, for it costs like one of them.

    ``handle`` is of a folder, opened before the files were written: it hears of writes that failed since then (syncfs(2)).
    """
    device, together = os.fstat(handle).st_dev, _syncfs() if len(paths) >= _TOGETHER else None
    for path in paths:
        if together is not None and path.stat().st_dev == device:
            continue
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    if together is None:
        return
    if together(handle) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@cache
def _syncfs() -> Callable[[int], int] | None:
    """Linux's syncfs, where it tells of failed writes: since 5.8 (syncfs(2))."""
    version = [int(part) for part in re.findall(r"\d+", os.uname().release)[:2]]
    if sys.platform != "linux" or version < [5, 8]:
        return None
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    return found


def _unless_missing(error: OSError) -> None:
    """A folder that cannot be read is not empty: who takes it for that reads again what is published."""
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class LocalShelf:
    """Archives in folders of one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def address(self, name: str) -> str:
        return str(self._root / require_archive_name(name))

    @property
    def shown(self) -> str:
        return str(self._root)

    def mark(self, proposed: str) -> str:
        store, found = LocalStore(self._root), ""
        if not proposed:
            return _marking.read(store)
        while not found:
            with suppress(FileNotFoundError):  # somebody else, who was quicker, has just tidied
                found = _marking.write(store, proposed)
        self._tidy()
        return found

    def probe(self) -> None:
        probe(LocalStore(self._root))
        self._tidy()

    def _tidy(self) -> None:
        with suppress(OSError):  # of an archive of this name
            (self._root / "tmp").rmdir()

    def names(self) -> list[str]:
        return sorted(path.parent.name for path in self._root.glob("*/manifests") if is_archive_name(path.parent.name))
