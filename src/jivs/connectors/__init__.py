"""Connectors: one file per kind of source, found by the scheme of a URL without importing any driver.

Packages outside add theirs with the entry-point group ``jivs.connectors``: the scheme as name, an object that keeps the
promises of ``ports.connector.Connector`` as value.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from jivs.domain.source import Address
from jivs.errors import UsageError
from jivs.ports.connector import Connector

BUILT_IN = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "sqlite": "sqlite",
    "file": "file",
}
"""Scheme -> module."""

GROUP = "jivs.connectors"


def find(address: Address) -> Connector:
    """The connector of an address. Raises UsageError naming the schemes that exist."""
    module = BUILT_IN.get(address.scheme)
    if module is not None:
        connector: Connector = import_module(f"jivs.connectors.{module}").CONNECTOR
        return connector
    for point in entry_points(group=GROUP):
        if point.name == address.scheme:
            loaded: Connector = point.load()
            return loaded
    raise UsageError(f"No connector for {address.scheme}://. Available: {', '.join(f'{name}://' for name in schemes())}.")


def schemes() -> list[str]:
    """All schemes, built in and added."""
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})
