"""Which tables of a source a run takes."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from jivs.domain.plan import Selection
from jivs.domain.schema import TableKind
from jivs.errors import UsageError
from jivs.ports.connector import Listing


def choose(listings: Sequence[Listing], selection: Selection) -> list[Listing]:
    """The tables that the selection means, in the source's order.

    Without patterns: whatever holds rows of its own, or the free queries alone if there are any. A pattern (``sales.*``)
    is matched with and without the schema, and takes views too. Raises UsageError if a pattern matches nothing.
    """
    queries = [listing for listing in listings if listing.kind is TableKind.QUERY]
    tables = {listing.name for listing in listings if listing.kind is not TableKind.QUERY}
    for query in queries:
        if query.name in tables:
            raise UsageError(f"Query {query.name} has the name of a table: give it another.")
    if selection.tables:
        wanted = {listing.name for listing in queries}
        for pattern in selection.tables:
            matched = [listing for listing in listings if _matches(listing, pattern)]
            if not matched:
                near = ", ".join(str(listing.name) for listing in listings[:8])
                raise UsageError(f"No table matches {pattern!r}. There are {len(listings)}: {near}, ...")
            wanted |= {listing.name for listing in matched}
        chosen = [listing for listing in listings if listing.name in wanted]
    elif queries:
        chosen = queries
    else:
        chosen = [listing for listing in listings if listing.kind.taken_by_default]
    chosen = [listing for listing in chosen if not any(_matches(listing, pattern) for pattern in selection.exclude)]
    if not chosen:
        raise UsageError(
            "There is no table to extract: the source has none that this account can see, or all are excluded. "
            "jivs discover lists what there is."
        )
    return chosen


def left_out(listings: Sequence[Listing], chosen: Sequence[Listing]) -> str:
    """A sentence on what a run without ``--table`` leaves; empty if nothing."""
    others: dict[str, int] = {}
    taken = {listing.name for listing in chosen}
    for listing in listings:
        if listing.name not in taken and not listing.kind.taken_by_default:
            others[listing.kind.value] = others.get(listing.kind.value, 0) + 1
    if not others:
        return ""
    return "not taken unless named with --table: " + ", ".join(f"{count} {kind}(s)" for kind, count in others.items())


def _matches(listing: Listing, pattern: str) -> bool:
    full, short = str(listing.name), listing.name.name
    return pattern in (full, short) or fnmatch.fnmatchcase(full, pattern) or fnmatch.fnmatchcase(short, pattern)
