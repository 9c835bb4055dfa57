"""What users keep in the service: sources and archives by name."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from datetime import datetime

from jivs.domain.source import Address, Secret
from jivs.errors import UsageError

ARCHIVE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""The name of an archive: what is a file name everywhere, and in no path anything but one part."""


@dataclass(frozen=True, kw_only=True)
class SourceDraft:
    """A source as it is to be. Its address may have a password; what is kept in the clear has none."""

    name: str
    address: Address = field(repr=False)
    max_connections: int = 0
    max_rows_per_second: int = 0


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source that is kept. Its address has no password: that is ``sealed``, and opened for connecting only."""

    id: int
    name: str
    address: Address = field(repr=False)
    sealed: str = field(repr=False)
    max_connections: int
    max_rows_per_second: int
    version: int
    created_at: datetime
    updated_at: datetime

    @property
    def place(self) -> str:
        """What its password is bound to."""
        return place(self.id)


def place(source_id: int) -> str:
    """What the password of a source is bound to: it opens in no other row."""
    return f"source:{source_id}"


def without_password(address: Address) -> Address:
    """What may be kept in the clear."""
    return replace(address, password=Secret(""))


def is_archive_name(name: str) -> bool:
    """Whether an archive of the service can have this name."""
    return re.fullmatch(ARCHIVE_NAME, name, re.ASCII) is not None


def archive_name_of(name: str) -> str:
    """The archive of an extraction that names none. No two extractions have the same one: their names differ in more than
    case, and where more than that is lost, a hash tells what was.
    """
    folded = name.casefold()
    if is_archive_name(folded):
        return folded
    readable = re.sub(r"[^a-z0-9]+", "-", folded).strip("-")[:80] or "extraction"
    return f"{readable}-{hashlib.sha256(folded.encode()).hexdigest()[:10]}"


def require_archive_name(name: str) -> str:
    """The name as it is. Raises UsageError for what is none."""
    if not is_archive_name(name):
        raise UsageError("Name an archive with letters, digits, dots, dashes and underscores, 100 at most, no dot first.")
    return name
