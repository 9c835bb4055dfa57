"""The archives that a catalog tells of: whoever works beside it has to see the same ones."""

from __future__ import annotations

import uuid

from jivs.errors import SettingsError, StoreError
from jivs.ports.service import Service

_DUTY = "shelf"
"""Kept as a duty that nobody ever gives back: its owner is the mark of the shelf that was there first."""


def at_hand(service: Service) -> None:
    """As ``require``, for whoever is told no path. Raises StoreError."""
    try:
        require(service)
    except SettingsError as error:
        raise StoreError(
            "The archives are not where they were. Whoever runs the service is told by its health where they should be.",
            detail=error.message,
        ) from error


def require(service: Service) -> None:
    """Whether the shelf is the one that the catalog's archives lie on; the first one that is asked about is.

    Raises SettingsError for another one: a folder of another host, or one whose volume is not mounted.
    """
    kept = service.leases().lease(_DUTY)
    found = service.shelf.mark("")
    if kept is None:
        found = found or service.shelf.mark(uuid.uuid4().hex)
        kept = service.leases().take(_DUTY, found, None) or service.leases().lease(_DUTY)
    if kept is not None and kept.owner != found:
        place = service.shelf.shown
        raise SettingsError(
            f"The archives of this catalog are not at {place}: {'those of another are' if found else 'it has no mark'}. "
            "Hosts need the same place: STORAGE_PROVIDER=s3 with AWS_S3_BUCKET, or STORAGE_LOCAL_PATH in a network folder "
            f"that is mounted. If they were moved without their mark, write {kept.owner} into {place}/.jivs-shelf."
        )
