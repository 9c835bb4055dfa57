"""Users, tokens and the audit trail in the catalog's database."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from random import SystemRandom
from typing import Any

import sqlalchemy as sa

from jivs.backends.catalog import listing, trail
from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.tables import idempotency_keys as keys
from jivs.backends.catalog.tables import login_failures, refresh_tokens, revoked_tokens, stamps, users
from jivs.domain.access import Role, User
from jivs.domain.audit import EVERYTHING, Deed, Entry, Wanted
from jivs.errors import AlreadyExistsError, ConflictError, UsageError
from jivs.ports.accounts import Refresh, Replayed
from jivs.ports.clock import Clock

_SORTS = {"username": users.c.folded, "createdAt": users.c.created_at, "updatedAt": users.c.updated_at}
_BOOTSTRAPPING = 0x6A697662
_ADMINISTERING = 0x6A697663
_KEY_SECONDS = 86_400.0
_ANSWER_SECONDS = 60.0
_STAMP_SECONDS = 1.0
_CLOCK_SECONDS = 7 * 86_400.0
_LONGEST_ACCESS = 86_400.0
"""What JWT_EXPIRATION may be at most."""

"""A clock that was set wrongly by less than this has done no harm when it is right again."""


class SqlAccounts:
    """Accounts in SQLite or PostgreSQL."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._stamped: tuple[int, float] | None = None

    def _now(self) -> float:
        return self._clock.now().timestamp()

    # -- users ----------------------------------------------------------------------------------------------------

    def add(self, username: str, password_hash: str, roles: frozenset[Role], deed: Deed) -> User:
        try:
            with self._engine.write() as connection:
                user = self._insert(connection, username, password_hash, roles)
                trail.append(self._engine, connection, self._now(), deed)
        except sa.exc.IntegrityError as error:
            raise AlreadyExistsError(f"There is a user {username} already: take another name.") from error
        return user

    def bootstrap(self, username: str, password_hash: str, deed: Deed) -> User | None:
        with self._engine.write() as connection:
            self._engine.lock(connection, _BOOTSTRAPPING)
            if connection.execute(sa.select(users.c.id).limit(1)).first() is not None:
                return None
            user = self._insert(connection, username, password_hash, frozenset({Role.ADMIN}))
            trail.append(self._engine, connection, self._now(), deed)
        return user

    def _insert(self, connection: sa.Connection, username: str, password_hash: str, roles: frozenset[Role]) -> User:
        now = self._now()
        row = connection.execute(
            users.insert()
            .values(
                username=username,
                folded=username.casefold(),
                password_hash=password_hash,
                roles=_joined(roles),
                active=True,
                generation=SystemRandom().randrange(1, 1 << 30),  # an id may come again, and its old tokens not with it
                version=1,
                created_at=now,
                updated_at=now,
            )
            .returning(users)
        )
        return _user(row.mappings().one())

    def user(self, user_id: int) -> User | None:
        return self._one(users.c.id == user_id)

    def named(self, username: str) -> User | None:
        return self._one(users.c.folded == username.casefold())

    def _one(self, condition: Any) -> User | None:
        with self._engine.read() as connection:
            row = connection.execute(sa.select(users).where(condition)).mappings().first()
        return _user(row) if row is not None else None

    def users(
        self,
        *,
        after: int = 0,
        offset: int = 0,
        limit: int = 100,
        name: str = "",
        sort: str = "id",
        descending: bool = False,
    ) -> list[User]:
        query = listing.part(
            users, _SORTS, after=after, offset=offset, limit=limit, name=name, sort=sort, descending=descending
        )
        with self._engine.read() as connection:
            return [_user(row) for row in connection.execute(query).mappings()]

    def count_users(self, *, name: str = "") -> int:
        with self._engine.read() as connection:
            return int(connection.execute(listing.count(users, name)).scalar_one())

    def change(
        self,
        user_id: int,
        version: int,
        deed: Deed,
        *,
        password_hash: str | None = None,
        roles: frozenset[Role] | None = None,
        active: bool | None = None,
    ) -> User:
        given = {
            "password_hash": password_hash,
            "roles": _joined(roles) if roles is not None else None,
            "active": active,
        }
        values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        values |= {"version": version + 1, "generation": users.c.generation + 1, "updated_at": self._now()}
        with self._engine.write() as connection:
            self._engine.lock(connection, _ADMINISTERING)
            mine = sa.and_(users.c.id == user_id, users.c.version == version)
            row = connection.execute(users.update().where(mine).values(values).returning(users)).mappings().first()
            if row is None:
                raise ConflictError("The user was changed or deleted meanwhile: read it again, and then change it.")
            self._require_admin(connection)
            self._bump(connection)
            trail.append(self._engine, connection, self._now(), deed)
        self._stamped = None
        return _user(row)

    def remove(self, user_id: int, deed: Deed) -> bool:
        with self._engine.write() as connection:
            self._engine.lock(connection, _ADMINISTERING)
            if not connection.execute(users.delete().where(users.c.id == user_id)).rowcount:
                return False
            self._require_admin(connection)
            self._bump(connection)
            trail.append(self._engine, connection, self._now(), deed)
        self._stamped = None
        return True

    @staticmethod
    def _require_admin(connection: sa.Connection) -> None:
        admin = sa.and_(users.c.active, users.c.roles.contains(Role.ADMIN.value))
        if connection.execute(sa.select(users.c.id).where(admin).limit(1)).first() is None:
            raise ConflictError("Nobody could administer JiVS any more: make another user an ADMIN first.")

    # -- tokens ---------------------------------------------------------------------------------------------------

    def begin_session(self, refresh: Refresh, deed: Deed) -> None:
        with self._engine.write() as connection:
            connection.execute(refresh_tokens.insert().values(**refresh.__dict__, revoked=False))
            trail.append(self._engine, connection, self._now(), deed)

    def rotate(self, digest: str, successor: str, expires_at: float) -> Refresh | None:
        now = self._now()
        with self._engine.write() as connection:
            mine = sa.and_(refresh_tokens.c.digest == digest, refresh_tokens.c.used_at.is_(None))
            used = refresh_tokens.update().where(mine).values(used_at=now).returning(refresh_tokens)
            row = connection.execute(used).mappings().first()
            if row is None:
                self._revoke_reused(connection, digest)
                return None
            user = connection.execute(
                sa.select(users.c.active, users.c.generation).where(users.c.id == row["user_id"])
            ).first()
            sound = user is not None and user.active and user.generation == row["generation"]
            # Of a session that ended while its token was used up, the successor is not marked.
            query = sa.select(revoked_tokens.c.token_id).where(revoked_tokens.c.token_id == row["family"])
            sound = sound and connection.execute(query).first() is None
            if row["revoked"] or row["expires_at"] <= now or not sound:
                return None
            new = Refresh(
                digest=successor,
                family=row["family"],
                user_id=row["user_id"],
                generation=row["generation"],
                expires_at=expires_at,
            )
            connection.execute(refresh_tokens.insert().values(**new.__dict__, revoked=False))
        return new

    def _revoke_reused(self, connection: sa.Connection, digest: str) -> None:
        known = connection.execute(
            sa.select(refresh_tokens.c.family, users.c.username)
            .join(users, users.c.id == refresh_tokens.c.user_id)
            .where(refresh_tokens.c.digest == digest)
        ).first()
        if known is None:
            return
        family = refresh_tokens.c.family == known.family
        connection.execute(refresh_tokens.update().where(family).values(revoked=True))
        self._revoke(connection, known.family, self._now() + _LONGEST_ACCESS)
        deed = Deed(
            actor=known.username, action="token.reused", object=f"user:{known.username}", detail={"family": known.family}
        )
        trail.append(self._engine, connection, self._now(), deed)

    def end_session(self, session: str, expires_at: float, deed: Deed) -> None:
        with self._engine.write() as connection:
            connection.execute(refresh_tokens.update().where(refresh_tokens.c.family == session).values(revoked=True))
            self._revoke(connection, session, expires_at)
            trail.append(self._engine, connection, self._now(), deed)
        self._stamped = None

    def _revoke(self, connection: sa.Connection, session: str, expires_at: float) -> None:
        """Its access tokens are void."""
        new = self._engine.insert(revoked_tokens).values(token_id=session, expires_at=expires_at)
        connection.execute(new.on_conflict_do_nothing())
        self._bump(connection)
        self._stamped = None

    @staticmethod
    def _bump(connection: sa.Connection) -> None:
        connection.execute(stamps.update().where(stamps.c.name == "accounts").values(value=stamps.c.value + 1))

    def stamp(self) -> int:
        now = time.monotonic()
        if not self._engine.embedded and (known := self._kept_stamp(now)) is not None:
            return known
        value = int(self._engine.fetch(("SELECT value FROM stamps WHERE name = ?", ("accounts",)))[0][0][0])
        self._stamped = (value, now)
        return value

    def stamp_at_hand(self) -> int | None:
        return self.stamp() if self._engine.embedded else self._kept_stamp(time.monotonic())

    def _kept_stamp(self, now: float) -> int | None:
        known = self._stamped
        return known[0] if known is not None and now - known[1] < _STAMP_SECONDS else None

    def is_revoked(self, session: str) -> bool:
        with self._engine.read() as connection:
            query = sa.select(revoked_tokens.c.token_id).where(revoked_tokens.c.token_id == session)
            return connection.execute(query).first() is not None

    def sweep(self) -> int:
        long_ago = self._now() - _CLOCK_SECONDS  # or a token would be good again when the clock is set back
        expired = [table.delete().where(table.c.expires_at < long_ago) for table in (refresh_tokens, revoked_tokens)]
        with self._engine.write() as connection:
            return sum(connection.execute(delete).rowcount for delete in (*expired, keys.delete().where(self._old_keys())))

    # -- failed logins --------------------------------------------------------------------------------------------

    def attempt(self, limits: dict[str, int], window: float) -> bool:
        now = self._now()
        counted: list[str] = []
        with self._engine.write() as connection:
            connection.execute(login_failures.delete().where(login_failures.c.last_at <= now - window))
            for key, most in sorted(limits.items()):
                new = self._engine.insert(login_failures).values(key=key, count=1, last_at=now)
                more = {"count": login_failures.c.count + 1, "last_at": now}
                one_more = new.on_conflict_do_update(
                    index_elements=[login_failures.c.key], set_=more, where=login_failures.c.count < most
                )
                if connection.execute(one_more.returning(login_failures.c.count)).first() is None:
                    self._uncount(connection, counted)
                    return False
                counted.append(key)
        return True

    def forgive(self, keys: list[str], once: Sequence[str] = ()) -> None:
        with self._engine.write() as connection:
            connection.execute(login_failures.delete().where(login_failures.c.key.in_(keys)))
            self._uncount(connection, once)

    @staticmethod
    def _uncount(connection: sa.Connection, keys: Sequence[str]) -> None:
        one = login_failures.update().where(login_failures.c.key.in_(keys), login_failures.c.count > 0)
        connection.execute(one.values(count=login_failures.c.count - 1))

    # -- idempotency keys -----------------------------------------------------------------------------------------

    def claim_key(self, scope: str, digest: str) -> Replayed | None:
        values = {"scope": scope, "digest": digest, "status": 0, "headers": "{}", "body": "", "at": self._now()}
        with self._engine.write() as connection:
            connection.execute(keys.delete().where(self._old_keys()))
            new = self._engine.insert(keys).values(values)
            if connection.execute(new.on_conflict_do_nothing().returning(keys.c.scope)).first() is not None:
                return None
            row = connection.execute(sa.select(keys).where(keys.c.scope == scope)).mappings().one()
        return Replayed(digest=row["digest"], status=row["status"], headers=json.loads(row["headers"]), body=row["body"])

    def _old_keys(self) -> sa.ColumnElement[bool]:
        now = self._now()
        unanswered = sa.and_(keys.c.status == 0, keys.c.at <= now - _ANSWER_SECONDS)
        return sa.or_(keys.c.at <= now - _KEY_SECONDS, unanswered)

    def finish_key(self, scope: str, replayed: Replayed) -> None:
        answer = {"status": replayed.status, "headers": json.dumps(replayed.headers), "body": replayed.body}
        with self._engine.write() as connection:
            connection.execute(keys.update().where(keys.c.scope == scope, keys.c.digest == replayed.digest).values(answer))

    def drop_key(self, scope: str) -> None:
        with self._engine.write() as connection:
            connection.execute(keys.delete().where(keys.c.scope == scope, keys.c.status == 0))

    # -- the audit trail ------------------------------------------------------------------------------------------

    def record(self, deed: Deed) -> None:
        with self._engine.write() as connection:
            trail.append(self._engine, connection, self._now(), deed, changing=False)

    def deeds(self, wanted: Wanted = EVERYTHING, *, before: int = 0, limit: int = 100) -> list[Entry]:
        return trail.page(self._engine, wanted, before=before, limit=limit)

    def trail(self) -> Iterator[Entry]:
        return trail.everything(self._engine)


def _joined(roles: frozenset[Role]) -> str:
    if not roles:
        raise UsageError(f"A user needs a role: {', '.join(Role)}.")
    return ",".join(sorted(roles))


def _user(row: Any) -> User:
    return User(
        id=row["id"],
        username=row["username"],
        password_hash=row["password_hash"],
        roles=frozenset(map(Role, row["roles"].split(","))),
        active=bool(row["active"]),
        generation=row["generation"],
        version=row["version"],
        created_at=datetime.fromtimestamp(row["created_at"], UTC),
        updated_at=datetime.fromtimestamp(row["updated_at"], UTC),
    )
