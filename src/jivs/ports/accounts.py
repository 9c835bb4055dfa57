"""The record of users, of the tokens that they hold, and of what they did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from jivs.domain.access import Role, User
from jivs.domain.audit import EVERYTHING, Deed, Entry, Wanted

KEY: ContextVar[str] = ContextVar("KEY", default="")
"""The scope of the idempotency key of the request that is being answered. What changes something notes that with the key, in
the same transaction, so that it is not done again should the answer be lost.
"""

CARRIED_OUT = 1
"""The status of a request that was carried out, and whose answer is not there."""


@dataclass(frozen=True, kw_only=True)
class Refresh:
    """A refresh token as it is kept: never the token itself. ``family``: all that followed from one login."""

    digest: str
    family: str
    user_id: int
    generation: int
    expires_at: float


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """The answer that a request got. ``digest``: of the request; ``status`` 0: it is not there yet; CARRIED_OUT: nor is it
    then, and ``body`` is the object that was changed.
    """

    digest: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


class Accounts(Protocol):
    """Each call is one short transaction; what changes something records its deed in the same one."""

    def add(self, username: str, password_hash: str, roles: frozenset[Role], deed: Deed) -> User:
        """A new user. Raises AlreadyExistsError if the name, whatever its case, is taken."""

    def bootstrap(self, username: str, password_hash: str, deed: Deed) -> User | None:
        """The first user, an ADMIN; None if there is any user already. Of many processes at once, one succeeds."""

    def user(self, user_id: int) -> User | None:
        """By id."""

    def named(self, username: str) -> User | None:
        """By name, whatever its case."""

    def users(
        self,
        *,
        after: int = 0,
        offset: int = 0,
        limit: int = 100,
        name: str = "",
        sort: str = "id",
        descending: bool = False,
    ) -> list[User]:
        """Those with ids above ``after``, in the order ``sort`` (id, username, createdAt, updatedAt) from the ``offset`` on;
        with ``name``, those whose name has it, whatever its case.
        """

    def count_users(self, *, name: str = "") -> int:
        """How many there are."""

    def change(
        self,
        user_id: int,
        version: int,
        deed: Deed,
        *,
        password_hash: str | None = None,
        roles: frozenset[Role] | None = None,
        active: bool | None = None,
    ) -> User:
        """Change what is given; all tokens of the user are void then.

        Raises ConflictError if somebody else changed the user since ``version``, or if no active ADMIN would be left.
        """

    def remove(self, user_id: int, deed: Deed) -> bool:
        """Delete a user; False if there is none. Raises ConflictError if no active ADMIN would be left."""

    def begin_session(self, refresh: Refresh, deed: Deed) -> None:
        """Keep the first refresh token of a login."""

    def rotate(self, digest: str, successor: str, expires_at: float) -> Refresh | None:
        """Use a refresh token up and keep its successor, which is returned.

        None if it is unknown, expired or void. One that was used before is in the hands of two: its family is revoked.
        """

    def end_session(self, session: str, expires_at: float, deed: Deed) -> None:
        """Revoke all tokens that follow from a login, the last of which ends then."""

    def stamp(self) -> int:
        """A number that grows whenever an access token or a user becomes void or changes. Cheap: each request asks for it.

        In a catalog on another machine it may be a second old, but for changes that this process made.
        """

    def stamp_at_hand(self) -> int | None:
        """The same, if nobody has to be asked and waited for; None otherwise."""

    def is_revoked(self, session: str) -> bool:
        """Whether the access tokens of a session were revoked."""

    def attempt(self, limits: dict[str, int], window: float) -> bool:
        """One more failure for each key (a name, an address), unless one of them has as many as it may have: then False, and
        nothing is counted. Those older than ``window`` seconds are forgotten.
        """

    def forgive(self, keys: list[str], once: Sequence[str] = ()) -> None:
        """Forget all failures of these, and one of those."""

    def sweep(self) -> int:
        """Remove tokens that have expired, and what is kept of old requests with an idempotency key; how many."""

    def claim_key(self, scope: str, digest: str) -> Replayed | None:
        """Begin a request with an idempotency key: None for whoever is first, then what the first one was or got.

        Keys older than a day are forgotten, and after a minute those for which nothing was done: their process has ended.
        """

    def finish_key(self, scope: str, replayed: Replayed) -> None:
        """Keep the answer."""

    def drop_key(self, scope: str) -> None:
        """The request failed: the next one with the key is a first one, unless something was done all the same."""

    def record(self, deed: Deed) -> None:
        """A deed that changed nothing in the catalog."""

    def deeds(self, wanted: Wanted = EVERYTHING, *, before: int = 0, limit: int = 100) -> list[Entry]:
        """The newest first; ``before``: only those with a smaller number."""

    def trail(self) -> Iterator[Entry]:
        """All of them, the oldest first."""
