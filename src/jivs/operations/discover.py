"""Discover: what a source has."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace

from jivs.domain.schema import Table
from jivs.domain.source import Limits, ServerInfo
from jivs.ports.app import App
from jivs.ports.connector import Listing, Request
from jivs.transfer.throttle import Throttle


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """A source's tables; described ones where the caller asked for columns."""

    address: str
    server: ServerInfo
    listings: tuple[Listing, ...]
    tables: tuple[Table, ...]


def discover(app: App, url: str, limits: Limits, *, columns: bool) -> Discovery:
    """List the tables of a source and, with ``columns``, describe each."""
    address = app.address(url)
    connector = app.connector(address)
    one = replace(limits, connections=min(limits.connections, 2))
    with closing(connector.open(address, one, Request(), Throttle(0, app.clock))) as session:
        server = session.ping()
        listings = tuple(session.tables())
        tables = tuple(session.describe(listing.name) for listing in listings) if columns else ()
    return Discovery(address=address.shown, server=server, listings=listings, tables=tables)
