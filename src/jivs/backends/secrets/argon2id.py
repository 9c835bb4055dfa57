"""Passwords by argon2id."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import argon2

from jivs.domain.source import Secret
from jivs.errors import TooManyError

_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$amF2YWlzYXNjcmlwdHM$wAEEQ8uTzOzyVVFPJ6Wi8GJP9fzDQz1p6Vd8q1qzGZA"

_WAITING = 16
"""A thread that waits here serves no other request."""


class Argon2id:
    """OWASP's parameters (Password Storage Cheat Sheet: 19 MiB, two passes, one lane), on half of the cores at most: each
    takes some 30 ms, and a flood of logins must not take the machine. Only a few wait; TooManyError sends the others away.
    """

    def __init__(self) -> None:
        self._hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
        self._few = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) // 2))
        self._waiting = threading.BoundedSemaphore(_WAITING)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._waiting.acquire(blocking=False):
            raise TooManyError("Too many passwords are being checked at once. Try again in a second.", seconds=1)
        try:
            with self._few:
                yield
        finally:
            self._waiting.release()

    def hash(self, password: Secret) -> str:
        with self._turn():
            return self._hasher.hash(password.reveal())

    def verify(self, hashed: str, password: Secret) -> bool:
        with self._turn():
            try:
                return self._hasher.verify(hashed or _NOBODY, password.reveal()) and bool(hashed)
            except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
                return False

    def outdated(self, hashed: str) -> bool:
        return self._hasher.check_needs_rehash(hashed)
