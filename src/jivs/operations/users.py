"""Users: logging in and out, making, changing and removing accounts."""

from __future__ import annotations

import ipaddress
import re
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from jivs.domain.access import Role, User, check_password
from jivs.domain.audit import GENESIS, Deed, End, chained, said
from jivs.domain.source import Secret
from jivs.errors import (
    DamagedError,
    ForbiddenError,
    NotFoundError,
    OverLimitError,
    TooManyError,
    UnauthenticatedError,
    UsageError,
)
from jivs.ports.accounts import Refresh
from jivs.ports.secrets import Claims
from jivs.ports.service import Service

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
_WINDOW = 900.0
"""Seconds for which failed logins count."""

_LOOK_UP = 1000
"""Entries of the trail between two looks at whether somebody still waits."""

_FREE_FAILURES = 5
_FREE_FAILURES_OF_ADDRESS = 50
_MOST_SESSIONS = 10_000
_WRONG = "Wrong user name or password."


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a login or a refresh gives. ``expires_in``: seconds until the access token ends."""

    user: User
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int


def login(service: Service, username: str, password: Secret, address: str) -> Session:
    """Check a password and begin a session.

    After five failures within 15 minutes for a name (50 for an address), further attempts are refused until they are
    forgotten, right or wrong: TooManyError says when to come back. Of a name that nobody has, only a keyed digest is kept
    and recorded: people type passwords there.
    """
    accounts = service.accounts()
    digest = service.tokens.digest(username.casefold())
    name, place = f"user:{digest}", f"address:{_place(address)}"
    limits = {name: _FREE_FAILURES, place: _FREE_FAILURES_OF_ADDRESS}
    user = accounts.named(username) if _NAME.fullmatch(username) else None
    right = _checked(service, user, password, limits)
    if user is None or not right or not user.active:
        who = user.username if user is not None else f"unknown-{digest[:16]}"
        accounts.record(Deed(actor=who, action="login.failed", object=f"user:{who}", detail={"address": address}))
        raise UnauthenticatedError(_WRONG)
    accounts.forgive([name], [place])
    if service.passwords.outdated(user.password_hash):
        deed = Deed(actor=user.username, action="password.rehashed", object=f"user:{user.username}")
        user = accounts.change(user.id, user.version, deed, password_hash=service.passwords.hash(_normal(password)))
    now, token, family = _now(service), secrets.token_urlsafe(32), uuid.uuid4().hex
    refresh = Refresh(
        digest=service.tokens.digest(token),
        family=family,
        user_id=user.id,
        generation=user.generation,
        expires_at=now + service.refresh_seconds,
    )
    accounts.begin_session(
        refresh, Deed(actor=user.username, action="login", object=f"user:{user.username}", detail={"address": address})
    )
    return _session(service, user, f"{family}.{token}", now)


def _checked(service: Service, user: User | None, password: Secret, limits: dict[str, int]) -> bool:
    """Whether it is the user's password. It counts as a failure while it is checked, so that of many at once no more are
    checked than of many one after the other.
    """
    accounts = service.accounts()
    if not accounts.attempt(limits, _WINDOW):
        raise TooManyError("Too many failed logins. Try again later.", seconds=int(_WINDOW))
    try:
        return service.passwords.verify(user.password_hash if user is not None else "", _normal(password))
    except TooManyError:
        accounts.forgive([], list(limits))
        raise


def refresh(service: Service, refresh_token: str) -> Session:
    """A new access token and a new refresh token for a refresh token, which is used up."""
    family, _, token = refresh_token.partition(".")
    successor, now = secrets.token_urlsafe(32), _now(service)
    kept = service.accounts().rotate(
        service.tokens.digest(token), service.tokens.digest(successor), now + service.refresh_seconds
    )
    user = service.accounts().user(kept.user_id) if kept is not None and kept.family == family else None
    if user is None:
        raise UnauthenticatedError("The session has ended. Log in again.")
    return _session(service, user, f"{family}.{successor}", now)


def logout(service: Service, user: User, claims: Claims, refresh_token: str) -> None:
    """End the session of an access token: all tokens that followed from its login are void. Raises UsageError where a
    refresh token is given that is of another session.
    """
    if refresh_token and refresh_token.partition(".")[0] != claims.session:
        raise UsageError("The refresh token is of another session than the access token: end each with its own.")
    deed = Deed(actor=user.username, action="logout", object=f"user:{user.username}")
    last = max(claims.expires_at, _now(service) + service.refresh_seconds)
    service.accounts().end_session(claims.session, last, deed)


def authenticate(service: Service, token: str) -> tuple[User, Claims]:
    """Who an access token speaks for. Raises UnauthenticatedError."""
    accounts, now = service.accounts(), _now(service)
    stamp = accounts.stamp()
    if (known := _known(service, token, stamp, now)) is not None:
        return known
    claims = service.tokens.read(token, now)
    if claims is not None and not accounts.is_revoked(claims.session):
        user = accounts.user(claims.user_id)
        if user is not None and user.active and user.generation == claims.generation:
            if len(service.sessions) >= _MOST_SESSIONS:
                service.sessions.clear()
            service.sessions[token] = (stamp, user, claims)
            return user, claims
    service.sessions.pop(token, None)
    raise UnauthenticatedError("The access token is not valid, or it has expired. Log in again, or use the refresh token.")


def at_hand(service: Service, token: str) -> tuple[User, Claims] | None:
    """What ``authenticate`` says, if it is known without asking and waiting for anybody; None otherwise."""
    stamp = service.accounts().stamp_at_hand()
    return _known(service, token, stamp, _now(service)) if stamp is not None else None


def _known(service: Service, token: str, stamp: int, now: int) -> tuple[User, Claims] | None:
    known = service.sessions.get(token)
    return known[1:] if known is not None and known[0] == stamp and now < known[2].expires_at else None


def _session(service: Service, user: User, refresh_token: str, now: int) -> Session:
    claims = Claims(
        user_id=user.id,
        username=user.username,
        generation=user.generation,
        session=refresh_token.partition(".")[0],
        expires_at=now + service.access_seconds,
    )
    return Session(
        user=user,
        access_token=service.tokens.issue(claims),
        refresh_token=refresh_token,
        expires_in=service.access_seconds,
    )


def add(service: Service, actor: str, username: str, password: Secret, roles: frozenset[Role]) -> User:
    """A new user."""
    hashed = service.passwords.hash(_acceptable(password, check_name(username)))
    deed = Deed(actor=actor, action="user.added", object=f"user:{username}", detail={"roles": ",".join(sorted(roles))})
    return service.accounts().add(username, hashed, roles, deed)


def first_admin(service: Service) -> tuple[User, Secret] | None:
    """Where there is no user: an ADMIN named admin, with a password that nobody knows yet and that is not kept."""
    if service.accounts().users(limit=1):
        return None
    password = Secret(secrets.token_urlsafe(24))
    deed = Deed(actor="system", action="user.added", object="user:admin", detail={"roles": Role.ADMIN.value})
    user = service.accounts().bootstrap("admin", service.passwords.hash(password), deed)
    return (user, password) if user is not None else None


def change_roles(service: Service, actor: str, user_id: int, version: int, roles: frozenset[Role], *, active: bool) -> User:
    """Other roles, or an account that is closed or opened again."""
    user = get(service, user_id)
    detail: dict[str, str | int | bool | None] = {"roles": ",".join(sorted(roles)), "active": active}
    deed = Deed(actor=actor, action="user.changed", object=f"user:{user.username}", detail=detail)
    return service.accounts().change(user_id, version, deed, roles=roles, active=active)


def change_password(service: Service, actor: User, user_id: int, old: Secret, new: Secret) -> User:
    """A new password: one's own with the old one, or, for an ADMIN, anybody's. All sessions of the user end."""
    user = get(service, user_id)
    if actor.id == user_id:
        name = f"user:{service.tokens.digest(user.username.casefold())}"
        if not _checked(service, user, old, {name: _FREE_FAILURES}):
            deed = Deed(actor=user.username, action="password.refused", object=f"user:{user.username}")
            service.accounts().record(deed)
            raise ForbiddenError("The old password is wrong.")
        service.accounts().forgive([name])
    elif Role.ADMIN not in actor.roles:
        raise ForbiddenError("Only an ADMIN changes the password of somebody else.")
    hashed = service.passwords.hash(_acceptable(new, user.username))
    deed = Deed(actor=actor.username, action="password.changed", object=f"user:{user.username}")
    return service.accounts().change(user_id, user.version, deed, password_hash=hashed)


def reset_password(service: Service, actor: str, username: str, new: Secret) -> User:
    """A new password for a user by name, set by somebody who can reach the catalog itself."""
    user = service.accounts().named(check_name(username))
    if user is None:
        raise NotFoundError(f"There is no user {username}.")
    hashed = service.passwords.hash(_acceptable(new, user.username))
    deed = Deed(actor=actor, action="password.changed", object=f"user:{user.username}")
    return service.accounts().change(user.id, user.version, deed, password_hash=hashed)


def remove(service: Service, actor: str, user_id: int) -> None:
    """Delete an account."""
    user = get(service, user_id)
    service.accounts().remove(user_id, Deed(actor=actor, action="user.removed", object=f"user:{user.username}"))


def get(service: Service, user_id: int) -> User:
    """A user by id. Raises NotFoundError."""
    user = service.accounts().user(user_id)
    if user is None:
        raise NotFoundError(f"There is no user {user_id}.")
    return user


def verify_trail(service: Service, noted: End | None = None, gone: Callable[[], bool] = lambda: False) -> End:
    """The end of the audit trail, when all of it has been read.

    Raises DamagedError naming the first entry that is not as it was written, or saying that what was ``noted`` of an earlier
    end is not in it: a trail that was cut at its end, or written anew, is sound in itself. ``gone`` is asked now and then
    whether to break off: OverLimitError.
    """
    previous, count = GENESIS, 0
    for entry in service.accounts().trail():
        count += 1
        if count % _LOOK_UP == 0 and gone():
            raise OverLimitError("The verification of the trail was ended: use jivs audit verify, which has no limits.")
        if entry.seq != count or entry.hash != chained(previous, entry.seq, said(entry.at, entry.deed)):
            raise DamagedError(f"The audit trail is damaged at entry {count}: it was changed, removed or added later.")
        previous = entry.hash
        if noted is not None and noted.entries == count and noted.hash != previous:
            raise DamagedError(
                f"The audit trail was written anew: entry {count} has the hash {previous}, and {noted.hash} was noted."
            )
    if noted is not None and noted.entries > count:
        raise DamagedError(f"The audit trail was cut: its last entry is {count:,}, and {noted.entries:,} were noted.")
    return End(entries=count, hash=previous)


def check_name(username: str) -> str:
    """The name, if it can be a user's."""
    if not _NAME.fullmatch(username):
        raise UsageError(
            "A user name has letters, digits and . _ @ -, begins with a letter or digit, and at most 100 of them."
        )
    return username


def _acceptable(password: Secret, username: str) -> Secret:
    return Secret(check_password(password.reveal(), username))


def _normal(password: Secret) -> Secret:
    import unicodedata

    return Secret(unicodedata.normalize("NFC", password.reveal()[:1024]))


def _place(address: str) -> str:
    """Whose failures are counted together: of IPv6 a network of 64 bits, which is what one customer has at least."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:80]
    if found.version == 6:
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def _now(service: Service) -> int:
    return int(service.clock.now().timestamp())
