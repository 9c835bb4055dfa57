"""The wiring: the only place where an adapter is chosen."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import shutil
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, TypeVar

from jivs import connectors
from jivs.backends import processes
from jivs.backends.children import ChildProcesses
from jivs.backends.clock import SystemClock
from jivs.backends.machine import LocalMachine
from jivs.backends.store.local import LocalShelf, LocalStore
from jivs.backends.store.s3 import S3Place, S3Shelf, S3Store
from jivs.backends.store.s3_access import S3Access
from jivs.domain.guard import Guard
from jivs.domain.sizing import Sizes, memory_of_run
from jivs.domain.source import Address, Limits, Secret
from jivs.errors import DriverMissingError, SettingsError, StoreError, UnreachableError, UsageError
from jivs.ports.app import App
from jivs.ports.cache import STALE_SECONDS, Cache, CacheName
from jivs.ports.catalog import Catalog
from jivs.ports.children import Children
from jivs.ports.machine import Machine
from jivs.ports.metrics import Metrics, NoMetrics
from jivs.ports.queue import Queue
from jivs.ports.service import Check, Service
from jivs.ports.shelf import Shelf
from jivs.ports.store import Store
from jivs.ports.tracing import NoTracing, Tracing
from jivs.ports.upkeep import Upkeep
from jivs.settings import Settings, environment, metrics_folder, variable

if TYPE_CHECKING:
    from jivs.backends.catalog.engine import Engine
    from jivs.backends.metrics.folder import MetricsFolder

LOOKS = 4
"""Sources looked at at once, each by a process of its own."""

_LONGEST_LIST = 16 << 20
"""Bytes of a list of a source's tables: more than a hundred thousand of them."""

_SMALLEST_SPACE = 64 << 20
_FOR_HEALTH = 2
"""Connections to the catalog that a process needs which only tells whether all is well."""

_Made = TypeVar("_Made")


def preload(*packages: str) -> None:
    """Load what is else loaded where it is needed first, of these packages alone if any is named: forks share it."""
    for package in packages or ("backends.catalog", "backends.metrics", "backends.secrets", "connectors"):
        for found in iter_modules(import_module(f"jivs.{package}").__path__, f"jivs.{package}."):
            with suppress(Exception):  # not installed, or broken: who needs it says so
                import_module(found.name)
    if not packages:
        with suppress(Exception):
            import_module("sqlalchemy.dialects.postgresql.psycopg")


def build(settings: Settings, *, process: str = "") -> App:
    """The application for these settings. Nothing is connected, opened or created yet.

    ``process``: what this process is in the service, ``api`` or ``worker``; others, commands for example, are not measured.
    """
    metrics = _metrics(settings, process)
    return _build(settings, process, metrics, _engine(settings, process, metrics))


def _build(settings: Settings, process: str, metrics: Metrics, engine: Callable[[], Engine]) -> App:
    clock = SystemClock()

    def catalog() -> Catalog:
        from jivs.backends.catalog.sql import SqlCatalog

        return SqlCatalog(engine(), clock)

    extraction = settings.extraction
    return App(
        catalog=catalog,
        store=_opener(settings),
        connector=connectors.find,
        address=lambda url: Address.parse(url, variable),
        limits=Limits(
            parallel=extraction.parallel_threads,
            connections=extraction.source_pool_max_size,
            pool_seconds=extraction.source_pool_timeout / 1000,
            rows_per_second=extraction.rows_per_second,
            batch_rows=extraction.batch_size,
            memory=sizes(settings, alone=process != "worker").memory,
            compression_level=extraction.compression_level,
        ),
        clock=clock,
        owner=f"{processes.here()}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
        gone=_gone,
        metrics=metrics,
        tracing=_tracing(settings, process),
    )


