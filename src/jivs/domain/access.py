"""Who may do what: users, roles, rights, and what makes a password acceptable."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from jivs.errors import UsageError


class Role(StrEnum):
    """What a user is in the organisation."""

    ADMIN = "ADMIN"
    DATA_ENGINEER = "DATA_ENGINEER"
    COMPLIANCE_OFFICER = "COMPLIANCE_OFFICER"
    VIEWER = "VIEWER"


class Right(StrEnum):
    """What a route asks for."""

    READ = "READ"
    """See sources, extractions, runs and archives; no rows."""
    QUERY = "QUERY"
    """Read the data of archives: query, download, verify."""
    WORK = "WORK"
    """Make and run sources and extractions."""
    AUDIT = "AUDIT"
    """Read the audit trail."""
    ADMINISTER = "ADMINISTER"
    """Users and the system itself."""


RIGHTS: dict[Role, frozenset[Right]] = {
    Role.ADMIN: frozenset(Right),
    Role.DATA_ENGINEER: frozenset({Right.READ, Right.QUERY, Right.WORK}),
    Role.COMPLIANCE_OFFICER: frozenset({Right.READ, Right.QUERY, Right.AUDIT}),
    Role.VIEWER: frozenset({Right.READ}),
}


@dataclass(frozen=True, kw_only=True)
class User:
    """An account. ``generation`` grows when the password, the roles or ``active`` change: older tokens are void then."""

    id: int
    username: str
    password_hash: str = field(repr=False)
    roles: frozenset[Role]
    active: bool
    generation: int
    version: int
    created_at: datetime
    updated_at: datetime

    def may(self, right: Right) -> bool:
        """Whether one of the roles gives the right."""
        return any(right in RIGHTS[role] for role in self.roles)


SHORTEST = 15
"""Characters of a password that is the only factor (NIST SP 800-63B-4, section 3.1.1.2)."""

LONGEST = 256

_COMMON = frozenset(
    {
        "password",
        "passphrase",
        "letmein",
        "welcome",
        "qwerty",
        "qwertz",
        "asdfgh",
        "zxcvbn",
        "admin",
        "administrator",
        "login",
        "master",
        "dragon",
        "monkey",
        "football",
        "baseball",
        "iloveyou",
        "sunshine",
        "princess",
        "shadow",
        "superman",
        "trustno",
        "changeme",
        "secret",
        "default",
        "summer",
        "winter",
        "jivs",
    }
)


_ROWS = (
    "abcdefghijklmnopqrstuvwxyz0123456789",
    "1234567890qwertyuiopasdfghjklzxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
)


def check_password(password: str, username: str) -> str:
    """The password in the form that is hashed (NFC), if it is acceptable. Raises UsageError saying what is wrong, never
    repeating it.

    Length and a blocklist, no rules on kinds of characters (NIST SP 800-63B-4, section 3.1.1.2).
    """
    normal = unicodedata.normalize("NFC", password)
    if len(normal) < SHORTEST:
        raise UsageError(f"The password is too short: take at least {SHORTEST} characters, a few words for example.")
    if len(normal) > LONGEST:
        raise UsageError(f"The password is too long: at most {LONGEST} characters.")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in normal):
        raise UsageError("The password has a control character, or one that no text has.")
    lowered = normal.casefold()
    rest = lowered
    for word in sorted({*_COMMON, *([username.casefold()] if username else [])}, key=len, reverse=True):
        rest = rest.replace(word, "")
    if len(set(lowered)) < 5 or _runs(lowered) or len(rest.strip("0123456789!?.-_ ")) < 4:
        raise UsageError("The password is among the first that somebody would try: take other words.")
    return normal


def _runs(text: str) -> bool:
    """Whether a text is a short piece over and over again, or the alphabet, the digits or the keyboard in their order."""
    if any(text == (text[:size] * len(text))[: len(text)] for size in range(1, len(text) // 2 + 1)):
        return True
    rows = (
        "abcdefghijklmnopqrstuvwxyz",
        "01234567890",
        "1234567890qwertyuiopasdfghjklzxcvbnm",
        "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
    )
    return any(text in row or text in row[::-1] or row.startswith(text[: len(row)]) for row in rows)
