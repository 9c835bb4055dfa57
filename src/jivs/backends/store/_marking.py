"""A file at the root of a shelf by which it is told from another one."""

from __future__ import annotations

from contextlib import suppress

from jivs.errors import AlreadyExistsError
from jivs.ports.store import Store

NAME = ".jivs-shelf"
"""No archive's name begins with a dot."""

_LONGEST = 100


def read(store: Store) -> str:
    """The mark; empty where there is none."""
    try:
        return store.read(NAME, 0, _LONGEST).decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def write(store: Store, proposed: str) -> str:
    """The mark, made if there is none. Of many who propose one at once, one succeeds."""
    with suppress(AlreadyExistsError):
        store.create(NAME, f"{proposed}\n".encode())
    return read(store)
