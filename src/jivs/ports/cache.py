"""Copies of what the catalog has, kept for a while."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

STALE_SECONDS = 2.0
"""How long a process may still see what another one has dropped."""


class CacheName(StrEnum):
    """What is cached; each has its own time to live (``CACHE_TTL_...``). Keys of EXTRACTION_CONFIGS name a version, so that
    what lies under one never changes.
    """

    DATASOURCES = "datasources"
    EXTRACTION_CONFIGS = "extraction-configs"
    EXTRACTION_STATS = "extraction-stats"


@dataclass(frozen=True, kw_only=True)
class Miss:
    """Nothing was found. Who loads the value gives it to ``put`` together with this; ``token`` is the adapter's own."""

    name: CacheName
    key: str
    token: object = None


@dataclass(frozen=True)
class Counts:
    """How often something was found, in whichever layer, and how often not."""

    hits: int = 0
    misses: int = 0


class Cache(Protocol):
    """May forget anything at any time. No call raises, or waits long, because of the server behind it: without it there are
    only more misses.

    Readers ``get``, and if they get a Miss, load the value and ``put`` it with that Miss. Writers commit, then ``drop``.
    What was loaded before the commit is then seen no more: not by a ``get`` of this process that begins after ``drop``
    returned, nor elsewhere ``STALE_SECONDS`` later, however loading, putting and dropping interleave, and whatever the
    server forgets. One thing stretches this: while the writer cannot reach a server that others can, they may see the old
    value until it can again; if the writer ends before, until the value's time to live is over.
    """

    def get(self, name: CacheName, key: str) -> bytes | Miss:
        """The value, or the Miss to ``put`` it with."""

    def put(self, miss: Miss, value: bytes) -> None:
        """Keep a value that was loaded after ``miss`` was given; not if the key was dropped since, the loading took long,
        or the value is large. No secrets: a value is kept as it is.
        """

    def drop(self, name: CacheName, key: str) -> None:
        """Forget the value, and whatever is being loaded: every Miss given for this key is void."""

    def clear(self) -> None:
        """Forget everything, as ``drop`` does: the catalog is another one now."""

    def counts(self) -> Mapping[CacheName, Counts]:
        """What ``get`` found so far, for every name."""

    def healthy(self) -> bool:
        """Whether every layer answers, as of a second ago; True without a server."""

    def close(self) -> None:
        """Give back connections and memory; calls after it find nothing."""
