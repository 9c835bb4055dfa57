"""Settings: the only reader of the environment and of ``jivs.toml``.

Order of precedence: environment, ``jivs.toml`` in the working folder, defaults. ``JIVS_`` is the prefix and ``__`` goes
into a group; the names of the deployment guide are accepted as they are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from jivs.domain.sizing import SMALLEST_RUN
from jivs.errors import SettingsError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_SIZE = re.compile(r"\s*(\d+)\s*([KMG]?)(?:I?B)?\s*", re.IGNORECASE)

GUIDE_NAMES: dict[str, tuple[str, ...]] = {
    "EXTRACTION_BATCH_SIZE": ("extraction", "batch_size"),
    "EXTRACTION_PARALLEL_THREADS": ("extraction", "parallel_threads"),
    "EXTRACTION_SOURCE_POOL_MAX_SIZE": ("extraction", "source_pool_max_size"),
    "EXTRACTION_SOURCE_POOL_MIN_IDLE": ("extraction", "source_pool_min_idle"),
    "EXTRACTION_SOURCE_POOL_TIMEOUT": ("extraction", "source_pool_timeout"),
    "EXTRACTION_MAX_PARALLEL_JOBS": ("extraction", "max_parallel_jobs"),
    "DATABASE_URL": ("database_url",),
    "DATABASE_USERNAME": ("database_username",),
    "DATABASE_PASSWORD": ("database_password",),
    "HIKARI_MAXIMUM_POOL_SIZE": ("hikari_maximum_pool_size",),
    "HIKARI_MINIMUM_IDLE": ("hikari_minimum_idle",),
    "HIKARI_CONNECTION_TIMEOUT": ("hikari_connection_timeout",),
    "LOG_LEVEL": ("log_level",),
    "LOG_FORMAT": ("log_format",),
    "JWT_SECRET": ("jwt_secret",),
    "JWT_EXPIRATION": ("jwt_expiration",),
    "ENCRYPTION_KEY": ("encryption_key",),
    "SERVER_PORT": ("server_port",),
    "MANAGEMENT_ADDRESS": ("management_address",),
    "MANAGEMENT_PORT": ("management_port",),
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("otel_exporter_otlp_endpoint",),
    "CORS_ALLOWED_ORIGINS": ("cors_allowed_origins",),
    "STORAGE_PROVIDER": ("storage_provider",),
    "STORAGE_LOCAL_PATH": ("storage_local_path",),
    "REDIS_HOST": ("redis_host",),
    "REDIS_PORT": ("redis_port",),
    "REDIS_PASSWORD": ("redis_password",),
    "REDIS_MAXMEMORY": ("redis_maxmemory",),
    "CACHE_TTL_DATASOURCES": ("cache_ttl_datasources",),
    "CACHE_TTL_EXTRACTION_CONFIGS": ("cache_ttl_extraction_configs",),
    "CACHE_TTL_EXTRACTION_STATS": ("cache_ttl_extraction_stats",),
    "RABBITMQ_HOST": ("rabbitmq_host",),
    "RABBITMQ_PORT": ("rabbitmq_port",),
    "RABBITMQ_USERNAME": ("rabbitmq_username",),
    "RABBITMQ_PASSWORD": ("rabbitmq_password",),
    "AWS_S3_BUCKET": ("aws_s3_bucket",),
    "AWS_REGION": ("aws_region",),
    "AWS_ACCESS_KEY": ("aws_access_key",),
    "AWS_SECRET_KEY": ("aws_secret_key",),
    "EXTRACTION_TEMP_DIRECTORY": ("temp_dir",),
    "JAVA_OPTS": ("java_opts",),
}
"""Names of the deployment guide and the setting each of them sets."""

PROFILES: dict[str, dict[str, Any]] = {
    "small-records": {
        "extraction": {"batch_size": 2000, "parallel_threads": 8, "source_pool_max_size": 15},
        "hikari_maximum_pool_size": 75,
    },
    "large-records": {
        "extraction": {"batch_size": 500, "parallel_threads": 2, "source_pool_max_size": 5},
        "hikari_maximum_pool_size": 40,
    },
    "mixed": {
        "extraction": {"batch_size": 1000, "parallel_threads": 4, "source_pool_max_size": 10},
        "hikari_maximum_pool_size": 50,
    },
}
"""The deployment guide's settings for kinds of workloads."""


