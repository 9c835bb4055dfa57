"""What keeps secrets: passwords of users, tokens, credentials of sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jivs.domain.source import Secret


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What an access token says. ``generation``: that of the user when it was issued; ``session``: what followed from one
    login; ``expires_at``: seconds since 1970.
    """

    user_id: int
    username: str
    generation: int
    session: str
    expires_at: int


class Passwords(Protocol):
    """Hashes of passwords; slow on purpose, and only a few at once."""

    def hash(self, password: Secret) -> str:
        """The hash, with its salt and parameters."""

    def verify(self, hashed: str, password: Secret) -> bool:
        """Whether it is the password's. An empty ``hashed`` takes as long and is never right: nobody learns who exists."""

    def outdated(self, hashed: str) -> bool:
        """Whether it was made with weaker parameters than those of today."""


class Tokens(Protocol):
    """Access tokens that can be checked without asking the catalog, and secrets that are shown once."""

    def issue(self, claims: Claims) -> str:
        """A signed token."""

    def read(self, token: str, now: int) -> Claims | None:
        """What a token says; None if it is forged, expired or no token."""

    def digest(self, secret: str) -> str:
        """What is kept of a secret that was handed out."""


class Vault(Protocol):
    """Encrypts what has to be read again. ``place`` binds a value to its row: it opens nowhere else."""

    def seal(self, secret: Secret, place: str) -> str:
        """The encrypted value as text, with the id of its key."""

    def open(self, sealed: str, place: str) -> Secret:
        """The value. Raises SettingsError for a key that is not there, DamagedError for changed or moved bytes."""

    def current(self, sealed: str) -> bool:
        """Whether it was sealed with the newest key."""
