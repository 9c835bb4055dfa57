"""The record of extractions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from jivs.domain.audit import Deed
from jivs.domain.extraction import Extraction, ExtractionDraft
from jivs.domain.registry import SourceDraft


class Head(NamedTuple):
    """What changes in what is shown of an extraction: equal versions show the same but for the newest run."""

    id: int
    version: int
    source_version: int
    changed_at: float
    last_run: str
    last_state: str


class Extractions(Protocol):
    """Each call is one short transaction; what changes something records its deed in the same one."""

    def add(self, draft: ExtractionDraft, actor: str, deed: Deed) -> Extraction:
        """A new extraction. Raises AlreadyExistsError for a name that is taken, whatever its case, NotFoundError if there is
        no such source.
        """

    def add_with_source(
        self, draft: ExtractionDraft, source: SourceDraft, seal: Callable[[str], str], actor: str, deeds: tuple[Deed, Deed]
    ) -> Extraction:
        """A new extraction with a source of its own, both or none. ``draft.source_id`` does not count."""

    def get(self, extraction_id: int) -> Extraction | None:
        """By id."""

    def heads(self, asked: Sequence[tuple[int, int]]) -> list[list[Head]]:
        """For each (id, limit) so many of those above the id, by id, by the shortest way there is for all of them."""

    def page(
        self,
        *,
        after: int = 0,
        offset: int = 0,
        limit: int = 100,
        name: str = "",
        source_id: int = 0,
        state: str = "",
        sort: str = "id",
        descending: bool = False,
    ) -> list[Extraction]:
        """Those above ``after`` by id, or from ``offset`` on in the order of ``sort`` (id, name, createdAt, updatedAt).

        ``name``: part of the name, whatever its case; ``state``: of the newest run.
        """

    def count(self, *, name: str = "", source_id: int = 0, state: str = "") -> int:
        """How many ``page`` would give in all."""

    def change(self, extraction_id: int, version: int, draft: ExtractionDraft, deed: Deed) -> Extraction:
        """Replace an extraction. Raises ConflictError if it changed since ``version``, AlreadyExistsError for a taken name,
        NotFoundError if there is no such source.
        """

    def remove(self, extraction_id: int, deed: Deed) -> bool:
        """Delete an extraction, its schedules and the record of its runs; False if there is none. Raises ConflictError while
        it has a run that has not ended.
        """
