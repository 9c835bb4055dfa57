"""Connections in bodies: a kind with its parts, or a URL."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from jivs.api.deps import Given, Hidden
from jivs.domain.source import Address, Secret
from jivs.errors import UsageError
from jivs.operations import sources

_SCHEMES = {"SQL_SERVER": "mssql", "SAP": "sap+odata", "API": "https"}
"""Kinds whose scheme is not their name in small letters."""

_LOCAL = {"sqlite", "file"}
_SAME = ({"mysql", "mariadb"}, {"postgresql", "postgres"})

SourceType = Annotated[
    str,
    Field(
        pattern="^[A-Z][A-Z0-9_]*$",
        max_length=40,
        description="POSTGRESQL, MYSQL, MARIADB, SQLITE, FILE, or JDBC with a URL; other kinds where they are installed.",
        examples=["POSTGRESQL"],
    ),
]


class ConnectionConfig(Given):
    """Where a source is: ``url``, or its parts. ``username`` and ``password`` count before those of the URL."""

    url: Annotated[str, Field(max_length=4000, examples=["postgresql://db.example:5432/sales"])] = ""
    host: Annotated[str, Field(max_length=300)] = ""
    port: Annotated[int | None, Field(ge=1, le=65535)] = None
    database: Annotated[str, Field(max_length=4000, description="Of files and SQLite: the path.")] = ""
    username: Annotated[str, Field(max_length=300)] = ""
    password: Annotated[Hidden | None, Field(max_length=4000)] = None
    options: dict[str, str] = Field(default_factory=dict, max_length=50)


def address(kind: str, config: ConnectionConfig) -> Address:
    """The address that a kind and its parts, or a URL, make. Raises UsageError where they do not fit each other."""
    scheme = _SCHEMES.get(kind, kind.lower())
    if config.url:
        if config.host or config.port or config.database:
            raise UsageError("connectionConfig: give the url, or host, port and database, not both.")
        found = sources.parse(config.url)
        if kind != "JDBC" and found.scheme != scheme and not any({found.scheme, scheme} <= same for same in _SAME):
            raise UsageError(f"connectionConfig: a URL of {found.scheme}:// is no source of the type {kind}.")
    elif kind == "JDBC":
        raise UsageError(
            "connectionConfig: a source of the type JDBC needs a url, jdbc:postgresql://host/database for example."
        )
    elif not (config.database if scheme in _LOCAL else config.host):
        raise UsageError(
            f"connectionConfig: give the url, or {'the database' if scheme in _LOCAL else 'host and database'}."
        )
    else:
        found = Address(scheme=scheme, host=config.host, port=config.port, database=config.database)
    password = Secret(config.password.get_secret_value()) if config.password is not None else found.password
    return replace(
        found,
        username=config.username or found.username,
        password=password,
        options={**found.options, **config.options},
    )
