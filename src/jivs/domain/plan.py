"""What a run would read, and in which partitions."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from jivs.domain.schema import Column, Table, TableKind, TableName

Bounds = dict[str, Any]
"""A connector's own description of a part of a table; JSON, understood by the connector only. Empty: the whole."""


class Level(StrEnum):
    """How much is compared with the source (``docs/verification.md``)."""

    NONE = "none"
    COUNT = "count"
    FULL = "full"


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A part of one table: the unit of reading, of the claim, and of resuming."""

    id: str
    table: TableName
    ordinal: int
    bounds: Bounds
    estimated_rows: int = -1

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "schema": self.table.schema,
            "name": self.table.name,
            "ordinal": self.ordinal,
            "bounds": self.bounds,
            "estimated_rows": self.estimated_rows,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(
            id=data["id"],
            table=TableName(schema=data["schema"], name=data["name"]),
            ordinal=data["ordinal"],
            bounds=data["bounds"],
            estimated_rows=data["estimated_rows"],
        )


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which tables and columns of a source a run takes. All of it is part of the run's identity when resuming."""

    tables: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    queries: tuple[tuple[str, str], ...] = ()
    columns: tuple[str, ...] = ()
    where: str = ""

    def digest(self, source: str) -> str:
        """Identifies runs that would read the same things; ``source`` is the source's label and address."""
        parts = [source, *map(repr, (self.tables, self.exclude, self.queries, self.columns, self.where))]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class TablePlan:
    """A table of a run with its partitions. ``base`` is the manifest number the run started from."""

    table: Table
    partitions: tuple[Partition, ...]
    base: int = 0
    snapshot: str = ""

    def to_json(self) -> dict[str, Any]:
        table = self.table
        return {
            "schema": table.name.schema,
            "name": table.name.name,
            "kind": table.kind.value,
            "columns": [column.to_json() for column in table.columns],
            "primary_key": list(table.primary_key),
            "estimated_rows": table.estimated_rows,
            "estimated_bytes": table.estimated_bytes,
            "ddl": table.ddl,
            "notes": list(table.notes),
            "in_snapshot": table.in_snapshot,
            "partitions": [partition.to_json() for partition in self.partitions],
            "base": self.base,
            "snapshot": self.snapshot,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        table = Table(
            name=TableName(schema=data["schema"], name=data["name"]),
            kind=TableKind(data["kind"]),
            columns=tuple(Column.from_json(column) for column in data["columns"]),
            primary_key=tuple(data["primary_key"]),
            estimated_rows=data["estimated_rows"],
            estimated_bytes=data["estimated_bytes"],
            ddl=data["ddl"],
            notes=tuple(data["notes"]),
            in_snapshot=data["in_snapshot"],
        )
        partitions = tuple(Partition.from_json(partition) for partition in data["partitions"])
        return cls(table=table, partitions=partitions, base=data["base"], snapshot=data["snapshot"])


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """The whole of a run: what ``runs/<run_id>/open.json`` holds, enough to resume without the catalog."""

    run_id: str
    source: str
    digest: str
    level: Level
    tables: tuple[TablePlan, ...]
    snapshot: dict[str, Any] = field(default_factory=dict)

    @property
    def partitions(self) -> tuple[Partition, ...]:
        return tuple(partition for table in self.tables for partition in table.partitions)

    def to_json(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "source": self.source,
            "digest": self.digest,
            "level": self.level.value,
            "snapshot": self.snapshot,
            "tables": [table.to_json() for table in self.tables],
        }

    def to_bytes(self) -> bytes:
        return json.dumps(self.to_json(), sort_keys=True, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        raw = json.loads(data)
        return cls(
            run_id=raw["run_id"],
            source=raw["source"],
            digest=raw["digest"],
            level=Level(raw["level"]),
            snapshot=raw["snapshot"],
            tables=tuple(TablePlan.from_json(table) for table in raw["tables"]),
        )
