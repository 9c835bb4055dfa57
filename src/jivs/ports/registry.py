"""The record of sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from jivs.domain.audit import Deed
from jivs.domain.registry import Source, SourceDraft


class Registry(Protocol):
    """Each call is one short transaction; what changes something records its deed in the same one."""

    def add_source(self, draft: SourceDraft, seal: Callable[[str], str], deed: Deed) -> Source:
        """A new source. ``seal`` gives the encrypted password for the place that it is bound to.

        Raises AlreadyExistsError if the name, whatever its case, is taken.
        """

    def source(self, source_id: int) -> Source | None:
        """By id."""

    def sources(
        self,
        *,
        after: int = 0,
        offset: int = 0,
        limit: int = 100,
        name: str = "",
        sort: str = "id",
        descending: bool = False,
    ) -> list[Source]:
        """Those with ids above ``after``, in the order ``sort`` (id, name, createdAt, updatedAt) from the ``offset`` on;
        with ``name``, those whose name has it, whatever its case.
        """

    def count_sources(self, *, name: str = "") -> int:
        """How many there are."""

    def change_source(self, source_id: int, version: int, draft: SourceDraft, sealed: str | None, deed: Deed) -> Source:
        """Replace a source; ``sealed`` None: its password stays, under whatever key it is by then. Raises ConflictError if
        it changed since ``version``, AlreadyExistsError for a taken name.
        """

    def remove_source(self, source_id: int, deed: Deed) -> bool:
        """Delete a source; False if there is none."""

    def reseal(self, source_id: int, before: str, after: str, deed: Deed) -> bool:
        """Replace an encrypted password by the same under another key; False if it is not ``before`` any more."""
