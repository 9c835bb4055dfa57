"""The only files that the engine of a query knows: those of its archive, by their paths in it."""

from __future__ import annotations

import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fsspec import AbstractFileSystem

from jivs.ports.children import ANSWER, FAILED, REQUEST

SCHEME = "archive"
_START = f"{SCHEME}://"
_BLOCK = 1 << 20
_MOST_BLOCKS = 8


def place(path: str) -> str:
    """Where the engine finds a file of the archive."""
    return _START + path


class _Reader:
    """A file that several threads of the engine read at once: each has a position of its own."""

    def __init__(self, size: int, read: Callable[[int, int], bytes], close: Callable[[], None]) -> None:
        """``read`` gives so many bytes from a position on."""
        self._size = size
        self._read = read
        self._close = close
        self._own = threading.local()
        self.closed = False

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size}[whence]
        self._own.position = start + position
        return start + position

    def tell(self) -> int:
        return int(getattr(self._own, "position", 0))

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._size - self.tell())
        data = self._read(left if count < 0 else min(count, left), self.tell())
        self._own.position = self.tell() + len(data)
        return data

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._close()


class _Files(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """A file system of some files of an archive, for reading. ``missing``: the first of them that was not there.

    Source: fsspec, "Developing with fsspec".
    """

    protocol = SCHEME
    cachable = False

    def __init__(self, paths: Iterable[str]) -> None:
        super().__init__()
        self.missing = ""
        self._paths = {path for path in paths if path.startswith("data/") and ".." not in path.split("/")}

    def exists(self, path: str, **_: Any) -> bool:
        return path.removeprefix(_START) in self._paths

    def isfile(self, path: str) -> bool:
        return self.exists(path)

    def glob(self, path: str, **_: Any) -> list[str]:
        return [path] if self.exists(path) else []

    def _known(self, path: str, mode: str = "rb") -> str:
        own = path.removeprefix(_START)
        if mode != "rb":
            raise PermissionError("An archive is never changed by a query.")
        if own not in self._paths:
            raise FileNotFoundError(f"{own} is no file of this query.")
        return own


class NearFiles(_Files):
    """Files below a folder."""

    def __init__(self, root: str, paths: Iterable[str]) -> None:
        super().__init__(paths)
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY)

    def open(self, path: str, mode: str = "rb", **_: Any) -> _Reader:
        known = self._known(path, mode)
        try:
            handle = os.open(known, os.O_RDONLY, dir_fd=self._root)
        except FileNotFoundError:
            self.missing = self.missing or known
            raise
        return _Reader(os.fstat(handle).st_size, partial(os.pread, handle), partial(os.close, handle))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": os.stat(self._known(path), dir_fd=self._root).st_size, "type": "file"}

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(os.stat(self._known(path), dir_fd=self._root).st_mtime, UTC)


class FarFiles(_Files):
    """Files that the parent reads for us: it has the keys of the store and the way to it, this process has neither.

    A request is the length of a path, a position and a number of bytes, then the path; an answer is a number of bytes, then
    these. ``sizes``: of the files, by path.
    """

    def __init__(self, wire: socket.socket, sizes: Mapping[str, int]) -> None:
        super().__init__(sizes)
        self._wire = wire
        self._sizes = sizes
        self._turn = threading.Lock()
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def open(self, path: str, mode: str = "rb", **_: Any) -> _Reader:
        known = self._known(path, mode)
        return _Reader(self._sizes[known], partial(self._read, known), lambda: None)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": self._sizes[self._known(path)], "type": "file"}

    def modified(self, path: str) -> datetime:  # noqa: ARG002 - fsspec's signature
        return datetime.fromtimestamp(0, UTC)  # data files never change

    def _read(self, path: str, count: int, start: int) -> bytes:
        """From blocks that were read already, as far as it is little: the engine asks for the ends of a file in bits."""
        with self._turn:
            if count >= _BLOCK:
                return self._ask(path, count, start)
            parts = []
            while count > 0:
                number, skipped = divmod(start, _BLOCK)
                part = self._block(path, number)[skipped : skipped + count]
                if not part:
                    break
                parts.append(part)
                start, count = start + len(part), count - len(part)
            return b"".join(parts)

    def _block(self, path: str, number: int) -> bytes:
        key = (path, number)
        if key not in self._blocks:
            self._blocks[key] = self._ask(path, min(_BLOCK, self._sizes[path] - number * _BLOCK), number * _BLOCK)
            if len(self._blocks) > _MOST_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return self._blocks[key]

    def _ask(self, path: str, count: int, start: int) -> bytes:
        name = path.encode()
        self._wire.sendall(REQUEST.pack(len(name), start, count) + name)
        [size] = ANSWER.unpack(exactly(self._wire, ANSWER.size))
        if size == FAILED:
            raise OSError(f"{path} cannot be read.")
        return exactly(self._wire, size)


def exactly(wire: socket.socket, count: int) -> bytes:
    """So many bytes. Raises OSError if there are no more."""
    parts, left = [], count
    while left:
        part = wire.recv(min(left, 1 << 20))
        if not part:
            raise OSError("The other end has gone.")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
