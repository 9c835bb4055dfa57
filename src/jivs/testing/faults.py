"""A store that fails, or ends the process, at a chosen operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from jivs.ports.store import Entry, Store


class FaultyStore:
    """Another store, with ``fault`` called before and after each operation that writes.

    ``fault`` gets a name such as ``before create manifests/00000001.json``; what it raises is what the caller sees.
    """

    def __init__(self, store: Store, fault: Callable[[str], None]) -> None:
        self._store = store
        self._fault = fault

    @property
    def address(self) -> str:
        return self._store.address

    @property
    def spool(self) -> Path:
        return self._store.spool

    @property
    def parallel(self) -> int:
        return self._store.parallel

    @property
    def memory(self) -> int:
        return self._store.memory

    def put(self, local: Path, path: str) -> None:
        self._fault(f"before put {path}")
        self._store.put(local, path)
        self._fault(f"after put {path}")

    def put_all(self, files: Sequence[tuple[Path, str]]) -> None:
        for _, path in files:
            self._fault(f"before put {path}")
        self._store.put_all(files)
        for _, path in files:
            self._fault(f"after put {path}")

    def create(self, path: str, data: bytes) -> None:
        self._fault(f"before create {path}")
        self._store.create(path, data)
        self._fault(f"after create {path}")

    def replace(self, path: str, data: bytes) -> None:
        self._fault(f"before replace {path}")
        self._store.replace(path, data)
        self._fault(f"after replace {path}")

    def delete(self, path: str) -> None:
        self._fault(f"before delete {path}")
        self._store.delete(path)
        self._fault(f"after delete {path}")

    def read(self, path: str, start: int = 0, count: int | None = None) -> bytes:
        return self._store.read(path, start, count)

    def open(self, path: str) -> BinaryIO:
        return self._store.open(path)

    def size(self, path: str) -> int:
        return self._store.size(path)

    def exists(self, path: str) -> bool:
        return self._store.exists(path)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        return self._store.list(prefix)

    def clean_spool(self, gone: Callable[[str], bool]) -> int:
        return self._store.clean_spool(gone)

    def local(self, path: str) -> Path | None:
        return self._store.local(path)
