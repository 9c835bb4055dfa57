"""Inspect: what an archive holds, without reading its data."""

from __future__ import annotations

from dataclasses import dataclass

from jivs.archive import chain, runs
from jivs.archive.runs import OpenRun
from jivs.ports.app import App


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The newest manifest (or that of a number), the chain's length, and runs in progress."""

    address: str
    link: chain.Link
    manifests: int
    open_runs: tuple[OpenRun, ...]


def inspect(app: App, archive: str, number: int | None = None) -> Inspection:
    """Look at an archive's manifest. Raises ArchiveFormatError where there is none."""
    store = app.store(archive)
    link = chain.require(store, number)
    return Inspection(
        address=store.address,
        link=link,
        manifests=len(chain.numbers(store)),
        open_runs=tuple(runs.unpublished(store)),
    )
