"""Order-independent fingerprints of rows (``docs/verification.md``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

ALGORITHM = "md5-60-sum64"
"""Sum modulo 2^64 of the last 15 hex digits of the MD5 of each row's canonical text."""

_MODULUS = 1 << 64


@dataclass(frozen=True)
class Fingerprint:
    """Number of rows, and the sum of their 60-bit hashes modulo 2^64.

    A sum, not an exclusive or: pairs of equal rows would cancel out.
    """

    rows: int
    total: int

    def __add__(self, other: Fingerprint) -> Fingerprint:
        return Fingerprint(self.rows + other.rows, (self.total + other.total) % _MODULUS)

    def __sub__(self, other: Fingerprint) -> Fingerprint:
        return Fingerprint(self.rows - other.rows, (self.total - other.total) % _MODULUS)

    def __str__(self) -> str:
        return f"{self.total:016x}"

    @classmethod
    def of(cls, rows: int, total: int) -> Self:
        """From a sum that has not been reduced yet."""
        return cls(rows, total % _MODULUS)

    @classmethod
    def parse(cls, rows: int, text: str) -> Self:
        """From the 16 hex digits of a manifest."""
        return cls(rows, int(text, 16))


EMPTY = Fingerprint(0, 0)
