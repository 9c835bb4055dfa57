"""A clock that moves when told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class FakeClock:
    """Time stands still but for ``advance`` and ``sleep``."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._elapsed = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._elapsed

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += timedelta(seconds=seconds)
        self._elapsed += seconds

    def jump(self, seconds: float) -> None:
        """Let somebody set the wall's clock."""
        self._now += timedelta(seconds=seconds)