def build_service(settings: Settings, *, process: str = "", hears: int = -1, rings: int = -1) -> Service:
    """The application with users. ``process``: as for ``build``. ``hears`` and ``rings``: ends of a pipe that a parent made
    as a doorbell.

    Raises SettingsError for secrets that are missing or too weak.
    """
    try:
        from jivs.backends.catalog.accounts import SqlAccounts
        from jivs.backends.catalog.extractions import SqlExtractions
        from jivs.backends.catalog.leases import SqlLeases
        from jivs.backends.catalog.preferences import SqlPreferences
        from jivs.backends.catalog.registry import SqlRegistry
        from jivs.backends.catalog.schedules import SqlSchedules
        from jivs.backends.catalog.work import SqlWork
        from jivs.backends.secrets.aesgcm import AesGcmVault
        from jivs.backends.secrets.argon2id import Argon2id
        from jivs.backends.secrets.jwt import JwtTokens
    except ImportError as error:
        raise missing(error, "service") from None
    address = _catalog_address(settings)
    signing, sealing = _secrets(settings, address)
    clock = SystemClock()
    metrics = _metrics(settings, process)
    engine = _engine(settings, process, metrics)
    app = _build(settings, process, metrics, engine)
    cache, queue = _cache(settings, signing), _queue(settings, hears, rings)
    metrics.caches(cache.counts)
    return Service(
        app=app,
        accounts=_once(lambda: SqlAccounts(engine(), clock)),
        registry=_once(lambda: SqlRegistry(engine(), clock)),
        extractions=_once(lambda: SqlExtractions(engine(), clock)),
        work=_once(lambda: SqlWork(engine(), clock, connections=app.limits.connections, parallel=app.limits.parallel)),
        schedules=_once(lambda: SqlSchedules(engine(), clock)),
        leases=_once(lambda: SqlLeases(engine())),
        preferences=_once(lambda: SqlPreferences(engine())),
        shelf=_shelf(settings),
        guard=_guard(settings),
        cache=cache,
        queue=queue,
        queries=_queries(settings),
        verifications=_verifications(settings),
        looks=_looks(settings),
        passwords=Argon2id(),
        tokens=JwtTokens(signing),
        vault=AesGcmVault(sealing),
        clock=clock,
        access_seconds=settings.jwt_expiration // 1000,
        refresh_seconds=settings.refresh_expiration // 1000,
        embedded=address.scheme == "sqlite" and not settings.redis_host,
        checks=_checks(settings, engine, cache, queue),
    )


def _secrets(settings: Settings, address: Address) -> tuple[Secret, Secret]:
    """What signs tokens and what encrypts credentials. Raises SettingsError where they have to be set and are not."""
    signing = Secret(settings.jwt_secret.get_secret_value())
    sealing = Secret(settings.encryption_key.get_secret_value())
    if not (signing and sealing):
        if address.scheme != "sqlite":
            raise SettingsError(
                "JWT_SECRET and ENCRYPTION_KEY have to be set: every process of the service needs the same ones. Make them "
                "with: openssl rand -base64 48; openssl rand -base64 32"
            )
        from jivs.backends.secrets.keyfile import KeyFile

        kept = KeyFile(Path(address.database).with_name("keys.json")).read()
        signing, sealing = signing or kept.signing, sealing or kept.sealing
    return signing, sealing


def machine() -> Machine:
    """The machine that this process is on."""
    return LocalMachine()


def sizes(settings: Settings, *, alone: bool = False) -> Sizes:
    """What the service of these settings asks for, or a command, which is ``alone`` with its run."""
    runs, queries = (1, 0) if alone else (settings.extraction.max_parallel_jobs, settings.query.together)
    memory = settings.extraction.memory_limit or memory_of_run(machine().memory()[0], runs, queries)
    return Sizes(runs=runs, memory=memory, pool=settings.hikari_maximum_pool_size, queries=queries)


def build_upkeep(settings: Settings) -> Upkeep:
    """The catalog's database as a whole. Nothing is opened or made yet."""
    address = _catalog_address(settings)
    if address.scheme == "sqlite":
        from jivs.backends.catalog.sqlite_upkeep import SqliteUpkeep

        return SqliteUpkeep(address)
    try:
        from jivs.backends.catalog.postgresql_upkeep import PostgresUpkeep
    except ImportError as error:
        from jivs.backends.catalog.engine import missing_driver

        raise missing_driver(error) from None
    return PostgresUpkeep(address, environment)


def _checks(settings: Settings, engine: Callable[[], Engine], cache: Cache, queue: Queue) -> dict[str, Check]:
    """How the service sees whether what it depends on is there."""
    found: dict[str, Check] = {"db": lambda: engine().ping()}
    if settings.storage_provider == "local":
        found["diskSpace"] = lambda: _space(settings)
    if settings.redis_host:
        found["redis"] = lambda: _answers(cache.healthy(), f"Redis at {settings.redis_host}:{settings.redis_port}")
    if settings.rabbitmq_host:
        found["rabbit"] = lambda: _answers(queue.healthy(), f"RabbitMQ at {settings.rabbitmq_host}:{settings.rabbitmq_port}")
    return found


