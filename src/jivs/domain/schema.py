"""What the archive's types are, and how a source's table is described in them.

The type contract stands in ``docs/types.md``: every source type has one documented archive type and a fidelity.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self


class Kind(StrEnum):
    """The kinds of values an archive can hold."""

    BOOL = "bool"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    FLOAT = "float"
    DOUBLE = "double"
    DECIMAL = "decimal"
    TEXT = "text"
    BINARY = "binary"
    UUID = "uuid"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    TIMETZ = "timetz"
    INTERVAL = "interval"


INTEGERS = frozenset(kind for kind in Kind if "int" in kind.value and kind is not Kind.INTERVAL)
MOMENTS = frozenset({Kind.DATE, Kind.TIME, Kind.TIMESTAMP})
"""Kinds with values beyond the archive's type: those go, as text, to the companion column."""


class Fidelity(StrEnum):
    """How faithful the archive's form of a source type is."""

    EXACT = "exact"
    TEXT = "text"
    REFUSED = "refused"


_TYPE = re.compile(r"(?P<kind>[a-z0-9]+)(?:\((?P<a>\w+)(?:,(?P<b>\w+))?\))?")


@dataclass(frozen=True, kw_only=True)
class ArchiveType:
    """One type of the archive. ``str`` gives the form used in manifests, ``parse`` reads it back.

    ``precision`` and ``scale`` belong to decimals (1..38 digits); ``unit`` (``us`` or ``ns``) and ``zoned`` to
    timestamps, whose value is a count of units since 1970-01-01 00:00 (UTC when zoned).
    """

    kind: Kind
    precision: int = 0
    scale: int = 0
    unit: str = "us"
    zoned: bool = False

    def __str__(self) -> str:
        if self.kind is Kind.DECIMAL:
            return f"decimal({self.precision},{self.scale})"
        if self.kind is Kind.TIMESTAMP:
            return f"timestamp({self.unit},utc)" if self.zoned else f"timestamp({self.unit})"
        return self.kind.value

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the form that ``str`` gives. Raises ValueError for anything else."""
        match = _TYPE.fullmatch(text)
        if match is None:
            raise ValueError(f"no archive type: {text!r}")
        kind = Kind(match["kind"])
        if kind is Kind.DECIMAL:
            return cls(kind=kind, precision=int(match["a"]), scale=int(match["b"]))
        if kind is Kind.TIMESTAMP:
            return cls(kind=kind, unit=match["a"], zoned=match["b"] == "utc")
        return cls(kind=kind)


TEXT = ArchiveType(kind=Kind.TEXT)


@dataclass(frozen=True, kw_only=True, order=True)
class TableName:
    """A table's true name in its source. ``schema`` is empty where the source has none."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


class TableKind(StrEnum):
    """What a relation is in its source."""

    TABLE = "table"
    PARTITIONED = "partitioned table"
    VIEW = "view"
    MATERIALIZED_VIEW = "materialized view"
    FOREIGN = "foreign table"
    QUERY = "query"
    FILE = "file"

    @property
    def taken_by_default(self) -> bool:
        """Whether a run without ``--table`` takes it: what holds rows of its own."""
        return self in {TableKind.TABLE, TableKind.PARTITIONED, TableKind.FILE}


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: its true name, its field in the Parquet files, and both types.

    ``companion`` is the field that receives, as text, values which exist in the source but not in the archive's type
    (infinity, year 294276, 0000-00-00); it is in a segment only if such a value was met there.
    """

    name: str
    field: str
    type: ArchiveType
    source_type: str
    fidelity: Fidelity
    nullable: bool = True
    logical: str = ""
    companion: str = ""
    domain: str = ""

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "name": self.name,
            "field": self.field,
            "type": str(self.type),
            "source_type": self.source_type,
            "fidelity": self.fidelity.value,
            "nullable": self.nullable,
        }
        out.update({key: value for key in ("logical", "companion", "domain") if (value := getattr(self, key))})
        return out

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        fixed = {"type": ArchiveType.parse(data["type"]), "fidelity": Fidelity(data["fidelity"])}
        return cls(**{**data, **fixed})


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as its source describes it, with the archive's columns chosen by the connector's type map.

    ``estimated_rows`` and ``estimated_bytes`` are the source's guesses, -1 where it has none. ``ddl`` is the source's
    own description, kept verbatim. ``notes`` are sentences about what is particular; ``in_snapshot`` is False where the
    storage ignores snapshots.
    """

    name: TableName
    kind: TableKind
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    estimated_rows: int = -1
    estimated_bytes: int = -1
    ddl: str = ""
    notes: tuple[str, ...] = ()
    in_snapshot: bool = True

    def same_structure(self, other: Table) -> bool:
        """Whether the columns have the same names, types and order."""
        mine = [(column.name, column.type, column.source_type) for column in self.columns]
        return mine == [(column.name, column.type, column.source_type) for column in other.columns]


def assign_fields(columns: list[Column]) -> tuple[Column, ...]:
    """Give each column a field name that is unique without regard to case, and moments their companion's field.

    ``A`` and ``a`` collide in most engines that read Parquet: the second becomes ``a__2``.
    """
    names = {column.name.casefold() for column in columns}
    taken: set[str] = set()
    fields: list[str] = []
    for column in columns:
        field = _free(column.name, taken, set())
        taken.add(field.casefold())
        fields.append(field)
    out = []
    for column, field in zip(columns, fields, strict=True):
        companion = ""
        if column.type.kind in MOMENTS:
            companion = _free(f"{field}__text", taken, names)
            taken.add(companion.casefold())
        out.append(replace(column, field=field, companion=companion))
    return tuple(out)


def _free(wanted: str, taken: set[str], reserved: set[str]) -> str:
    candidate, number = wanted, 1
    while candidate.casefold() in taken or candidate.casefold() in reserved:
        number += 1
        candidate = f"{wanted}__{number}"
    return candidate
