"""Can a store be written to, as archives are?"""

from __future__ import annotations

import secrets

from jivs.errors import StoreError
from jivs.ports.store import Store


def probe(store: Store) -> None:
    """Create, read and delete a file. Raises StoreError, or what keeps the store from being one."""
    name, content = f"probe-{secrets.token_hex(8)}", secrets.token_bytes(64)
    store.create(name, content)
    try:
        if store.read(name) != content:
            raise StoreError(f"{store.address} gives back other bytes than were written.")
    except FileNotFoundError:
        raise StoreError(f"{store.address} has not kept what was written to it.") from None
    finally:
        store.delete(name)
