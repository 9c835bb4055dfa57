"""What cannot be represented: kept with its original bytes, never coerced, never a reason to lose other rows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class QuarantinedValue:
    """One cell. ``row`` is the ordinal in its batch, ``column`` the index in the table.

    ``original`` are the bytes as the source delivered them, ``canonical`` what enters the row's hash in their place.
    """

    row: int
    column: int
    original: bytes
    canonical: bytes
    reason: str


@dataclass(frozen=True, kw_only=True)
class QuarantinedRow:
    """A row that cannot be parsed at all: its bytes and, where the source has lines, its line (from 1)."""

    line: int
    original: bytes
    reason: str
