"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """``ERROR`` makes a verdict fail; ``DIFFERS`` says that the source is another now; ``NOTE`` informs."""

    ERROR = "error"
    DIFFERS = "differs"
    NOTE = "note"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing found: a stable code, the object, and a sentence."""

    code: str
    severity: Severity
    object: str
    message: str

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code, "severity": self.severity.value, "object": self.object, "message": self.message}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of a verification: its level, what it looked at, and the findings."""

    level: str
    manifest: int
    manifest_sha256: str
    tables: int
    rows: int
    files: int
    bytes: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        return not any(finding.severity is Severity.ERROR for finding in self.findings)

    @property
    def source_differs(self) -> bool:
        return any(finding.severity is Severity.DIFFERS for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "sound": self.sound,
            "source_differs": self.source_differs,
            "manifest": self.manifest,
            "manifest_sha256": self.manifest_sha256,
            "tables": self.tables,
            "rows": self.rows,
            "files": self.files,
            "bytes": self.bytes,
            "findings": [finding.to_json() for finding in self.findings],
            "notes": list(self.notes),
        }
