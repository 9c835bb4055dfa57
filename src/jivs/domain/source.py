"""Where data comes from: addresses, secrets, limits, and what a source can do."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from jivs.errors import UsageError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Secret:
    """A value that is never shown: ``str`` and ``repr`` give stars, ``reveal`` gives the value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(("Secret", self._value))

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not serialised")


@dataclass(frozen=True, kw_only=True)
class Address:
    """A connection URL taken apart. ``shown`` is what may be printed, logged and written into a manifest.

    ``pinned``: the IP address to connect to, where somebody resolved the host and checked it; the name service is not asked
    again, for it might answer otherwise. Certificates are still held against the host's name. ``roots``: the folders below
    which files have to be, links resolved, where somebody limits them; none: they may be anywhere.
    """

    scheme: str
    host: str = ""
    port: int | None = None
    database: str = ""
    username: str = ""
    password: Secret = field(default_factory=lambda: Secret(""))
    options: dict[str, str] = field(default_factory=dict, repr=False)
    pinned: str = ""
    roots: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The URL without user, password and options."""
        if self.scheme == "file":
            return f"file://{self.database}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{host}{port}/{quote(self.database, safe='/*.-_~+@:')}"

    @classmethod
    def parse(cls, url: str, lookup: Callable[[str], str | None]) -> Self:
        """Parse an SQLAlchemy, libpq or JDBC style URL.

        ``${NAME}`` in any part is replaced by ``lookup(NAME)``, after the URL was taken apart, so that a secret needs no
        quoting. A driver suffix (``mysql+pymysql``) is accepted and ignored. Raises UsageError; the message never
        repeats the URL, for it may hold a password.
        """
        text = url.strip().removeprefix("jdbc:")
        scheme, separator, rest = text.partition("://")
        if not separator and text.startswith("sqlite:"):
            scheme, rest = "sqlite", "/" + text.removeprefix("sqlite:")
        elif not separator:
            raise UsageError(
                "The source is not a connection URL: write it as kind://user:password@host:port/database, "
                "for example postgresql://jivs@localhost/sales, sqlite:///data.db or file:///folder."
            )
        scheme = scheme.lower()
        if not scheme.startswith("sap+"):
            scheme = scheme.partition("+")[0]

        def expand(value: str) -> str:
            return _VARIABLE.sub(lambda match: _variable(match[1], lookup), value)

        if scheme in {"file", "sqlite"}:
            path, _, query = rest.partition("?")
            database = expand(unquote(path.removeprefix("/") if scheme == "sqlite" else path))
            return cls(scheme=scheme, database=database, options=_options(query, expand))
        try:
            parts = urlsplit(f"x://{rest}")
            port = parts.port
            host = parts.hostname or ""
        except ValueError:
            raise UsageError(
                "The connection URL cannot be read: check the port, and write special characters of the password as "
                "%XX or pass it as ${NAME} from the environment."
            ) from None
        options = _options(parts.query, expand)
        if "@" in parts.path + parts.query or ";" in parts.path or parts.fragment:
            raise UsageError(
                "The connection URL has an @, # or ; behind its host: write special characters of user and password as %XX "
                "(/ is %2F, ? is %3F, # is %23, @ is %40), or pass the password as ${NAME} from the environment."
            )
        username = expand(unquote(parts.username or "")) or options.pop("user", "")
        password = expand(unquote(parts.password or "")) or options.pop("password", "")
        return cls(
            scheme=scheme,
            host=expand(unquote(host)),
            port=port,
            database=expand(unquote(parts.path.removeprefix("/"))),
            username=username,
            password=Secret(password),
            options=options,
        )


def _variable(name: str, lookup: Callable[[str], str | None]) -> str:
    value = lookup(name)
    if value is None:
        raise UsageError(f"The connection URL names ${{{name}}}, but the environment has no {name}: set it first.")
    return value


def _options(query: str, expand: Callable[[str], str]) -> dict[str, str]:
    return {key: expand(value) for key, value in parse_qsl(query, keep_blank_values=True)}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run may ask of a source. 0 means no limit.

    ``connections`` counts every connection at once, the snapshot's holder included; ``pool_seconds`` is how long a reader
    waits for one. ``memory`` is the budget of the
    whole process in bytes, of which ``reserved`` are not for rows, ``batch_rows`` a hard ceiling on rows in one batch,
    ``compression_level`` that of Zstandard.
    """

    parallel: int = 4
    connections: int = 10
    pool_seconds: float = 30.0
    rows_per_second: int = 0
    batch_rows: int = 0
    memory: int = 512 << 20
    reserved: int = 0
    compression_level: int = 1

    @property
    def batch_bytes(self) -> int:
        """The size at which a reader ends a batch."""
        return max(256 << 10, min(4 << 20, self.memory // (16 * max(1, self.parallel))))

    @property
    def heavy_row(self) -> int:
        """Above this a row is read alone."""
        return self.memory // 32

    @property
    def largest_row(self) -> int:
        """Above this a row is refused."""
        return self.memory // 8


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a connector can do, as data."""

    can_split: bool = False
    can_snapshot: bool = False
    can_fingerprint: bool = False
    can_query: bool = False


@dataclass(frozen=True, kw_only=True)
class ServerInfo:
    """What answered."""

    product: str
    version: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The moment that a run sees. ``one`` says whether all tables and readers really share it.

    ``identity`` never repeats for different moments of one source; equal identities mean equal content.
    """

    identity: str
    one: bool
    taken_at: str
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"identity": self.identity, "one": self.one, "taken_at": self.taken_at, "notes": list(self.notes)}
