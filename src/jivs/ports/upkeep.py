"""The database of the catalog as a whole: what backups, restores and checks need of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from jivs.domain.audit import Deed


class Upkeep(Protocol):
    """Nothing is made, migrated or changed but by ``load`` and ``upgrade``.

    Raises UnreachableError where the database does not answer, DamagedError for what is no database.
    """

    @property
    def kind(self) -> str:
        """What holds the catalog: ``sqlite`` or ``postgresql``."""

    @property
    def shown(self) -> str:
        """Where the catalog is, without secrets."""

    @property
    def newest(self) -> str:
        """The schema that this version of JiVS works on; schemas are in the order of their names."""

    def version(self) -> str:
        """The schema of the catalog; empty where there is no catalog."""

    def skew(self) -> float:
        """Seconds by which the clock of the machine that holds the catalog is ahead of ours."""

    def room(self) -> tuple[int, int]:
        """How many connections its server takes, and how many are taken; 0 where there is no such limit."""

    def covers(self, path: str) -> bool:
        """Whether a file of this machine belongs to the catalog itself."""

    def save(self, write: Callable[[bytes], object]) -> str:
        """Write all of the catalog as it is at one moment, while others go on with it; the schema of what was written.

        Raises UserError where there is nothing to write, or something that only a newer JiVS knows all of.
        """

    def in_use(self) -> str:
        """Who else uses the catalog now, in words; empty if nobody does."""

    def load(self, saved: BinaryIO, *, force: bool) -> None:
        """Put what ``save`` wrote, from here to the end of the file, in the place of the catalog: all of it or nothing.

        Sessions that it knows are ended, and whoever works on one of its runs has lost it: what happened since then is
        forgotten by the catalog, and must not count. Raises ConflictError if others use the catalog, unless ``force``.
        """

    def set_aside(self) -> str:
        """Move a catalog that cannot be read out of the way; where it is now. Raises ConflictError where that cannot be."""

    def upgrade(self) -> None:
        """Bring the schema to the newest version, or make it, under the lock of whoever migrates."""

    def record(self, at: float, deed: Deed) -> None:
        """Add a deed to the audit trail of a catalog of the newest schema."""

    def faults(self) -> Iterator[str]:
        """What is wrong with the database, in sentences: it reads all of it."""