class Recommended(NamedTuple):
    """The range in which the deployment guide keeps a setting, and what the setting acts on."""

    least: int
    most: int
    impact: str
    shown: str


RECOMMENDED: dict[tuple[str, ...], Recommended] = {
    ("extraction", "batch_size"): Recommended(500, 2000, "Memory, throughput", "500-2000"),
    ("extraction", "parallel_threads"): Recommended(2, 8, "CPU, throughput", "2-8"),
    ("extraction", "source_pool_max_size"): Recommended(5, 15, "Source DB load", "5-15"),
    ("hikari_maximum_pool_size",): Recommended(40, 75, "Concurrency", "40-75"),
    ("redis_maxmemory",): Recommended(2 << 30, 4 << 30, "Cache capacity", "2-4gb"),
}
"""Outside of it there is a warning, where the setting is set."""


def size(value: Any) -> Any:
    """Bytes from ``512MiB``, ``512M``, ``2gb`` or a plain number."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is None:
            raise ValueError("write a size as 512MiB, 2GiB or a number of bytes")
        return int(match[1]) * _UNITS[match[2].upper()]
    return value


Size = Annotated[int, BeforeValidator(size)]


class Extraction(BaseModel):
    """How extraction uses this machine and the source."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory_limit: Size | None = Field(
        default=None,
        ge=SMALLEST_RUN,
        le=1 << 50,
        description="Memory of a process that extracts; batches and row groups derive from it. Unset: what the machine or "
        "its cgroup has, less 512 MiB and what queries may take, shared by the runs at once; 192 to 512 MiB.",
    )
    batch_size: int = Field(default=0, ge=0, description="Ceiling of rows per batch; 0: batches are sized by bytes alone.")
    parallel_threads: int = Field(default=4, ge=1, le=64, description="Readers at once: the default of --parallel.")
    source_pool_max_size: int = Field(
        default=10, ge=1, le=1000, description="Connections to one source at once, the snapshot's holder included."
    )
    source_pool_min_idle: int = Field(
        default=0, ge=0, le=1000, description="Accepted without effect: a run keeps each connection open until its end."
    )
    source_pool_timeout: int = Field(
        default=30_000, ge=250, le=3_600_000, description="How long a reader waits for a connection of its run, in ms."
    )
    compression_level: int = Field(
        default=1, ge=1, le=22, description="Zstandard level of the segments: higher is smaller and slower."
    )
    max_parallel_jobs: int = Field(
        default=10,
        ge=1,
        le=100,
        description="Runs at once in one `jivs serve` or `jivs worker`, each in a process of its own.",
    )
    pause_hold: int = Field(
        default=60, ge=0, le=86_400, description="Seconds for which a paused run holds its snapshot of the source."
    )
    rows_per_second: int = Field(default=0, ge=0, description="Rows read per second from one source; 0: no limit.")


class History(BaseModel):
    """How long ended runs and their logs are kept. The newest run of an extraction always is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    runs: int = Field(default=200, ge=1, le=100_000, description="Ended runs that are kept of each extraction.")
    days: int = Field(default=90, ge=1, le=36_500, description="Days for which they are kept.")


class Query(BaseModel):
    """What a query over the REST API may take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: int = Field(default=30, ge=1, le=3600, description="A query over the REST API is ended after so many seconds.")
    memory: Size = Field(
        default=512 << 20,
        ge=256 << 20,
        le=1 << 50,
        description="Memory of the process of a query; 130 MiB of it are its own.",
    )
    rows: int = Field(default=10_000, ge=1, le=1_000_000, description="Rows that a query gives at most.")
    concurrent: int = Field(default=2, ge=1, le=64, description="Queries at once; more are told to come back.")

    @property
    def together(self) -> int:
        """Bytes that all of them may take at once."""
        return self.concurrent * self.memory


