"""``/auth``: logging in and out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body
from pydantic import Field

from jivs.api.deps import AddressDep, CallerDep, Count, Given, Hidden, Id, Model, ServiceDep
from jivs.api.document import fails
from jivs.domain.access import Role
from jivs.domain.source import Secret
from jivs.operations import users

router = APIRouter(prefix="/auth", tags=["auth"])


class Login(Model):
    """A user's name and password."""

    username: Annotated[str, Field(min_length=1, max_length=200, examples=["admin"])]
    password: Annotated[Hidden, Field(min_length=1, max_length=1024, examples=["a few words that nobody guesses"])]


class RefreshToken(Given):
    """The refresh token of the last answer."""

    refresh_token: Annotated[Hidden, Field(min_length=1, max_length=512)]


class Tokens(Model):
    """A session: ``accessToken`` goes into the Authorization header until ``expiresIn`` seconds have passed."""

    access_token: str
    refresh_token: str
    token_type: str = "Bearer"  # noqa: S105 - the name of a scheme
    expires_in: Annotated[Count, Field(description="Seconds.")]
    username: str
    roles: list[Role]


class Me(Model):
    """Who is logged in."""

    id: Id
    username: str
    roles: list[Role]


def _tokens(session: users.Session) -> Tokens:
    return Tokens(
        access_token=session.access_token,
        refresh_token=session.refresh_token,
        expires_in=session.expires_in,
        username=session.user.username,
        roles=sorted(session.user.roles),
    )


@router.post("/login", responses=fails(401, 429))
def log_in(service: ServiceDep, address: AddressDep, body: Login) -> Tokens:
    """Begin a session."""
    return _tokens(users.login(service, body.username, Secret(body.password.get_secret_value()), address))


@router.post("/refresh", responses=fails(401))
def refresh_session(service: ServiceDep, body: RefreshToken) -> Tokens:
    """Go on with a session; the refresh token is used up, and using it again ends the session."""
    return _tokens(users.refresh(service, body.refresh_token.get_secret_value()))


@router.post("/logout", status_code=204)
def log_out(service: ServiceDep, caller: CallerDep, body: Annotated[RefreshToken | None, Body()] = None) -> None:
    """End the session of this access token: all tokens that followed from its login are void."""
    refresh_token = body.refresh_token.get_secret_value() if body is not None else ""
    users.logout(service, caller.user, caller.claims, refresh_token)


@router.get("/me")
def get_current_user(caller: CallerDep) -> Me:
    """Who is logged in."""
    return Me(id=caller.user.id, username=caller.user.username, roles=sorted(caller.user.roles))
