"""The wiring: the only place where an adapter is chosen."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from jivs import connectors
from jivs.backends.clock import SystemClock
from jivs.backends.store.local import LocalShelf, LocalStore
from jivs.domain.guard import Guard
from jivs.domain.source import Address, Limits, Secret
from jivs.errors import DriverMissingError, SettingsError, UsageError
from jivs.ports.app import App
from jivs.ports.catalog import Catalog
from jivs.ports.service import Service
from jivs.ports.shelf import Shelf
from jivs.ports.store import Store
from jivs.ports.upkeep import Upkeep
from jivs.settings import Settings, environment, variable

if TYPE_CHECKING:
    from jivs.backends.catalog.engine import Engine

_Made = TypeVar("_Made")


def build(settings: Settings, engine: Callable[[], Engine] | None = None) -> App:
    """The application for these settings. Nothing is connected, opened or created yet. ``engine``: the catalog's database,
    where others share it.
    """
    clock = SystemClock()
    shared = engine or _engine(settings)

    def catalog() -> Catalog:
        from jivs.backends.catalog.sql import SqlCatalog

        return SqlCatalog(shared(), clock)

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


def build_service(settings: Settings) -> Service:
    """The application with users. Raises SettingsError for secrets that are missing or too weak."""
    try:
        from jivs.backends.catalog.accounts import SqlAccounts
        from jivs.backends.catalog.extractions import SqlExtractions
        from jivs.backends.catalog.registry import SqlRegistry
        from jivs.backends.catalog.work import SqlWork
        from jivs.backends.secrets.aesgcm import AesGcmVault
        from jivs.backends.secrets.argon2id import Argon2id
        from jivs.backends.secrets.jwt import JwtTokens
        from jivs.backends.secrets.keyfile import KeyFile
    except ImportError as error:
        raise DriverMissingError(
            f"The service needs a package that is not installed ({error.name}): pip install 'jivs[service]'"
        ) from None
    address = _catalog_address(settings)
    signing = Secret(settings.jwt_secret.get_secret_value())
    sealing = Secret(settings.encryption_key.get_secret_value())
    if not (signing and sealing):
        if address.scheme != "sqlite":
            raise SettingsError(
                "JWT_SECRET and ENCRYPTION_KEY have to be set: every process of the service needs the same ones. Make them "
                "with: openssl rand -base64 48; openssl rand -base64 32"
            )
        kept = KeyFile(Path(address.database).with_name("keys.json")).read()
        signing, sealing = signing or kept.signing, sealing or kept.sealing
    clock = SystemClock()

    engine = _engine(settings)
    app = build(settings, engine)
    return Service(
        app=app,
        accounts=_once(lambda: SqlAccounts(engine(), clock)),
        registry=_once(lambda: SqlRegistry(engine(), clock)),
        extractions=_once(lambda: SqlExtractions(engine(), clock)),
        work=_once(lambda: SqlWork(engine(), clock, connections=app.limits.connections, parallel=app.limits.parallel)),
        shelf=_shelf(settings),
        guard=_guard(settings),
        passwords=Argon2id(),
        tokens=JwtTokens(signing),
        vault=AesGcmVault(sealing),
        clock=clock,
        access_seconds=settings.jwt_expiration // 1000,
        refresh_seconds=settings.refresh_expiration // 1000,
    )


def build_upkeep(settings: Settings) -> Upkeep:
    """The catalog's database as a whole. Nothing is opened or made yet."""
    address = _catalog_address(settings)
    if address.scheme == "sqlite":
        from jivs.backends.catalog.sqlite_upkeep import SqliteUpkeep

        return SqliteUpkeep(address)
    try:
        from jivs.backends.catalog.postgresql_upkeep import PostgresUpkeep
    except ImportError as error:
        raise DriverMissingError(
            f"DATABASE_URL needs a package that is not installed ({error.name}): pip install 'jivs[postgresql]'"
        ) from None
    return PostgresUpkeep(address, environment)


def _engine(settings: Settings) -> Callable[[], Engine]:
    """The catalog's database, opened when it is first asked for."""

    def opened() -> Engine:
        from jivs.backends.catalog.engine import Engine

        return Engine(_catalog_address(settings))

    return _once(opened)


def _once(make: Callable[[], _Made]) -> Callable[[], _Made]:
    """What ``make`` makes, made when it is first asked for; if that fails, the next one to ask tries again."""
    making = threading.Lock()
    made: list[_Made] = []

    def get() -> _Made:
        if not made:
            with making:
                if not made:
                    made.append(make())
        return made[0]

    return get


def _shelf(settings: Settings) -> Shelf:
    return LocalShelf(Path(settings.storage_local_path or settings.catalog_path.with_name("archives")).absolute())


def _guard(settings: Settings) -> Guard:
    try:
        networks = tuple(ipaddress.ip_network(text.strip()) for text in settings.networks.split(",") if text.strip())
    except ValueError as error:
        raise SettingsError(f"JIVS_NETWORKS: {error}. Write networks as 10.0.0.0/8, separated by commas.") from None
    roots = tuple(Path(text.strip()) for text in settings.file_roots.split(":") if text.strip())
    if not all(root.is_absolute() for root in roots):
        raise SettingsError("JIVS_FILE_ROOTS: write folders from the root on, separated by colons.")
    return Guard(roots=roots, networks=networks)


def _catalog_address(settings: Settings) -> Address:
    """Where the catalog is. Raises SettingsError for kinds of databases that cannot hold it."""
    url = settings.database_url.get_secret_value()
    if not url:
        return Address(scheme="sqlite", database=str(settings.catalog_path))
    address = Address.parse(url, variable)
    if address.scheme not in {"sqlite", "postgresql", "postgres"}:
        raise SettingsError(
            f"DATABASE_URL: the catalog cannot be in {address.scheme}://. Write sqlite:///path or postgresql://..."
        )
    password = Secret(settings.database_password.get_secret_value()) or address.password
    return replace(address, username=settings.database_username or address.username, password=password)


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
