"""Where an archive's files lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file in a store: its path with ``/`` between parts, its size in bytes."""

    path: str
    bytes: int


class Store(Protocol):
    """A flat space of files under one root.

    Paths are relative, with ``/`` between parts; a path that could leave the root is refused with ValueError. A file
    is whole or absent, never half-written, also after a crash or on a full disk. Errors of the medium are
    StoreError; a file that is not there is FileNotFoundError.
    """

    @property
    def address(self) -> str:
        """Where the store is, for people; without secrets."""

    @property
    def spool(self) -> Path:
        """A local folder for files being written; ``put`` from it is cheapest."""

    @property
    def parallel(self) -> int:
        """How many calls at once are worth their threads: 1 where none waits for another machine."""

    @property
    def memory(self) -> int:
        """Bytes that its client and what is read ahead take of a run's memory."""

    def put(self, local: Path, path: str) -> None:
        """Move the local file to ``path``, durably. Content-addressed: an existing file of that path is kept as it is."""

    def put_all(self, files: Sequence[tuple[Path, str]]) -> None:
        """``put`` for many files, which together cost little more than one. After an error some may have their names."""

    def create(self, path: str, data: bytes) -> None:
        """Write a new file durably and atomically. Raises AlreadyExistsError if the path is taken: exactly one of any
        number of callers at once succeeds.
        """

    def replace(self, path: str, data: bytes) -> None:
        """Write a file durably and atomically, whether it exists or not."""

    def read(self, path: str, start: int = 0, count: int | None = None) -> bytes:
        """The file's bytes, or ``count`` of them from ``start`` on: fewer where the file ends before."""

    def open(self, path: str) -> BinaryIO:
        """A seekable reader."""

    def size(self, path: str) -> int:
        """The file's size in bytes."""

    def exists(self, path: str) -> bool:
        """Whether the file is there."""

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All files whose path begins with ``prefix``, in order of their paths."""

    def delete(self, path: str) -> None:
        """Remove a file; one that is not there is no error."""

    def clean_spool(self, gone: Callable[[str], bool]) -> int:
        """Remove what writers that are gone left in the spool. ``gone`` is asked about each folder's name just before it
        would be removed. The number of files removed.
        """

    def local(self, path: str) -> Path | None:
        """The file's place on a disk of this machine, where other readers can open it; None: it can be read here only."""
