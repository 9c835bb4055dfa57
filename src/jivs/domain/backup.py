"""Backups of the catalog: what stands before the saved bytes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

HEADER_BYTES = 512
"""The saved bytes begin here: ``tail -c +513`` gives them. The header is a comment of SQL, so psql reads the whole file."""

_MARK = "-- JiVS backup "
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What a backup says of itself. ``size`` in bytes and ``sha256`` are of what follows its header."""

    kind: str
    schema: str
    created: str
    tool: str
    size: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def header(self) -> bytes:
        """One line of ``HEADER_BYTES``."""
        text = _MARK + json.dumps({"format": _FORMAT, **self.to_json()})
        return text.encode("ascii").ljust(HEADER_BYTES - 1) + b"\n"

    @classmethod
    def from_header(cls, line: bytes) -> Self | None:
        """None for what is no header of a backup. Raises ValueError for one of a newer format."""
        if not line.startswith(_MARK.encode()) or len(line) != HEADER_BYTES:
            return None
        try:
            data = json.loads(line.decode("ascii").removeprefix(_MARK))
            version = data.pop("format")
            if isinstance(version, int) and version > _FORMAT:
                raise ValueError(f"format {version}")
            found = cls(**data)
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError):
            return None
        sound = all(isinstance(getattr(found, name), str) for name in ("kind", "schema", "created", "tool", "sha256"))
        return found if sound and isinstance(found.size, int) else None
