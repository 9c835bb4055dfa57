"""Manifests that were read lately. They are kept by the SHA-256 of their bytes, so one that was changed is another one."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

from jivs.archive import chain, layout
from jivs.ports.store import Store

_Kept = TypeVar("_Kept")
_PARSED_BYTES = 16 << 20
"""Of manifests as files; as objects they take about three times as much."""

_SUMMARIES = 10_000


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a manifest sums up to. ``bytes``: of all files of the state."""

    number: int
    sha256: str
    previous: str
    created: str
    run_id: str
    tables: int
    rows: int
    bytes: int
    rows_quarantined: int
    values_quarantined: int
    failed: int


class _Recent(Generic[_Kept]):
    """What was made of bytes, by their SHA-256; beyond a total weight, what was not asked for longest is forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._weight = 0
        self._lock = Lock()
        self._kept: OrderedDict[str, tuple[int, _Kept]] = OrderedDict()

    def get(self, sha256: str, weight: int, make: Callable[[], _Kept]) -> _Kept:
        with self._lock:
            if sha256 in self._kept:
                self._kept.move_to_end(sha256)
                return self._kept[sha256][1]
        made = make()
        with self._lock:
            if sha256 not in self._kept and weight <= self._most:
                self._kept[sha256] = (weight, made)
                self._weight += weight
            while self._weight > self._most:
                self._weight -= self._kept.popitem(last=False)[1][0]
        return made


_links: _Recent[chain.Link] = _Recent(_PARSED_BYTES)
_summaries: _Recent[Summary] = _Recent(_SUMMARIES)


def link(store: Store, number: int) -> chain.Link:
    """``chain.load``, often without parsing."""
    raw = store.read(layout.manifest(number))
    return _links.get(_key(raw, number), len(raw), lambda: chain.parse(store, number, raw))


def summary(store: Store, number: int) -> Summary:
    """What a manifest sums up to, mostly without parsing it."""
    raw = store.read(layout.manifest(number))
    return _summaries.get(_key(raw, number), 1, lambda: summed(chain.parse(store, number, raw)))


def _key(raw: bytes, number: int) -> str:
    return f"{number}:{hashlib.sha256(raw).hexdigest()}"


def summed(found: chain.Link) -> Summary:
    """What a manifest that was read sums up to."""
    manifest = found.manifest
    return Summary(
        number=manifest.number,
        sha256=found.sha256,
        previous=manifest.previous,
        created=manifest.created,
        run_id=manifest.run_id,
        tables=len(manifest.tables),
        rows=sum(table.rows for table in manifest.tables),
        bytes=sum(file.bytes for file in manifest.files),
        rows_quarantined=sum(table.rows_quarantined for table in manifest.tables),
        values_quarantined=sum(table.values_quarantined for table in manifest.tables),
        failed=len(manifest.failed),
    )
