"""Parts of a table by ctid: ranges of pages of its heap, sized with what their rows keep aside (TOAST)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from jivs.connectors._sql import SLICES
from jivs.domain.plan import Bounds

RANGES_SINCE = 140000
"""The first version that reads a range of ctids without going through the whole table (PostgreSQL 14, release notes)."""

WORTH_SLICING = 16 << 20
"""Bytes of a table; a smaller one is read in one go."""
_PAGE = 8192
_SIZES = """
select pg_relation_size(oid) / %(page)s, coalesce(pg_relation_size(nullif(reltoastrelid, 0)), 0)
from pg_class where oid = %(name)s::regclass
"""


def ranges(connection: Any, name: str, target_bytes: int, leaf: Bounds) -> tuple[int, list[Bounds]]:
    """The heap's pages, and ranges that tile the table: the first open below, the last open above."""
    pages, aside = connection.execute(_SIZES, {"name": name, "page": _PAGE}).fetchone()
    return pages, _tiles(leaf, 0, pages, min(pages, -(-(pages * _PAGE + aside) // target_bytes)))


def slices(bounds: Bounds, pages: int) -> list[Bounds]:
    """A range cut into some of equal width. ``pages``: where it ends, or where the table ends now."""
    first = int(bounds.get("from", 0))
    return _tiles(bounds, first, pages, min(SLICES, pages - first))


def _tiles(whole: Bounds, first: int, beyond: int, count: int) -> list[Bounds]:
    """``count`` ranges between two pages; the outer ends are those of the whole, open or not."""
    inner = [first + (beyond - first) * index // count for index in range(1, count)]
    edges = [whole.get("from"), *inner, whole.get("to")]
    rest = {name: value for name, value in whole.items() if name not in {"from", "to"}}
    return [
        {**rest, **({"from": low} if low is not None else {}), **({"to": high} if high is not None else {})}
        for low, high in pairwise(edges)
    ]
