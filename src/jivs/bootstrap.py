"""The wiring: the only place where an adapter is chosen."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from jivs import connectors
from jivs.backends.children import ChildProcesses
from jivs.backends.clock import SystemClock
from jivs.backends.store.local import LocalShelf, LocalStore
from jivs.domain.guard import Guard
from jivs.domain.source import Address, Limits, Secret
from jivs.errors import DriverMissingError, SettingsError, UsageError
from jivs.ports.app import App
from jivs.ports.cache import STALE_SECONDS, Cache, CacheName
from jivs.ports.catalog import Catalog
from jivs.ports.children import Children
from jivs.ports.queue import Queue
from jivs.ports.service import Service
from jivs.ports.shelf import Shelf
from jivs.ports.store import Store
from jivs.settings import Settings, variable

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


def build_service(settings: Settings, *, hears: int = -1, rings: int = -1) -> Service:
    """The application with users. ``hears`` and ``rings``: ends of a pipe that a parent made as a doorbell.

    Raises SettingsError for secrets that are missing or too weak.
    """
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
        cache=_cache(settings, signing),
        queue=_queue(settings, hears, rings),
        queries=_queries(settings),
        verifications=_verifications(settings),
        passwords=Argon2id(),
        tokens=JwtTokens(signing),
        vault=AesGcmVault(sealing),
        clock=clock,
        access_seconds=settings.jwt_expiration // 1000,
        refresh_seconds=settings.refresh_expiration // 1000,
        embedded=address.scheme == "sqlite",
    )


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


def _queries(settings: Settings) -> Children:
    """Processes that know no secret: of the environment they get what Python itself needs to start."""
    limits = settings.query
    inherited = {name: value for name in ("LD_LIBRARY_PATH", "PYTHONHOME") if (value := variable(name))}
    return ChildProcesses(
        "jivs.api.query_child",
        what="query",
        otherwise="ask for less, or use jivs query, which has no limits.",
        seconds=limits.seconds,
        concurrent=limits.concurrent,
        fixed={"memory": limits.memory, "rows": limits.rows},
        environment={**inherited, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def _verifications(settings: Settings) -> Children:
    limits = settings.verification
    return ChildProcesses(
        "jivs.api.verify_child",
        what="verification",
        otherwise="use jivs verify, which has no limits.",
        seconds=limits.seconds,
        concurrent=limits.concurrent,
        fixed={},
        environment=None,
    )


def _cache(settings: Settings, signing: Secret) -> Cache:
    """In this process, over Redis where it is set. Raises DriverMissingError."""
    from jivs.backends.cache.memory import MemoryCache

    seconds = {
        CacheName.DATASOURCES: settings.cache_ttl_datasources / 1000,
        CacheName.EXTRACTION_CONFIGS: settings.cache_ttl_extraction_configs / 1000,
        CacheName.EXTRACTION_STATS: settings.cache_ttl_extraction_stats / 1000,
    }
    near = MemoryCache(SystemClock(), {name: min(kept, STALE_SECONDS) for name, kept in seconds.items()})
    if not settings.redis_host:
        return near  # as short as over Redis: other processes, the command line among them, change the same catalog
    try:
        from jivs.backends.cache.layered import LayeredCache
        from jivs.backends.cache.redis import RedisCache
    except ImportError:
        raise DriverMissingError("REDIS_HOST needs a package that is not installed: pip install 'jivs[redis]'") from None
    # what all processes of an installation have in common, and no other one that may use the same Redis
    space = hashlib.blake2b(signing.reveal().encode(), digest_size=8, person=b"jivs cache").hexdigest()
    password = Secret(settings.redis_password.get_secret_value())
    return LayeredCache(near, RedisCache(settings.redis_host, settings.redis_port, password, space, seconds))


def _queue(settings: Settings, hears: int, rings: int) -> Queue:
    """Between processes of one parent, or over RabbitMQ where it is set. Raises DriverMissingError."""
    from jivs.backends.queue.pipe import PipeQueue

    if not settings.rabbitmq_host:
        return PipeQueue(reads=hears, writes=rings)
    try:
        from jivs.backends.queue.rabbitmq import RabbitQueue
    except ImportError:
        raise DriverMissingError(
            "RABBITMQ_HOST needs a package that is not installed: pip install 'jivs[rabbitmq]'"
        ) from None
    password = Secret(settings.rabbitmq_password.get_secret_value())
    return RabbitQueue(settings.rabbitmq_host, settings.rabbitmq_port, settings.rabbitmq_username, password)


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
