"""Many calls of a store, as many at a time as it is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from jivs.ports.store import Store

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def each(store: Store, act: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """What ``act`` gives for each item, in their order. Raises the first error."""
    if store.parallel == 1 or len(items) < 2:
        return [act(item) for item in items]
    with ThreadPoolExecutor(store.parallel, thread_name_prefix="store") as pool:
        return list(pool.map(act, items))
