"""The audit trail: who did what to which object, each entry bound to the one before it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

_UNKEPT = re.compile("[\x00\ud800-\udfff]")
GENESIS = "0" * 64
"""What the first entry is bound to."""


@dataclass(frozen=True, kw_only=True)
class Deed:
    """What is about to be recorded. ``detail`` never holds a secret. Characters that no database keeps become U+FFFD."""

    actor: str
    action: str
    object: str
    detail: dict[str, str | int | bool | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("actor", "action", "object"):
            object.__setattr__(self, name, _UNKEPT.sub("\ufffd", getattr(self, name)))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A deed in its place in the chain. ``at``: seconds since 1970."""

    seq: int
    at: float
    deed: Deed
    hash: str

    @property
    def moment(self) -> datetime:
        """When, in UTC."""
        return datetime.fromtimestamp(self.at, UTC)


@dataclass(frozen=True, kw_only=True)
class End:
    """How many entries a trail had at some time, and the hash of the last: what to note elsewhere, for a trail that is cut
    behind an entry, or written anew from its beginning, shows against nothing else.
    """

    entries: int
    hash: str


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which entries of the trail; what is empty does not matter. ``since`` and ``until``: seconds since 1970, the latter not
    included.
    """

    actor: str = ""
    action: str = ""
    object: str = ""
    since: float | None = None
    until: float | None = None


EVERYTHING = Wanted()


def said(at: float, deed: Deed) -> str:
    """What is hashed of a deed wherever in the chain it stands: the end of a JSON array, in ASCII."""
    return json.dumps([at, deed.actor, deed.action, deed.object, deed.detail], sort_keys=True)[1:]


def chained(previous: str, seq: int, what: str) -> str:
    """The hash of an entry: SHA-256 over the hash before it, its number, and what is ``said``, as one JSON array."""
    return hashlib.sha256(f"[{json.dumps(previous)}, {seq}, {what}".encode()).hexdigest()
