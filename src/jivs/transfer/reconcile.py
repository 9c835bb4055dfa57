"""Both sides compared: what the source counted and hashed against what was read and archived."""

from __future__ import annotations

from dataclasses import dataclass

from jivs.domain.fingerprint import Fingerprint
from jivs.domain.plan import Level


@dataclass(frozen=True, kw_only=True)
class Sides:
    """What is known of one table. ``None``: not measured."""

    archived_rows: int
    quarantined_rows: int
    source_rows: int | None = None
    source: Fingerprint | None = None
    read: Fingerprint | None = None
    archive: Fingerprint | None = None


def differences(level: Level, sides: Sides) -> tuple[str, ...]:
    """What does not agree, as sentences; empty means that the table is verified at this level."""
    found = []
    kept = sides.archived_rows + sides.quarantined_rows
    if level is not Level.NONE and sides.source_rows != kept:
        found.append(
            f"the source counts {sides.source_rows} rows, {sides.archived_rows} were archived and "
            f"{sides.quarantined_rows} quarantined"
        )
    if level is Level.FULL:
        if sides.read != sides.archive:
            found.append(f"the rows as read have fingerprint {sides.read}, the files written {sides.archive}")
        if sides.source is not None and sides.source != sides.read:
            found.append(f"the source computes fingerprint {sides.source}, the rows as read have {sides.read}")
    return tuple(found)
