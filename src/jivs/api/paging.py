"""Which part of a list is asked for: from a cursor on, or a page of it in an order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from fastapi import Query

from jivs.api.deps import LARGEST
from jivs.errors import UsageError


class Numbered(Protocol):
    """What has an id."""

    @property
    def id(self) -> int:
        """From 1 on."""


One = TypeVar("One", bound=Numbered)


@dataclass(frozen=True, kw_only=True)
class Part:
    """By ``cursor`` and ``limit`` in the order of ids; if ``page`` is given, by it and ``size`` in the order ``sort``."""

    cursor: int
    limit: int
    page: int | None
    size: int
    sort: str
    descending: bool

    def find(self, ask: Callable[..., list[One]], **filters: Any) -> list[One]:
        """What ``ask`` has of it; by cursor one more, if there are more."""
        if self.page is None:
            return ask(after=self.cursor, limit=self.limit + 1, **filters)
        return ask(offset=self.page * self.size, limit=self.size, sort=self.sort, descending=self.descending, **filters)

    def shown(
        self, found: Sequence[One], out: Callable[[One], Any], count: Callable[..., int], **filters: Any
    ) -> dict[str, Any]:
        """The fields of the body; ``count`` is asked for pages only."""
        if self.page is None:
            following = found[self.limit - 1].id if len(found) > self.limit else None
            return {"items": [out(one) for one in found[: self.limit]], "next_cursor": following}
        total = count(**filters)
        pages = {"page": self.page, "size": self.size, "total": total, "total_pages": -(-total // self.size)}
        return {"items": [out(one) for one in found], **pages}


def part_in(*orders: str) -> Callable[..., Part]:
    """A dependency: the part of a list that has these orders beside that of its ids."""

    def asked(
        sort: str = Query("id", pattern=f"^(id|{'|'.join(orders)})(,(asc|desc))?$"),
        cursor: int | None = Query(None, ge=0, le=LARGEST),
        limit: int | None = Query(None, ge=1, le=200, description="50, if left out."),
        page: int | None = Query(None, ge=0, le=10**6, description="From 0 on; with size, instead of cursor and limit."),
        size: int | None = Query(None, ge=1, le=200, description="20, if left out."),
    ) -> Part:
        order, _, direction = sort.partition(",")
        if page is None and size is not None:
            page = 0
        if page is None and sort not in {"id", "id,asc"}:
            raise UsageError("Another order than by id needs page and size: a cursor is an id.")
        if page is not None and (cursor is not None or limit is not None):
            raise UsageError("Lists are read by page and size, or by cursor and limit: not by both.")
        return Part(
            cursor=cursor or 0, limit=limit or 50, page=page, size=size or 20, sort=order, descending=direction == "desc"
        )

    return asked