def _answers(well: bool, what: str) -> Mapping[str, str | int]:
    if not well:
        raise UnreachableError(f"{what} does not answer; the service goes on without it.")
    return {"server": what}


def new_metrics_folder() -> MetricsFolder:
    """Where the processes of one service are measured as one."""
    from jivs.backends.metrics.folder import MetricsFolder

    return MetricsFolder()


def _metrics(settings: Settings, process: str) -> Metrics:
    if not process:
        return NoMetrics()
    try:
        from jivs.backends.metrics.prometheus import PrometheusMetrics
    except ImportError as error:
        raise missing(error, "service") from None
    from jivs.backends.store import _spool

    spools = _spools(settings)
    return PrometheusMetrics(
        process,
        folder=metrics_folder(),
        temporary=lambda: _spool.size(spools),
        batch_rows=settings.extraction.batch_size,
        source_limit=settings.extraction.source_pool_max_size,
    )


def _spools(settings: Settings) -> Path:
    """A folder of our own: what else lies beside it is neither measured nor removed."""
    own = Path(settings.temp_dir, "jivs-spool") if settings.temp_dir else settings.catalog_path.with_name("spool")
    return own.absolute()


def _tracing(settings: Settings, process: str) -> Tracing:
    if not (process and settings.otel_exporter_otlp_endpoint):
        return NoTracing()
    try:
        from jivs.backends.tracing.otlp import OtlpTracing
    except ImportError as error:
        raise missing(error, "otel") from None
    return OtlpTracing(settings.otel_exporter_otlp_endpoint, process)


def missing(error: ImportError, extra: str) -> DriverMissingError:
    """What to install."""
    return DriverMissingError(
        f"The service needs a package that is not installed ({error.name}): pip install 'jivs[{extra}]'"
    )


def _space(settings: Settings) -> Mapping[str, str | int]:
    """How much room the archives have."""
    root = _archives(settings)
    there = next(path for path in (root, *root.parents) if path.is_dir())
    found = shutil.disk_usage(there)
    if found.free < _SMALLEST_SPACE:
        raise StoreError(f"The disk of {root} has {found.free >> 20} MiB left: free some space.")
    return {"path": str(root), "free": found.free, "total": found.total}


def _engine(settings: Settings, process: str, metrics: Metrics) -> Callable[[], Engine]:
    """The catalog's database, opened when it is first asked for."""

    def opened() -> Engine:
        from jivs.backends.catalog.engine import Engine, PoolLimits

        most, least = settings.hikari_maximum_pool_size, settings.hikari_minimum_idle
        if process == "management":
            most = min(most, _FOR_HEALTH)
        ahead = (most if least < 0 else least) if process in {"api", "management"} else 0
        limits = PoolLimits(maximum=most, minimum=ahead, seconds=settings.hikari_connection_timeout / 1000)
        engine = Engine(_catalog_address(settings), limits)
        metrics.catalog_pool(engine.use)
        return engine

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


def _archives(settings: Settings) -> Path:
    return Path(settings.storage_local_path or settings.catalog_path.with_name("archives")).absolute()


def _shelf(settings: Settings) -> Shelf:
    """Where the service keeps its archives. Raises SettingsError for settings that cannot work together."""
    if settings.storage_provider == "local":
        return LocalShelf(_archives(settings))
    if not settings.aws_s3_bucket:
        raise SettingsError("STORAGE_PROVIDER is s3, so AWS_S3_BUCKET has to name the bucket.")
    try:
        return S3Shelf(S3Place.parse(_access(settings), f"s3://{settings.aws_s3_bucket}/{settings.s3_prefix.strip('/')}"))
    except UsageError:
        raise SettingsError("AWS_S3_BUCKET, JIVS_S3_PREFIX: write the bucket's name alone, the prefix as a/b.") from None


def _access(settings: Settings) -> S3Access:
    """The way into the object store. Raises SettingsError for settings that cannot work together."""
    secret = Secret(settings.aws_secret_key.get_secret_value())
    if bool(settings.aws_access_key) != bool(secret):
        given, missing = ("AWS_SECRET_KEY", "AWS_ACCESS_KEY") if secret else ("AWS_ACCESS_KEY", "AWS_SECRET_KEY")
        raise SettingsError(
            f"{given} is set and {missing} is not: set both, or neither to use the credentials of the AWS tools."
        )
    return S3Access(
        endpoint=settings.s3_endpoint.rstrip("/"),
        region=settings.aws_region,
        key=settings.aws_access_key,
        secret=secret,
    )


