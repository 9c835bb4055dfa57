"""Duties that one process of all has at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Who has a duty. ``epoch`` is the fencing token: it grows with each holder. ``beat`` grows with each renewal.

    No time is in it: whoever wants the duty watches the beat on a clock of its own, which nobody sets.
    """

    name: str
    owner: str
    epoch: int
    beat: int

    @property
    def free(self) -> bool:
        """Whether its holder gave it back."""
        return not self.owner


class Leases(Protocol):
    """Each call is one short transaction."""

    def lease(self, name: str) -> Lease | None:
        """Who has the duty; None if nobody ever had."""

    def take(self, name: str, owner: str, seen: Lease | None) -> Lease | None:
        """Take the duty from the holder that was seen; None if it is not as it was seen any more. Of many, one succeeds."""

    def renew(self, lease: Lease) -> Lease | None:
        """One more beat; None if somebody else has the duty."""

    def give_back(self, lease: Lease) -> None:
        """Let the next one take the duty at once. Nothing happens if somebody else has it."""
