"""``/users``: accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field, SecretStr

from jivs.api.deps import AdminDep, CallerDep, Count, Given, Hidden, Id, Model, ServiceDep, VersionDep, etag
from jivs.api.document import fails, tells
from jivs.api.idempotency import Idempotent
from jivs.api.paging import Part, part_in
from jivs.domain.access import Role, User
from jivs.domain.source import Secret
from jivs.operations import users

router = APIRouter(prefix="/users", tags=["users"], route_class=Idempotent)

RolesField = Annotated[frozenset[Role], Field(min_length=1, examples=[["DATA_ENGINEER"]])]


class NewUser(Given):
    """An account to be made."""

    username: Annotated[str, Field(min_length=1, max_length=100, examples=["ada"])]
    password: Annotated[Hidden, Field(max_length=1024, examples=["a few words that nobody guesses"])]
    roles: RolesField


class ChangedUser(Model):
    """What an account is to be."""

    roles: RolesField
    active: bool = True


class NewPassword(Given):
    """A new password; ``oldPassword`` where it is one's own."""

    old_password: Annotated[Hidden, Field(max_length=1024)] = SecretStr("")
    new_password: Annotated[Hidden, Field(max_length=1024)]


class UserOut(Model):
    """An account."""

    id: Id
    username: str
    roles: list[Role]
    active: bool
    created_at: datetime
    updated_at: datetime


class UserPage(Model):
    """Accounts. By ``cursor``: ``nextCursor`` is there if there are more. By ``page``: ``total`` and ``totalPages``."""

    items: list[UserOut]
    next_cursor: Id | None = None
    page: Count | None = None
    size: Count | None = None
    total: Count | None = None
    total_pages: Count | None = None


def _out(user: User) -> UserOut:
    return UserOut(
        id=user.id,
        username=user.username,
        roles=sorted(user.roles),
        active=user.active,
        created_at=user.created_at,
        updated_at=user.updated_at,
    )


@router.get("")
def list_users(
    service: ServiceDep,
    _: AdminDep,
    part: Annotated[Part, Depends(part_in("username", "createdAt", "updatedAt"))],
    name: Annotated[str, Query(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$", description="Part of the name.")] = "",
) -> UserPage:
    """All accounts."""
    kept = service.accounts()
    return UserPage(**part.shown(part.find(kept.users, name=name), _out, kept.count_users, name=name))


@router.post("", status_code=201, responses=fails(409, 429))
def add_user(service: ServiceDep, admin: AdminDep, body: NewUser, response: Response) -> UserOut:
    """Make an account."""
    user = users.add(service, admin.user.username, body.username, Secret(body.password.get_secret_value()), body.roles)
    response.headers["Location"] = f"/api/v1/users/{user.id}"
    response.headers["ETag"] = etag(user.version)
    return _out(user)


@router.get("/{user_id:id}", responses=tells("ETag"))
def get_user(service: ServiceDep, _: AdminDep, user_id: Id, response: Response) -> UserOut:
    """One account."""
    user = users.get(service, user_id)
    response.headers["ETag"] = etag(user.version)
    return _out(user)


@router.put("/{user_id:id}", responses=tells("ETag"))
def change_user(
    service: ServiceDep, admin: AdminDep, user_id: Id, version: VersionDep, body: ChangedUser, response: Response
) -> UserOut:
    """Other roles, or an account that is closed or opened again. All its sessions end."""
    user = users.change_roles(service, admin.user.username, user_id, version, body.roles, active=body.active)
    response.headers["ETag"] = etag(user.version)
    return _out(user)


@router.put("/{user_id:id}/password", status_code=204, responses=fails(403, 409, 429))
def change_password(service: ServiceDep, caller: CallerDep, user_id: Id, body: NewPassword) -> None:
    """One's own password, or, for an ADMIN, anybody's. All sessions of the account end."""
    old, new = Secret(body.old_password.get_secret_value()), Secret(body.new_password.get_secret_value())
    users.change_password(service, caller.user, user_id, old, new)


@router.delete("/{user_id:id}", status_code=204, responses=fails(409))
def remove_user(service: ServiceDep, admin: AdminDep, user_id: Id) -> None:
    """Delete an account. What it did stays in the audit trail."""
    users.remove(service, admin.user.username, user_id)