class Verification(BaseModel):
    """What a verification over the REST API may take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: int = Field(
        default=300, ge=1, le=86_400, description="A verification over the REST API is ended after so many seconds."
    )
    concurrent: int = Field(default=2, ge=1, le=64, description="Verifications at once; more are told to come back.")


class Requests(BaseModel):
    """What one user may ask of one process."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_second: int = Field(
        default=5000,
        ge=0,
        le=1_000_000,
        description="Requests of one user per second in one process, ten times as many at once; more are told to come back. "
        "0: no limit.",
    )
    connecting: int = Field(
        default=2, ge=1, le=4, description="Sources that one user tries at once; more are told to come back."
    )
    looking: int = Field(
        default=60,
        ge=1,
        le=3600,
        description="Seconds after which a look at a source is ended: a try, a list of its tables.",
    )


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="JIVS_", env_nested_delimiter="__", toml_file="jivs.toml", extra="forbid", frozen=True
    )

    profile: Literal["", "small-records", "large-records", "mixed"] = Field(
        default="",
        description="Values of the deployment guide for a kind of workload; what is set itself counts before them.",
    )
    java_opts: str = Field(default="", description="Accepted and ignored: there is no JVM. Memory is set by memory limits.")
    database_url: SecretStr = Field(
        default=SecretStr(""),
        description="The catalog, sqlite:/// or postgresql://; empty: an SQLite file below the user's state folder.",
    )
    database_username: str = Field(default="", description="User of the catalog's database, if not in its URL.")
    database_password: SecretStr = Field(default=SecretStr(""), description="Password of the catalog's database.")
    hikari_maximum_pool_size: int = Field(
        default=50, ge=2, le=1000, description="Connections of a process to the catalog; SQLite takes 16 of them at most."
    )
    hikari_minimum_idle: int = Field(
        default=-1, ge=-1, le=1000, description="Connections to the catalog that the API opens at its start; -1: all."
    )
    hikari_connection_timeout: int = Field(
        default=30_000, ge=250, le=600_000, description="How long to wait for a connection to the catalog, in ms."
    )
    jwt_secret: SecretStr = Field(
        default=SecretStr(""),
        description="Signs access tokens, 32 characters or more; empty beside an SQLite catalog: made once, kept with it.",
    )
    jwt_expiration: int = Field(default=900_000, ge=10_000, le=86_400_000, description="Life of an access token, in ms.")
    refresh_expiration: int = Field(
        default=43_200_000,
        ge=60_000,
        le=2_592_000_000,
        description="Life of a refresh token, in ms: a session's longest pause.",
    )
    encryption_key: SecretStr = Field(
        default=SecretStr(""),
        description="Encrypts credentials of sources: 32 bytes in base64, older keys behind a comma; empty: as above.",
    )
    storage_provider: str = Field(
        default="local", pattern="^(local|s3)$", description="Where the service keeps its archives: `local` or `s3`."
    )
    storage_local_path: str = Field(
        default="", description="Folder of the service's archives; empty: `archives` below the user's state folder."
    )
    aws_s3_bucket: str = Field(default="", description="Bucket of the service's archives, with the provider `s3`.")
    s3_prefix: str = Field(default="", description="What the names of the service's archives begin with in the bucket.")
    s3_endpoint: str = Field(
        default="",
        pattern=r"^(https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?/?)?$",
        description="An object store that is compatible with S3, as https://host:port; empty: AWS.",
    )
    aws_region: str = Field(default="", description="Region of the object store; empty: as the AWS tools find it.")
    aws_access_key: str = Field(
        default="", description="Access key of the object store; empty: credentials as the AWS tools find them."
    )
    aws_secret_key: SecretStr = Field(default=SecretStr(""), description="The secret key that belongs to it.")
    temp_dir: str = Field(
        default="",
        description="Folder in which `jivs-spool` holds files on their way to an object store; empty: `spool` below the "
        "user's state folder.",
    )
    temp_max_bytes: int = Field(
        default=20_000_000_000,
        ge=0,
        description="Bytes that all files in that folder may take: while they do, no other is begun. 0: no limit.",
    )
    file_roots: str = Field(
        default="", description="Folders below which sources of the service may be files, separated by colons; empty: none."
    )
    networks: str = Field(
        default="", description="Networks in which sources of the service may be, separated by commas; empty: everywhere."
    )
    redis_host: str = Field(default="", description="Redis 7, the cache that processes share; empty: each has its own only.")
    redis_port: int = Field(default=6379, ge=1, le=65535, description="Redis's port.")
    redis_password: SecretStr = Field(default=SecretStr(""), description="Redis's password.")
    redis_maxmemory: Size = Field(default=2 << 30, description="Redis's memory; for whoever starts Redis, JiVS ignores it.")
    cache_ttl_datasources: int = Field(
        default=3_600_000, ge=1_000, le=604_800_000, description="How long Redis keeps sources, in ms."
    )
    cache_ttl_extraction_configs: int = Field(
        default=1_800_000,
        ge=1_000,
        le=604_800_000,
        description="How long Redis keeps what an extraction was told to do, in ms.",
    )
    cache_ttl_extraction_stats: int = Field(
        default=300_000, ge=1_000, le=604_800_000, description="How long Redis keeps figures of extractions, in ms."
    )
    rabbitmq_host: str = Field(
        default="", description="RabbitMQ, which wakes idle workers of any machine; empty: those of `jivs serve` only."
    )
    rabbitmq_port: int = Field(default=5672, ge=1, le=65535, description="RabbitMQ's port.")
    rabbitmq_username: str = Field(default="jivs", description="RabbitMQ's user.")
    rabbitmq_password: SecretStr = Field(default=SecretStr(""), description="RabbitMQ's password.")
    server_address: str = Field(default="127.0.0.1", description="Where `jivs serve` listens.")
    server_port: int = Field(default=8080, ge=0, le=65535, description="The port of `jivs serve`; 0: a free one.")
    management_address: str = Field(
        default="127.0.0.1", description="Where the management listener is; off loopback it needs an ADMIN's token."
    )
    management_port: int = Field(
        default=9010, ge=-1, le=65535, description="Its port; 0: a free one, -1: there is no such listener."
    )
    trusted_proxies: str = Field(
        default="",
        description="Reverse proxies whose X-Forwarded-For says where a request comes from: their addresses or networks, "
        "separated by commas; empty: nobody's.",
    )
    cors_allowed_origins: str = Field(
        default="", description="Web sites that may call the API from a browser, as https://host, separated by commas."
    )
    history: History = Field(default=History(), description="History.")
    log_level: str = Field(default="WARNING", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Level of log lines.")
    log_format: str = Field(default="console", pattern="^(console|json)$", description="Log lines as text or as JSON.")
    gc_pause: int = Field(
        default=100, ge=0, description="Pauses of the service's garbage collector that are logged, from so many ms on."
    )
    otel_exporter_otlp_endpoint: str = Field(
        default="",
        pattern=r"^(https?://[^/\s@]+(/\S*)?)?$",
        description="Where spans go over OTLP/HTTP, as http://host:4318; empty: nowhere.",
    )
    extraction: Extraction = Field(default=Extraction(), description="Extraction.")
    query: Query = Field(default=Query(), description="Queries over the REST API.")
    verification: Verification = Field(default=Verification(), description="Verifications over the REST API.")
    requests: Requests = Field(default=Requests(), description="Requests.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings' signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        guide = _GuideNames(settings_cls)
        return init_settings, env_settings, guide, TomlConfigSettingsSource(settings_cls), _Profile(settings_cls)

    @property
    def catalog_path(self) -> Path:
        """The file of the embedded catalog, where none is set."""
        state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        return Path(state) / "jivs" / "catalog.db"


class _GuideNames(PydanticBaseSettingsSource):
    """Reads the names of the deployment guide from the environment."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, path in GUIDE_NAMES.items():
            value = os.environ.get(name)
            if value:
                place = out
                for part in path[:-1]:
                    place = place.setdefault(part, {})
                place[path[-1]] = value
        return out


class _Profile(PydanticBaseSettingsSource):
    """The values of the profile that the other sources name."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        return PROFILES.get(str(self.current_state.get("profile", "")), {})


def given(settings: Settings) -> dict[str, bool]:
    """Every setting by its name, and whether it is set; never to what."""

    def walk(model: BaseModel, path: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
        for name in type(model).model_fields:
            value = getattr(model, name)
            if isinstance(value, BaseModel):
                yield from walk(value, (*path, name))
            else:
                yield _shown((*path, name)), name in model.model_fields_set

    return dict(walk(settings, ()))


def unknown() -> list[str]:
    """What is wrong with variables of the environment that look like settings and are none."""
    known = {*given(Settings.model_construct()), "JIVS_ENV_FILE"}  # the last one is read by the entry point of the image
    strange = sorted(name for name in os.environ if name.upper().startswith("JIVS_") and name.upper() not in known)
    return [f"{name} is no setting, and does nothing: see docs/settings.md." for name in strange]


def notices(settings: Settings) -> list[str]:
    """What is worth a line in the log: settings that do nothing here, and those outside their recommended range."""
    found = []
    if settings.java_opts:
        found.append(
            "JAVA_OPTS is ignored: there is no JVM. Memory is set by JIVS_EXTRACTION__MEMORY_LIMIT, EXTRACTION_BATCH_SIZE "
            "and JIVS_QUERY__MEMORY."
        )
    guide = {path: name for name, path in GUIDE_NAMES.items()}
    for path, recommended in RECOMMENDED.items():
        here: BaseModel = settings
        for part in path[:-1]:
            here = getattr(here, part)
        value = getattr(here, path[-1])
        unset = value == type(here).model_fields[path[-1]].get_default()
        if not unset and not recommended.least <= value <= recommended.most:
            found.append(f"{guide[path]} is outside the recommended range {recommended.shown} ({recommended.impact}).")
    return found


def load() -> Settings:
    """Read the settings. Raises SettingsError naming each setting that cannot work, never its value."""
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(f"{_shown(item['loc'])}: {item['msg']}" for item in error.errors(include_input=False))
        raise SettingsError(f"Settings: {problems}. See docs/settings.md.") from None
    except ValueError as error:
        raise SettingsError(f"Settings cannot be read: {error}. See docs/settings.md.") from None


def _shown(location: tuple[int | str, ...]) -> str:
    name = "__".join(str(part) for part in location)
    return f"JIVS_{name.upper()}"


def metrics_folder() -> Path | None:
    """Where this process and its neighbours are measured as one; `jivs serve` names it."""
    name = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(name) if name else None


def measure_in(variables: Mapping[str, str]) -> None:
    """From now on, in this process and in those that it starts."""
    os.environ.update(variables)


def variable(name: str) -> str | None:
    """A variable of the environment that a connection URL names as ``${NAME}``."""
    return os.environ.get(name)


def log_as_json() -> None:
    """From now on, in this process and in those that it starts."""
    os.environ["LOG_FORMAT"] = "json"


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: ours, and more."""
    return {**os.environ, **more}
