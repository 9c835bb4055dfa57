"""Query: SQL over an archive, read-only, reaching nothing but its data files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from jivs.archive import chain
from jivs.archive import sql as engines
from jivs.domain.archive import Segment
from jivs.errors import DamagedError, DriverMissingError, JivsError, UsageError
from jivs.ports.app import App
from jivs.ports.store import Store

if TYPE_CHECKING:
    from jivs.operations._remote import StoreFiles

_ALLOWED = frozenset({"SELECT", "EXPLAIN"})
_REQUESTS_AT_ONCE = 16
"""Threads of the engine where reading means waiting for a store."""

_BATCH = 64 << 10


@contextmanager
def query(app: App, archive: str, sql: str, as_of: int | None = None) -> Iterator[pa.RecordBatchReader]:
    """The result of one SELECT, streamed. Each table is a view ``schema.table``, and ``table`` where that is unique.

    Raises UsageError for anything but one SELECT, and for SQL that the engine refuses; DamagedError and StoreError for data
    files that it cannot read.
    """
    store = app.store(archive)
    manifest = chain.require(store, as_of).manifest
    with duckdb.connect(":memory:") as plain:
        kind = engines.require(plain, sql, _ALLOWED)
    wanted = engines.mentioned(engines.views(manifest), sql, few=0)
    paths = {path for view in wanted for path in view.files}
    files = _Files(store, [one for table in manifest.tables for one in table.segments if one.path in paths])
    with files.clear_errors(f"Data files of {store.address} cannot be read (jivs verify tells more)", DamagedError):
        engine = engines.connect(wanted, files.addresses.__getitem__, files.config, files.remote)
    try:
        with files.clear_errors("The query failed", UsageError):
            text = sql if kind == "EXPLAIN" else engines.select(engine, sql, engines.VALUES).sql
            reader = engine.sql(text).to_arrow_reader(_BATCH)
        with files.clear_errors("The query failed", UsageError):
            yield reader
    finally:
        engine.close()


class _Files:
    """Data files as the engine reads them: from the disk, or through their store."""

    def __init__(self, store: Store, segments: list[Segment]) -> None:
        places = {segment.path: store.local(segment.path) for segment in segments}
        self.remote = _opened(store, segments) if None in places.values() else None
        self.config: dict[str, str | int] = {"threads": _REQUESTS_AT_ONCE} if self.remote else {}
        self.addresses = {path: f"jivs://{path}" if place is None else str(place) for path, place in places.items()}

    @contextmanager
    def clear_errors(self, what: str, kind: type[JivsError]) -> Iterator[None]:
        """The engine's errors as ``kind``; those of the store as they are."""
        try:
            yield
        except duckdb.Error as error:
            failure = self.remote.failure if self.remote else None
            if isinstance(failure, JivsError):
                raise failure from None
            raise kind(f"{what}: {engines.first_line(failure or error)}") from None


def _opened(store: Store, segments: list[Segment]) -> StoreFiles:
    try:
        from jivs.operations._remote import StoreFiles
    except ImportError as error:
        raise DriverMissingError(
            f"Queries at {store.address} need a package that is not installed ({error.name}): pip install 'jivs[s3]'"
        ) from None
    files = StoreFiles(store, segments)
    files.read_tails()
    return files
