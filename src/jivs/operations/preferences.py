"""Preferences: a document of each user's own, for programs that show them their things."""

from __future__ import annotations

import json
from typing import Any

from jivs.errors import UsageError
from jivs.ports.preferences import Preferences
from jivs.ports.service import Service

LARGEST = 64 << 10
"""Bytes of a document."""

DEEPEST = 32
"""Objects and lists within each other, the document itself included."""


def get(service: Service, user_id: int) -> Preferences:
    """A user's document; empty if none was kept."""
    return service.preferences().get(user_id)


def put(service: Service, user_id: int, version: int, document: bytes) -> Preferences:
    """Keep a document, to the byte. Raises UsageError for what is no JSON object, or too deep."""
    return service.preferences().put(user_id, version, _checked(document))


def _checked(document: bytes) -> str:
    try:
        text = document.decode()
        found = json.loads(text, parse_int=str, parse_float=str, parse_constant=_no_number)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise UsageError(f"Preferences have to be JSON (RFC 8259): {error}.") from None
    if not isinstance(found, dict):
        raise UsageError('Preferences have to be a JSON object: {"name": "value"}.')
    level: list[Any] = [found]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return text
    raise _too_deep()


def _too_deep() -> UsageError:
    return UsageError(f"Preferences may have {DEEPEST} objects and lists within each other, no more.")


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")
