"""The wiring: the only place where an adapter is chosen."""

from __future__ import annotations

import os
import socket
import uuid
from functools import cache
from pathlib import Path

from jivs import connectors
from jivs.backends.clock import SystemClock
from jivs.backends.store.local import LocalStore
from jivs.domain.source import Address, Limits
from jivs.errors import UsageError
from jivs.ports.app import App
from jivs.ports.catalog import Catalog
from jivs.ports.store import Store
from jivs.settings import Settings, variable


def build(settings: Settings) -> App:
    """The application for these settings. Nothing is connected, opened or created yet."""
    clock = SystemClock()

    @cache
    def catalog() -> Catalog:
        from jivs.backends.catalog.sql import SqlCatalog

        return SqlCatalog(settings.catalog_path, clock)

    extraction = settings.extraction
    return App(
        catalog=catalog,
        store=_store,
        connector=connectors.find,
        address=lambda url: Address.parse(url, variable),
        limits=Limits(
            parallel=extraction.parallel_threads,
            connections=extraction.source_pool_max_size,
            rows_per_second=extraction.rows_per_second,
            batch_rows=extraction.batch_size,
            memory=extraction.memory_limit,
            compression_level=extraction.compression_level,
        ),
        clock=clock,
        owner=f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
        gone=_gone,
    )


def _gone(owner: str) -> bool:
    """Whether an owner was a process of this machine that runs no more; not known of other machines."""
    host, _, rest = owner.partition(":")
    process = rest.partition(":")[0]
    if host != socket.gethostname() or not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _store(address: str) -> Store:
    scheme, separator, path = address.partition("://")
    if not separator:
        return LocalStore(Path(address).absolute())
    if scheme == "file":
        return LocalStore(Path(path).absolute())
    raise UsageError(f"No store for {scheme}://: this version keeps archives in folders (a path or file://path).")
