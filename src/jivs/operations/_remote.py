"""Data files that lie on no disk of this machine, as DuckDB reads them: through their store."""

from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from fsspec import AbstractFileSystem

from jivs.archive.parallel import each
from jivs.domain.archive import Segment
from jivs.errors import DamagedError, JivsError
from jivs.ports.store import Store

_TAIL = 16 << 10
"""What DuckDB reads of a file's end at first."""

_NEVER = datetime.fromtimestamp(0, UTC)


class StoreFiles(AbstractFileSystem):  # type: ignore[misc]
    """The files of some segments, and nothing else, as ``jivs://<path in the store>``.

    Their sizes are those of the manifest, and their ends, with what Parquet says of the rest, are read beforehand, many at
    once: the engine asks for them one after the other. ``failure`` is what kept a read from its end.
    """

    protocol = "jivs"
    cachable = False

    def __init__(self, store: Store, segments: Iterable[Segment]) -> None:
        super().__init__()
        self._store = store
        self._bytes = {segment.path: segment.bytes for segment in segments}
        self._tails: dict[str, bytes] = {}
        self.failure: JivsError | OSError | None = None

    def read_tails(self) -> None:
        """Read the ends of all files. Raises StoreError, and DamagedError for a file that is not there."""
        paths = list(self._bytes)
        try:
            tails = each(self._store, lambda path: self._store.read(path, max(0, self._bytes[path] - _TAIL)), paths)
        except FileNotFoundError as error:
            raise DamagedError(f"{error.filename} is not in {self._store.address}, but its manifest lists it.") from None
        self._tails = dict(zip(paths, tails, strict=True))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Size and kind of a file."""
        name = self._strip_protocol(path)
        if name not in self._bytes:
            raise FileNotFoundError(name)
        return {"name": name, "size": self._bytes[name], "type": "file"}

    def glob(self, path: str, **_: Any) -> list[str]:
        """The file itself: names of data files are no patterns."""
        return [path] if self._strip_protocol(path) in self._bytes else []

    def modified(self, path: str) -> datetime:  # noqa: ARG002 - fsspec's signature
        """Data files never change."""
        return _NEVER

    def _open(self, path: str, mode: str = "rb", **_: Any) -> _File:
        if mode != "rb":
            raise PermissionError(path)
        return _File(self, path, self.info(path)["size"])

    def read(self, path: str, start: int, count: int) -> bytes:
        """Bytes of a file."""
        tail = self._tails.get(path, b"")
        skipped = start - (self._bytes[path] - len(tail))
        if skipped >= 0:
            return tail[skipped : skipped + count]
        try:
            return self._store.read(path, start, count)
        except (JivsError, OSError) as error:
            self.failure = error
            raise


class _File(io.RawIOBase):
    def __init__(self, files: StoreFiles, path: str, size: int) -> None:
        super().__init__()
        self._files = files
        self._path = path
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def read(self, count: int | None = -1) -> bytes:
        left = max(0, self._size - self._position)
        count = left if count is None or count < 0 else min(count, left)
        data = self._files.read(self._path, self._position, count)
        self._position += len(data)
        return data