def _queries(settings: Settings) -> Children:
    """Processes that know no secret: of the environment they get what Python itself needs to start."""
    limits = settings.query
    return ChildProcesses(
        "jivs.api.query_child",
        what="query",
        otherwise="ask for less, or use jivs query, which has no limits.",
        seconds=limits.seconds,
        concurrent=limits.concurrent,
        fixed={"memory": limits.memory, "rows": limits.rows},
        environment=_bare("LD_LIBRARY_PATH", "PYTHONHOME"),
    )


def _bare(*names: str) -> dict[str, str]:
    """An environment with these variables of ours, and what Python needs to find the same packages."""
    kept = {name: value for name in names if (value := variable(name))}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _verifications(settings: Settings) -> Children:
    limits = settings.verification
    return ChildProcesses(
        "jivs.api.verify_child",
        what="verification",
        otherwise="use jivs verify, which has no limits.",
        seconds=limits.seconds,
        concurrent=limits.concurrent,
    )


def _looks(settings: Settings) -> Children:
    return ChildProcesses(
        "jivs.api.source_child",
        what="look at the source",
        otherwise="it does not answer as a source does, or is too slow.",
        seconds=settings.requests.looking,
        concurrent=LOOKS,
        environment=_bare("HOME", "LD_LIBRARY_PATH", "PYTHONHOME", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        longest=_LONGEST_LIST,
    )


def _cache(settings: Settings, signing: Secret) -> Cache:
    """In this process, over Redis where it is set. Raises DriverMissingError."""
    from jivs.backends.cache.memory import MemoryCache

    seconds = {
        CacheName.DATASOURCES: settings.cache_ttl_datasources / 1000,
        CacheName.EXTRACTION_CONFIGS: settings.cache_ttl_extraction_configs / 1000,
        CacheName.EXTRACTION_STATS: settings.cache_ttl_extraction_stats / 1000,
    }
    # short, with Redis and without: other processes, the command line among them, change the same catalog; what lies
    # under a version does not change
    short = {
        name: kept if name is CacheName.EXTRACTION_CONFIGS else min(kept, STALE_SECONDS) for name, kept in seconds.items()
    }
    near = MemoryCache(SystemClock(), short)
    if not settings.redis_host:
        return near
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


def trusted_proxies(settings: Settings) -> list[str]:
    """The networks of reverse proxies that are believed. Raises SettingsError."""
    return [str(network) for network in _networks("JIVS_TRUSTED_PROXIES", settings.trusted_proxies)]


def _networks(name: str, given: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    try:
        return tuple(ipaddress.ip_network(text.strip()) for text in given.split(",") if text.strip())
    except ValueError as error:
        raise SettingsError(f"{name}: {error}. Write networks as 10.0.0.0/8, separated by commas.") from None


def _guard(settings: Settings) -> Guard:
    networks = _networks("JIVS_NETWORKS", settings.networks)
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
            f"DATABASE_URL: no catalog can be in {address.scheme}://. Write sqlite:///path or postgresql://..."
        )
    password = Secret(settings.database_password.get_secret_value()) or address.password
    return replace(address, username=settings.database_username or address.username, password=password)


def _gone(owner: str) -> bool:
    """Whether an owner was a process of this place that runs no more; not known of other places."""
    place, _, rest = owner.partition(":")
    return processes.ended(place, rest.partition(":")[0])


def _opener(settings: Settings) -> Callable[[str], Store]:
    """Opens the store at an archive's address. Those in the object store share one client, made with the first of them."""
    access = cache(lambda: _access(settings))

    def store(address: str) -> Store:
        scheme, separator, path = address.partition("://")
        if not separator:
            return LocalStore(Path(address).absolute())
        if scheme == "file":
            return LocalStore(Path(path).absolute())
        if scheme == "s3":
            return S3Store(S3Place.parse(access(), address), _spools(settings), settings.temp_max_bytes)
        raise UsageError(
            f"No store for {scheme}://: an archive is in a folder (a path or file://path) or at s3://bucket/prefix."
        )

    return store
