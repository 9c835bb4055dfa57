"""The only files that the engine of a query knows: those of its archive, by their paths in it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from fsspec import AbstractFileSystem

SCHEME = "archive"
_START = f"{SCHEME}://"


def place(path: str) -> str:
    """Where the engine finds a file of the archive."""
    return _START + path


class _Reader:
    """A file that several threads of the engine read at once: each has a position of its own."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._own = threading.local()
        self.closed = False

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: os.fstat(self._handle).st_size}[whence]
        self._own.position = start + position
        return start + position

    def tell(self) -> int:
        return int(getattr(self._own, "position", 0))

    def read(self, count: int = -1) -> bytes:
        wanted = count if count >= 0 else os.fstat(self._handle).st_size - self.tell()
        data = os.pread(self._handle, wanted, self.tell())
        self._own.position = self.tell() + len(data)
        return data

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._handle)


class ArchiveFiles(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """A file system of some files below a folder, for reading. ``missing``: the first of them that was not there.

    Source: fsspec, "Developing with fsspec".
    """

    protocol = SCHEME
    cachable = False

    def __init__(self, root: str, paths: Iterable[str]) -> None:
        super().__init__()
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        self.missing = ""
        self._paths = {path for path in paths if path.startswith("data/") and ".." not in path.split("/")}

    def open(self, path: str, mode: str = "rb", **_: Any) -> _Reader:
        if mode != "rb":
            raise PermissionError("An archive is never changed by a query.")
        known = self._known(path)
        try:
            return _Reader(os.open(known, os.O_RDONLY, dir_fd=self._root))
        except FileNotFoundError:
            self.missing = self.missing or known
            raise

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": os.stat(self._known(path), dir_fd=self._root).st_size, "type": "file"}

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(os.stat(self._known(path), dir_fd=self._root).st_mtime, UTC)

    def exists(self, path: str, **_: Any) -> bool:
        return path.removeprefix(_START) in self._paths

    def isfile(self, path: str) -> bool:
        return self.exists(path)

    def glob(self, path: str, **_: Any) -> list[str]:
        return [path] if self.exists(path) else []

    def _known(self, path: str) -> str:
        own = path.removeprefix(_START)
        if own not in self._paths:
            raise FileNotFoundError(f"{own} is no file of this query.")
        return own
