"""The machine that this process is on, and what of it may be used."""

from __future__ import annotations

from typing import Protocol


class Machine(Protocol):
    """What is not known is 0."""

    def memory(self) -> tuple[int, str]:
        """The memory in bytes that this process and its neighbours may use together, and who limits it."""

    def processors(self) -> int:
        """How many of them this process may run on at once."""

    def files(self) -> int:
        """How many files and connections a process may have open."""

    def description(self) -> dict[str, str]:
        """What is here, by name, for people."""
