"""Where the service keeps its archives."""

from __future__ import annotations

from typing import Protocol


class Shelf(Protocol):
    """Archives side by side under one root, each with a name (``jivs.domain.registry.ARCHIVE_NAME``)."""

    def address(self, name: str) -> str:
        """The address of the archive's store, whether it exists or not. Raises UsageError for what is no name."""

    @property
    def shown(self) -> str:
        """Where it is, for people; without secrets."""

    def mark(self, proposed: str) -> str:
        """The mark by which the shelf is told from another one: the one that it has, or else ``proposed`` from now on (not
        if that is empty). Everybody who sees the same shelf gets the same.
        """

    def probe(self) -> None:
        """Write, read and remove something as archives are written. Raises StoreError, or what else is in the way."""

    def names(self) -> list[str]:
        """The archives that have been published at least once, in the order of their names."""
