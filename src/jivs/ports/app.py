"""The application: adapters chosen, ready for operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from jivs.domain.source import Address, Limits
from jivs.ports.catalog import Catalog
from jivs.ports.clock import Clock
from jivs.ports.connector import Connector
from jivs.ports.metrics import Metrics, NoMetrics
from jivs.ports.store import Store
from jivs.ports.tracing import NoTracing, Tracing


@dataclass(frozen=True, kw_only=True)
class App:
    """What ``bootstrap.build`` made. Nothing in it has connected to anything yet.

    ``catalog`` opens the catalog when first called, ``store`` the store at an archive's address, ``connector`` finds
    the connector of an address by its scheme, ``address`` parses a connection URL. ``owner`` names this process in leases;
    ``gone`` tells whether the process that an owner's name stands for is known to have ended.
    """

    catalog: Callable[[], Catalog]
    store: Callable[[str], Store]
    connector: Callable[[Address], Connector]
    address: Callable[[str], Address]
    limits: Limits
    clock: Clock
    owner: str
    gone: Callable[[str], bool]
    metrics: Metrics = field(default_factory=NoMetrics)
    tracing: Tracing = field(default_factory=NoTracing)
