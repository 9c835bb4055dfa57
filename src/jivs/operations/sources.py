"""Sources that users keep in the service: made, changed, tried, looked at, deleted; keys of their passwords turned."""

from __future__ import annotations

import unicodedata
from contextlib import closing, suppress
from dataclasses import dataclass, fields, replace
from threading import Event
from typing import Any

from jivs.domain.audit import Deed
from jivs.domain.registry import Source, SourceDraft, place, without_password
from jivs.domain.schema import TableKind, TableName
from jivs.domain.source import Address, Secret, ServerInfo
from jivs.errors import ForbiddenError, JivsError, NotFoundError, TooManyError, UnreachableError, UsageError
from jivs.operations import _guard
from jivs.ports.app import App
from jivs.ports.cache import CacheName
from jivs.ports.connector import Listing, Request, Session
from jivs.ports.service import Service
from jivs.transfer.throttle import Throttle


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a source said when it was tried. ``error``: why it did not answer, as a sentence."""

    server: ServerInfo | None
    error: str = ""


def parse(url: str) -> Address:
    """The address of a URL from a user. ``${NAME}`` is refused: the environment is the service's, not the user's."""

    def refuse(name: str) -> str:
        raise UsageError(f"${{{name}}} would read the environment of the service: give the password in its own field.")

    return Address.parse(url, refuse)


def add(service: Service, actor: str, draft: SourceDraft) -> Source:
    """A new source. Its options are checked, and whether the operator allows its address; nothing is connected."""
    check(service, draft)
    deed = Deed(actor=actor, action="source.added", object=f"source:{draft.name}", detail={"address": draft.address.shown})
    password = draft.address.password
    return service.registry().add_source(
        replace(draft, address=without_password(draft.address)),
        lambda where: service.vault.seal(password, where) if password else "",
        deed,
    )


def change(service: Service, actor: str, source_id: int, version: int, draft: SourceDraft, *, keep_password: bool) -> Source:
    """Replace a source. ``keep_password``: the one that is kept stays, but only for the same server and user: it would be
    given away to another.
    """
    old = get(service, source_id)
    check(service, draft)
    new, kept = draft.address, old.address
    same = (new.scheme, new.host, new.port, new.username) == (kept.scheme, kept.host, kept.port, kept.username)
    if keep_password and old.sealed and not same:
        raise UsageError("The password is for another server or user: give it again.")
    sealed = service.vault.seal(new.password, place(source_id)) if new.password else ""
    deed = Deed(actor=actor, action="source.changed", object=f"source:{draft.name}", detail={"address": new.shown})
    changed = service.registry().change_source(
        source_id,
        version,
        replace(draft, address=without_password(new)),
        None if keep_password else sealed,
        deed,
    )
    service.cache.drop(CacheName.DATASOURCES, str(source_id))
    return changed


def remove(service: Service, actor: str, source_id: int) -> None:
    """Delete a source."""
    source = get(service, source_id)
    service.registry().remove_source(source_id, Deed(actor=actor, action="source.removed", object=f"source:{source.name}"))
    service.cache.drop(CacheName.DATASOURCES, str(source_id))


def get(service: Service, source_id: int) -> Source:
    """A source by id. Raises NotFoundError."""
    source = service.registry().source(source_id)
    if source is None:
        raise NotFoundError(f"There is no source {source_id}.")
    return source


def try_kept(service: Service, source_id: int, gone: Event) -> Answer:
    """Connect to a source that is kept, and say what answered. Setting ``gone`` ends it."""
    source = get(service, source_id)
    return try_address(service, opened(service, source), gone)


def try_address(service: Service, address: Address, gone: Event) -> Answer:
    """Connect, and say what answered; why not, where nothing did. Raises ForbiddenError for what is not allowed."""
    try:
        said = _looked_at(service, address, gone)
        return Answer(server=ServerInfo(product=said["product"], version=said["version"]))
    except (ForbiddenError, TooManyError):
        raise
    except JivsError as error:
        return Answer(server=None, error=error.message)


def tables(service: Service, source_id: int, gone: Event) -> list[Listing]:
    """What a source has."""
    said = _looked_at(service, opened(service, get(service, source_id)), gone, tables=True)
    return [
        Listing(
            name=TableName(schema=one["schema"], name=one["name"]),
            kind=TableKind(one["kind"]),
            estimated_rows=one["rows"],
            estimated_bytes=one["bytes"],
        )
        for one in said["tables"]
    ]


def listed(listing: Listing) -> dict[str, str | int]:
    """A table as JSON, without notes."""
    return {
        "schema": listing.name.schema,
        "name": listing.name.name,
        "kind": listing.kind.value,
        "rows": listing.estimated_rows,
        "bytes": listing.estimated_bytes,
    }


def _looked_at(service: Service, address: Address, gone: Event, *, tables: bool = False) -> dict[str, Any]:
    """What a process of its own found there. The address is checked here, where the operator's limits are."""
    address = _guard.checked(service.guard, address)
    job = {name: getattr(address, name) for name in (one.name for one in fields(address))}
    job |= {"password": address.password.reveal()}
    return service.looks.run({"address": job, "tables": tables}, gone)


def session(app: App, address: Address) -> Session:
    """A look at a source that answers within the limits of a look: few connections, no pace."""
    return app.connector(address).open(address, replace(app.limits, connections=2), Request(), Throttle(0, app.clock))


def opened(service: Service, source: Source) -> Address:
    """A source's address with its password."""
    return replace(source.address, password=service.vault.open(source.sealed, source.place) if source.sealed else Secret(""))


def turn_keys(service: Service, actor: str) -> tuple[int, int]:
    """Encrypt all passwords with the newest key that are under an older one: how many were, and how many there are."""
    turned = seen = after = 0
    while page := service.registry().sources(after=after):
        for source in page:
            after = source.id
            seen += bool(source.sealed)
            if not source.sealed or service.vault.current(source.sealed):
                continue
            sealed = service.vault.seal(service.vault.open(source.sealed, source.place), source.place)
            deed = Deed(actor=actor, action="source.resealed", object=f"source:{source.name}")
            turned += service.registry().reseal(source.id, source.sealed, sealed, deed)
    return turned, seen


def check(service: Service, draft: SourceDraft) -> None:
    """Whether its options are right and the operator allows its address, as far as that can be said now."""
    address = draft.address
    parts = (address.host, address.database, address.username, *address.options, *address.options.values())
    if any(unicodedata.category(character) == "Cc" for part in parts for character in part):
        raise UsageError("A source's address has characters that cannot be written, such as NUL or a line break.")
    connector = service.app.connector(draft.address)
    with closing(connector.open(draft.address, service.app.limits, Request(), Throttle(0, service.clock))):
        pass  # its options are typed, and nothing connects before it is asked for something
    with suppress(
        UnreachableError
    ):  # a host may be down when its source is kept; it is checked again before each connection
        _guard.checked(service.guard, draft.address)
