"""What every adapter of ``ports.upkeep`` promises."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from jivs.backends.catalog import tables
from jivs.domain.access import Role
from jivs.domain.audit import Deed
from jivs.errors import ConflictError, JivsError, UserError
from jivs.ports.accounts import Accounts, Refresh
from jivs.ports.upkeep import Upkeep
from jivs.testing.accounts import deed
from jivs.testing.clock import FakeClock

Opened = Callable[[], AbstractContextManager[Accounts]]
VIEWER = frozenset({Role.VIEWER})
SESSION = Refresh(digest="d" * 64, family="f", user_id=1, generation=1, expires_at=4e9)


def saved(upkeep: Upkeep) -> bytes:
    """All of the catalog."""
    kept = bytearray()
    upkeep.save(kept.extend)
    return bytes(kept)


def names(accounts: Accounts) -> list[str]:
    """The users of a catalog."""
    return [user.username for user in accounts.users()]


class UpkeepSuite:
    """Subclasses give the fixtures ``upkeep``, of a database without a catalog, and ``opened``, which uses that catalog as
    long as a block lasts, and ``empty``, of another database without one.
    """

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    def test_where_no_catalog_is_nothing_is_saved_or_made(self, upkeep: Upkeep) -> None:
        assert upkeep.version() == ""
        assert upkeep.in_use() == ""
        with pytest.raises(UserError, match="no catalog"):
            saved(upkeep)
        assert upkeep.version() == ""

    def test_upgrading_makes_the_newest_schema_once(self, upkeep: Upkeep) -> None:
        upkeep.upgrade()
        assert upkeep.version() == upkeep.newest
        upkeep.upgrade()
        assert list(upkeep.faults()) == []

    def test_what_was_saved_comes_back_and_what_came_later_is_gone(self, upkeep: Upkeep, opened: Opened) -> None:
        with opened() as accounts:
            accounts.add("ada", "hash", VIEWER, deed())
            before = saved(upkeep)
            accounts.add("bob", "hash", VIEWER, deed())
        upkeep.load(io.BytesIO(before), force=False)
        upkeep.upgrade()
        with opened() as accounts:
            assert names(accounts) == ["ada"]
            accounts.add("eve", "hash", VIEWER, deed())  # numbers go on
            assert [entry.seq for entry in accounts.trail()] == [1, 2]
        assert list(upkeep.faults()) == []

    def test_it_comes_back_into_a_database_that_has_none(self, upkeep: Upkeep, opened: Opened, empty: Upkeep) -> None:
        with opened() as accounts:
            accounts.add("ada", "hash", VIEWER, deed())
        empty.load(io.BytesIO(saved(upkeep)), force=False)
        assert empty.version() == upkeep.newest
        assert list(empty.faults()) == []

    def test_what_is_written_meanwhile_waits_for_nobody_and_is_whole_or_absent(self, upkeep: Upkeep, opened: Opened) -> None:
        ended = threading.Event()
        with opened() as accounts:
            accounts.add("user0", "hash", VIEWER, deed())

            def write() -> None:
                number = 1
                while not ended.is_set():
                    accounts.add(f"user{number}", "hash", VIEWER, deed())
                    number += 1

            writer = threading.Thread(target=write)
            writer.start()
            copies = [saved(upkeep) for _ in range(5)]
            ended.set()
            writer.join()
            total = len(list(accounts.trail()))
        seen = []
        for copy in copies:
            upkeep.load(io.BytesIO(copy), force=False)
            with opened() as accounts:
                seen.append(len(list(accounts.trail())))
                assert len([None for _ in accounts.users(limit=10_000)]) == seen[-1]
        assert seen == sorted(seen)
        assert seen[-1] <= total

    def test_sessions_end_with_it(self, upkeep: Upkeep, opened: Opened) -> None:
        with opened() as accounts:
            user = accounts.add("ada", "hash", VIEWER, deed())
            accounts.begin_session(SESSION, deed())
            before = saved(upkeep)
        upkeep.load(io.BytesIO(before), force=False)
        with opened() as accounts:
            assert accounts.rotate(SESSION.digest, "e" * 64, 4e9) is None
            found = accounts.user(user.id)
            assert found is not None
            assert found.generation > user.generation + 1000

    def test_a_catalog_in_use_is_left_alone_unless_forced(self, upkeep: Upkeep, opened: Opened) -> None:
        with opened() as accounts:
            accounts.add("ada", "hash", VIEWER, deed())
            before = saved(upkeep)
            accounts.add("bob", "hash", VIEWER, deed())
            assert upkeep.in_use() != ""
            with pytest.raises(ConflictError, match="in use"):
                upkeep.load(io.BytesIO(before), force=False)
            assert names(accounts) == ["ada", "bob"]
            upkeep.load(io.BytesIO(before), force=True)
            assert names(accounts) == ["ada"]
            accounts.add("eve", "hash", VIEWER, deed())
        assert upkeep.in_use() == ""

    @pytest.mark.parametrize("part", [0.0, 0.3])
    def test_what_is_no_catalog_changes_nothing(self, upkeep: Upkeep, opened: Opened, part: float) -> None:
        with opened() as accounts:
            accounts.add("ada", "hash", VIEWER, deed())
        before = saved(upkeep)
        with opened() as accounts:
            accounts.add("bob", "hash", VIEWER, deed())
        with pytest.raises(JivsError):
            upkeep.load(io.BytesIO(before[: int(len(before) * part)]), force=False)
        with opened() as accounts:
            assert names(accounts) == ["ada", "bob"]

    def test_a_deed_is_recorded(self, upkeep: Upkeep, opened: Opened) -> None:
        upkeep.upgrade()
        upkeep.record(17.0, Deed(actor="ops", action="catalog.restored", object="catalog"))
        with opened() as accounts:
            [entry] = accounts.trail()
        assert (entry.at, entry.deed.action) == (17.0, "catalog.restored")


def make_older(url: str, version: str) -> None:
    """A catalog as an older JiVS made it: ``sqlite:///`` or ``postgresql://``, with the schema of this version."""
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(tables.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, version)
    engine.dispose()
