"""The service: an application with users."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from jivs.domain.access import User
from jivs.domain.guard import Guard
from jivs.ports.accounts import Accounts
from jivs.ports.app import App
from jivs.ports.cache import Cache
from jivs.ports.children import Children
from jivs.ports.clock import Clock
from jivs.ports.extractions import Extractions
from jivs.ports.leases import Leases
from jivs.ports.metrics import Metrics
from jivs.ports.preferences import PreferencesRecord
from jivs.ports.queue import Queue
from jivs.ports.registry import Registry
from jivs.ports.schedules import Schedules
from jivs.ports.secrets import Claims, Passwords, Tokens, Vault
from jivs.ports.shelf import Shelf
from jivs.ports.work import Work

Check = Callable[[], Mapping[str, str | int]]
"""Gives details of something that works; raises JivsError if it does not."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """What ``bootstrap.build_service`` made. ``access_seconds`` and ``refresh_seconds``: how long tokens live.

    ``embedded``: the catalog is a file, the cache in this process; reading a row takes microseconds and waits for nobody.
    ``sessions``: access tokens that were found good, with the stamp of the accounts at that time. ``queries``,
    ``verifications`` and ``looks`` (at sources): the processes that do them.

    ``checks`` look at what the service depends on, by name. Without ``db``, the catalog, no request can be served; the
    service goes on without the others.
    """

    app: App
    accounts: Callable[[], Accounts]
    passwords: Passwords
    tokens: Tokens
    vault: Vault
    registry: Callable[[], Registry]
    extractions: Callable[[], Extractions]
    work: Callable[[], Work]
    schedules: Callable[[], Schedules]
    leases: Callable[[], Leases]
    preferences: Callable[[], PreferencesRecord]
    shelf: Shelf
    guard: Guard
    cache: Cache
    queue: Queue
    queries: Children
    verifications: Children
    looks: Children
    clock: Clock
    access_seconds: int
    refresh_seconds: int
    embedded: bool
    checks: Mapping[str, Check]
    sessions: dict[str, tuple[int, User, Claims]] = field(default_factory=dict, repr=False)

    @property
    def metrics(self) -> Metrics:
        """Those of the application."""
        return self.app.metrics
