"""The archive's nouns: segments, tables and manifests (``docs/archive-format.md``)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, fields
from typing import Any, Self

from jivs.domain.fingerprint import EMPTY, Fingerprint
from jivs.domain.schema import Column, TableKind, TableName

FORMAT_VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FINGERPRINT = re.compile(r"([0-9a-f]{16})?")


def checked(value: Any) -> Any:
    """A noun read from JSON, if every field has the type that its annotation says; raises TypeError otherwise.

    A manifest may be forged or damaged: what is read from one is looked at before it is used.
    """
    for item in fields(value):
        found = getattr(value, item.name)
        wanted = _PLAIN.get(str(item.type))
        if wanted is not None and type(found) is not wanted:
            raise TypeError(f"{type(value).__name__}.{item.name} is no {item.type}")
        if item.name == "sha256" and not _SHA256.fullmatch(found):
            raise TypeError(f"{item.name} is no SHA-256")
        if item.name.endswith("fingerprint") and not _FINGERPRINT.fullmatch(found):
            raise TypeError(f"{item.name} is no fingerprint")
        if item.name in {"bytes", "rows", "values"} and found < 0:
            raise TypeError(f"{item.name} is below zero")
        if str(item.type).startswith("tuple[str") and not all(isinstance(part, str) for part in found):
            raise TypeError(f"{item.name} holds something that is no text")
    return value


_PLAIN: dict[str, type] = {"str": str, "int": int, "bool": bool}


@dataclass(frozen=True, kw_only=True)
class FileRef:
    """A file of the archive: path relative to its root, size in bytes, SHA-256 in hex."""

    path: str
    bytes: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "bytes": self.bytes, "sha256": self.sha256}


@dataclass(frozen=True, kw_only=True)
class Segment(FileRef):
    """A Parquet file with rows of one partition."""

    rows: int
    partition: str
    fingerprint: str = ""
    values_quarantined: int = 0

    def to_json(self) -> dict[str, Any]:
        out = super().to_json() | {"rows": self.rows, "partition": self.partition}
        if self.fingerprint:
            out["fingerprint"] = self.fingerprint
        if self.values_quarantined:
            out["values_quarantined"] = self.values_quarantined
        return out

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        found: Self = checked(cls(**data))
        return found


@dataclass(frozen=True, kw_only=True)
class QuarantineFile(FileRef):
    """A Parquet file with the quarantined values of ``segment`` and the quarantined rows met beside them."""

    segment: str
    partition: str
    values: int
    rows: int

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {
            "segment": self.segment,
            "partition": self.partition,
            "values": self.values,
            "rows": self.rows,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        found: Self = checked(cls(**data))
        return found


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a finished partition left: the content of ``runs/<run_id>/<partition>-<epoch>.json``."""

    partition: str
    table: TableName
    epoch: int
    snapshot: str
    segments: tuple[Segment, ...]
    quarantine: tuple[QuarantineFile, ...]
    fingerprint: str = ""
    archive_fingerprint: str = ""
    source_fingerprint: str = ""
    source_rows: int = -1

    @property
    def rows(self) -> int:
        return sum(segment.rows for segment in self.segments)

    @property
    def quarantined_rows(self) -> int:
        return sum(file.rows for file in self.quarantine)

    def to_json(self) -> dict[str, Any]:
        return {
            "partition": self.partition,
            "schema": self.table.schema,
            "name": self.table.name,
            "epoch": self.epoch,
            "snapshot": self.snapshot,
            "segments": [segment.to_json() for segment in self.segments],
            "quarantine": [file.to_json() for file in self.quarantine],
            "fingerprint": self.fingerprint,
            "archive_fingerprint": self.archive_fingerprint,
            "source_fingerprint": self.source_fingerprint,
            "source_rows": self.source_rows,
        }

    def to_bytes(self) -> bytes:
        return json.dumps(self.to_json(), sort_keys=True, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        return cls.from_json(json.loads(raw))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        data = dict(data)
        data["table"] = TableName(schema=data.pop("schema"), name=data.pop("name"))
        data["segments"] = tuple(Segment.from_json(item) for item in data["segments"])
        data["quarantine"] = tuple(QuarantineFile.from_json(item) for item in data["quarantine"])
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class TableEnd:
    """What the source said of a table when its last partition was read, inside the snapshot that it was read in."""

    table: TableName
    ordinal: int
    snapshot: str
    source_rows: int
    changed: str

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "table": [self.table.schema, self.table.name]}

    def to_bytes(self) -> bytes:
        return json.dumps(self.to_json(), sort_keys=True, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        return cls.from_json(json.loads(raw))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        schema, name = data["table"]
        return cls(**{**data, "table": TableName(schema=schema, name=name)})


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was compared when a table was published, and with what result."""

    level: str
    verdict: str
    snapshot: str
    one_snapshot: bool
    source_rows: int = -1
    source_fingerprint: str = ""
    read_fingerprint: str = ""
    archive_fingerprint: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "notes": list(self.notes)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        found: Self = checked(cls(**{**data, "notes": tuple(data["notes"])}))
        return found


@dataclass(frozen=True, kw_only=True)
class TableState:
    """A table in a manifest."""

    source: str
    name: TableName
    kind: TableKind
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    segments: tuple[Segment, ...]
    quarantine: tuple[QuarantineFile, ...]
    proof: Proof
    run_id: str
    changed_in: int
    schema_file: FileRef | None = None
    zero_column_rows: int = 0
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, TableName]:
        return self.source, self.name

    @property
    def label(self) -> str:
        return f"{self.source}:{self.name}"

    @property
    def rows(self) -> int:
        return sum(segment.rows for segment in self.segments) + self.zero_column_rows

    @property
    def rows_quarantined(self) -> int:
        return sum(file.rows for file in self.quarantine)

    @property
    def values_quarantined(self) -> int:
        return sum(file.values for file in self.quarantine)

    @property
    def files(self) -> tuple[FileRef, ...]:
        schema = (self.schema_file,) if self.schema_file else ()
        return (*self.segments, *self.quarantine, *schema)

    def fingerprint(self) -> Fingerprint:
        """The sum of the segments' fingerprints, as recorded."""
        total = EMPTY
        for segment in self.segments:
            if segment.fingerprint:
                total += Fingerprint.parse(segment.rows, segment.fingerprint)
        return total

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "schema": self.name.schema,
            "name": self.name.name,
            "kind": self.kind.value,
            "columns": [column.to_json() for column in self.columns],
            "primary_key": list(self.primary_key),
            "segments": [segment.to_json() for segment in self.segments],
            "quarantine": [file.to_json() for file in self.quarantine],
            "totals": {
                "rows": self.rows,
                "bytes": sum(segment.bytes for segment in self.segments),
                "rows_quarantined": self.rows_quarantined,
                "values_quarantined": self.values_quarantined,
                "zero_column_rows": self.zero_column_rows,
            },
            "verification": self.proof.to_json(),
            "run_id": self.run_id,
            "changed_in": self.changed_in,
            "schema_file": self.schema_file.to_json() if self.schema_file else None,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        schema_file = data["schema_file"]
        found: Self = checked(cls(
            source=data["source"],
            name=TableName(schema=data["schema"], name=data["name"]),
            kind=TableKind(data["kind"]),
            columns=tuple(checked(Column.from_json(column)) for column in data["columns"]),
            primary_key=tuple(data["primary_key"]),
            segments=tuple(Segment.from_json(item) for item in data["segments"]),
            quarantine=tuple(QuarantineFile.from_json(item) for item in data["quarantine"]),
            proof=Proof.from_json(data["verification"]),
            run_id=data["run_id"],
            changed_in=data["changed_in"],
            schema_file=checked(FileRef(**schema_file)) if schema_file else None,
            zero_column_rows=data["totals"]["zero_column_rows"],
            notes=tuple(data["notes"]),
        ))  # fmt: skip
        columns = {column.name for column in found.columns}
        if len(columns) != len(found.columns) or not columns >= set(found.primary_key):
            raise TypeError(f"{found.label}: its columns do not fit its key")
        return found


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The state of an archive after one run. ``previous`` is the SHA-256 of the manifest before it."""

    archive_id: str
    number: int
    previous: str
    created: str
    tool: str
    run_id: str
    readme: FileRef
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: tuple[TableState, ...] = ()
    failed: tuple[dict[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def table(self, key: tuple[str, TableName]) -> TableState | None:
        return next((table for table in self.tables if table.key == key), None)

    @property
    def files(self) -> tuple[FileRef, ...]:
        return (self.readme, *(file for table in self.tables for file in table.files))

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, UTF-8, no white space, no floats, one newline at the end."""
        data = {
            "format_version": FORMAT_VERSION,
            "archive_id": self.archive_id,
            "number": self.number,
            "previous": self.previous,
            "created": self.created,
            "tool": self.tool,
            "run_id": self.run_id,
            "readme": self.readme.to_json(),
            "sources": self.sources,
            "tables": [table.to_json() for table in sorted(self.tables, key=lambda table: table.key)],
            "failed": list(self.failed),
            "notes": list(self.notes),
        }
        return canonical_json(data)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        found: Self = checked(cls(
            archive_id=data["archive_id"],
            number=data["number"],
            previous=data["previous"],
            created=data["created"],
            tool=data["tool"],
            run_id=data["run_id"],
            readme=checked(FileRef(**data["readme"])),
            sources=data["sources"],
            tables=tuple(TableState.from_json(table) for table in data["tables"]),
            failed=tuple(data["failed"]),
            notes=tuple(data["notes"]),
        ))  # fmt: skip
        found.to_bytes()  # refuses what cannot be canonical: floats, keys that are no text
        return found


def canonical_json(data: Any) -> bytes:
    """One byte form for one value. Floats are refused: they have no form that all languages agree on."""
    _refuse_floats(data)
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"


def _refuse_floats(data: Any) -> None:
    if isinstance(data, float):
        raise TypeError("a manifest holds no floats")
    if isinstance(data, dict):
        for value in data.values():
            _refuse_floats(value)
    elif isinstance(data, (list, tuple)):
        for value in data:
            _refuse_floats(value)
