"""What users want to find as they left it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """A user's document, JSON as it was given. ``version`` 0: none was kept yet."""

    document: str = "{}"
    version: int = 0


class PreferencesRecord(Protocol):
    """Each call is one short transaction. What users prefer is no deed: it is not in the audit trail."""

    def get(self, user_id: int) -> Preferences:
        """A user's, empty if none were kept."""

    def put(self, user_id: int, version: int, document: str) -> Preferences:
        """Replace a user's. Raises ConflictError if they changed since ``version``, NotFoundError if the user has gone."""
