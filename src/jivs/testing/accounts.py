"""What every adapter of ``ports.accounts`` promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from jivs.domain.access import Role, User
from jivs.domain.audit import GENESIS, Deed, Wanted, chained, said
from jivs.errors import AlreadyExistsError, ConflictError, UsageError
from jivs.ports.accounts import CARRIED_OUT, KEY, Accounts, Refresh, Replayed
from jivs.testing.clock import FakeClock

ADMIN = frozenset({Role.ADMIN})
VIEWER = frozenset({Role.VIEWER})


def deed(action: str = "tested", object_: str = "user:x") -> Deed:
    return Deed(actor="ada\x00\udfff", action=action, object=object_, detail={"n": 1, "text": "ünï\ud800"})


class AccountsSuite:
    """Subclasses give a fixture ``accounts`` with a fresh record on the fixture ``clock``."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @staticmethod
    def _refresh(accounts: Accounts, user: User, digest: str, expires_at: float) -> None:
        kept = Refresh(digest=digest, family="f1", user_id=user.id, generation=user.generation, expires_at=expires_at)
        accounts.begin_session(kept, deed("login"))

    def test_a_user_is_kept_as_it_was(self, accounts: Accounts) -> None:
        made = accounts.add("Ada", "hash", ADMIN, deed())
        assert made == accounts.user(made.id) == accounts.named("aDA")
        assert (made.username, made.password_hash, made.roles, made.active) == ("Ada", "hash", ADMIN, True)
        assert "hash" not in repr(made)
        assert accounts.user(made.id + 1) is None
        assert accounts.named("nobody") is None

    def test_a_name_is_taken_once_whatever_its_case(self, accounts: Accounts) -> None:
        accounts.add("Straße", "h", ADMIN, deed())
        with pytest.raises(AlreadyExistsError, match="STRASSE"):
            accounts.add("STRASSE", "h", ADMIN, deed())
        assert len(accounts.deeds()) == 1

    def test_of_many_first_users_one_is_made(self, accounts: Accounts) -> None:
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda number: accounts.bootstrap(f"admin{number}", "h", deed()), range(8)))
        assert len([user for user in made if user is not None]) == 1
        assert len(accounts.users()) == 1

    def test_an_account_has_nothing_of_one_that_had_its_number(self, accounts: Accounts) -> None:
        accounts.add("root", "h", ADMIN, deed())
        gone = accounts.add("bob", "h", VIEWER, deed())
        accounts.remove(gone.id, deed())
        assert accounts.add("eve", "h", ADMIN, deed()).generation != gone.generation

    def test_a_change_voids_what_came_before_and_only_one_wins(self, accounts: Accounts) -> None:
        accounts.add("root", "h", ADMIN, deed())
        user = accounts.add("ada", "h", VIEWER, deed())
        changed = accounts.change(user.id, user.version, deed(), roles=ADMIN, active=False, password_hash="new")
        assert (changed.roles, changed.active, changed.password_hash) == (ADMIN, False, "new")
        assert (changed.generation, changed.version) == (user.generation + 1, 2)
        with pytest.raises(ConflictError, match="meanwhile"):
            accounts.change(user.id, user.version, deed(), active=True)
        with pytest.raises(UsageError, match="role"):
            accounts.change(user.id, changed.version, deed(), roles=frozenset())
        assert accounts.user(user.id) == changed

    def test_an_admin_is_always_left(self, accounts: Accounts) -> None:
        first = accounts.add("a", "h", ADMIN, deed())
        accounts.add("b", "h", VIEWER, deed())
        before = len(accounts.deeds())
        for attempt in (
            lambda: accounts.remove(first.id, deed()),
            lambda: accounts.change(first.id, first.version, deed(), roles=VIEWER),
            lambda: accounts.change(first.id, first.version, deed(), active=False),
        ):
            with pytest.raises(ConflictError, match="ADMIN"):
                attempt()
        assert accounts.user(first.id) == first
        assert len(accounts.deeds()) == before
        accounts.add("c", "h", ADMIN, deed())
        assert accounts.remove(first.id, deed())
        assert not accounts.remove(first.id, deed())
        assert [user.username for user in accounts.users()] == ["b", "c"]

    def test_a_refresh_token_is_used_once_and_its_reuse_ends_the_family(self, accounts: Accounts, clock: FakeClock) -> None:
        user = accounts.add("ada", "h", ADMIN, deed())
        later = clock.now().timestamp() + 100
        self._refresh(accounts, user, "one", later)
        second = accounts.rotate("one", "two", later)
        assert second == Refresh(digest="two", family="f1", user_id=user.id, generation=user.generation, expires_at=later)
        assert accounts.rotate("unknown", "x", later) is None
        assert accounts.rotate("one", "three", later) is None
        assert accounts.rotate("two", "four", later) is None
        assert accounts.is_revoked("f1"), "and its access tokens"
        assert accounts.deeds()[0].deed.action == "token.reused"

    def test_of_many_who_refresh_at_once_one_gets_a_successor(self, accounts: Accounts, clock: FakeClock) -> None:
        user = accounts.add("ada", "h", ADMIN, deed())
        later = clock.now().timestamp() + 100
        self._refresh(accounts, user, "one", later)
        with ThreadPoolExecutor(4) as pool:
            got = list(pool.map(lambda number: accounts.rotate("one", f"next{number}", later), range(8)))
        assert len([one for one in got if one is not None]) == 1

    @pytest.mark.parametrize("what", ["expired", "changed", "closed", "ended", "ended meanwhile", "removed"])
    def test_a_void_refresh_token_gives_nothing(self, accounts: Accounts, clock: FakeClock, what: str) -> None:
        accounts.add("root", "h", ADMIN, deed())
        user = accounts.add("ada", "h", ADMIN, deed())
        now = clock.now().timestamp()
        self._refresh(accounts, user, "one", now + 100)
        if what == "expired":
            clock.advance(101)
        elif what == "changed":
            accounts.change(user.id, user.version, deed(), password_hash="new")
        elif what == "closed":
            accounts.change(user.id, user.version, deed(), active=False)
        elif what == "ended":
            accounts.end_session("f1", now + 100, deed())
            assert accounts.is_revoked("f1")
            accounts.end_session("f1", now + 100, deed())
        elif what == "ended meanwhile":  # in the moment in which its predecessor was used up
            accounts.end_session("f1", now + 100, deed())
            self._refresh(accounts, user, "two", now + 100)
            assert accounts.rotate("two", "three", now + 500) is None
        else:
            accounts.remove(user.id, deed())
        assert accounts.rotate("one", "four", now + 500) is None
        assert not accounts.is_revoked("f2")

    def test_expired_tokens_are_swept(self, accounts: Accounts, clock: FakeClock) -> None:
        user = accounts.add("ada", "h", ADMIN, deed())
        now = clock.now().timestamp()
        self._refresh(accounts, user, "one", now + 10)
        accounts.end_session("t1", now + 10, deed())
        assert accounts.sweep() == 0
        clock.jump(86_400)
        assert accounts.sweep() == 0
        clock.jump(-86_400)
        assert accounts.is_revoked("t1"), "also after somebody had set the clock"
        clock.advance(11 + 7 * 86_400)
        assert accounts.sweep() == 2
        assert not accounts.is_revoked("t1")

    def test_old_answers_are_swept_also_if_nobody_sends_a_key_again(self, accounts: Accounts, clock: FakeClock) -> None:
        accounts.claim_key("answered", "d")
        accounts.finish_key("answered", Replayed(digest="d", status=201, headers={}, body="what somebody else made"))
        clock.advance(86_000)
        accounts.claim_key("new", "d")
        assert accounts.sweep() == 0
        clock.advance(401)
        assert accounts.sweep() == 2, "the answered one, and the one whose process has ended"
        assert accounts.claim_key("answered", "d") is None

    def test_failures_count_for_a_while(self, accounts: Accounts, clock: FakeClock) -> None:
        limits = {"user:a": 3, "address:1": 5}
        assert [accounts.attempt(limits, 60) for _ in range(5)] == [True, True, True, False, False]
        other = {"user:b": 3, "address:1": 5}
        assert [accounts.attempt(other, 60) for _ in range(3)] == [True, True, False], "what was refused counts for nothing"
        accounts.forgive(["user:a"], ["address:1"])
        assert [accounts.attempt(limits, 60) for _ in range(2)] == [True, False]
        assert accounts.attempt({"user:c": 1}, 60)
        clock.advance(61)
        assert [accounts.attempt(limits, 60) for _ in range(4)] == [True, True, True, False]

    def test_of_many_attempts_at_once_no_more_are_counted(self, accounts: Accounts) -> None:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: accounts.attempt({"user:a": 5, "address:1": 50}, 60), range(24)))
        assert sum(found) == 5

    def test_the_trail_is_one_chain_however_many_write(self, accounts: Accounts) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: accounts.record(deed(f"act{number}", f"o:{number % 3}")), range(40)))
        previous = GENESIS
        entries = list(accounts.trail())
        assert [entry.seq for entry in entries] == list(range(1, 41))
        for entry in entries:
            assert entry.hash == chained(previous, entry.seq, said(entry.at, entry.deed))
            previous = entry.hash

    @pytest.mark.parametrize(
        "text", ['"', "\\", "\\u0041\n\t\x7f", "é 𝄞 \u2028", "? %s %% $1 :x", "'; --", "{}[],", "a\x00b\ud800c"]
    )
    def test_the_chain_holds_whatever_is_said(self, accounts: Accounts, text: str) -> None:
        """A text goes through the database's own way of putting texts together."""
        for _ in range(2):
            accounts.record(Deed(actor=text, action="x", object=text, detail={text.replace("\ud800", ""): text[:1], "n": 1}))
        previous = GENESIS
        for entry in accounts.trail():
            assert entry.hash == chained(previous, entry.seq, said(entry.at, entry.deed))
            previous = entry.hash

    def test_the_trail_is_shown_newest_first(self, accounts: Accounts) -> None:
        for number in range(7):
            accounts.record(Deed(actor=f"a{number % 2}", action="x", object=f"o:{number}"))
        assert [entry.seq for entry in accounts.deeds(limit=3)] == [7, 6, 5]
        assert [entry.seq for entry in accounts.deeds(before=5, limit=3)] == [4, 3, 2]
        assert [entry.seq for entry in accounts.deeds(Wanted(actor="a1"))] == [6, 4, 2]
        assert [entry.seq for entry in accounts.deeds(Wanted(object="o:2"))] == [3]

    def test_the_trail_is_searched_by_deed_and_time(self, accounts: Accounts, clock: FakeClock) -> None:
        for number in range(6):
            accounts.record(Deed(actor="a", action=f"x.{number % 2}", object="o"))
            clock.sleep(10)
        third = accounts.deeds(before=4, limit=1)[0].at
        assert [entry.seq for entry in accounts.deeds(Wanted(action="x.1"))] == [6, 4, 2]
        assert [entry.seq for entry in accounts.deeds(Wanted(since=third))] == [6, 5, 4, 3]
        assert [entry.seq for entry in accounts.deeds(Wanted(until=third))] == [2, 1]
        assert [entry.seq for entry in accounts.deeds(Wanted(action="x.0", since=third, until=third + 25))] == [5, 3]
        assert [entry.seq for entry in accounts.deeds(Wanted(since=0.0), limit=2, before=6)] == [5, 4]

    def test_what_was_done_is_not_done_again_if_its_answer_is_lost(self, accounts: Accounts, clock: FakeClock) -> None:
        for scope in ("done", "looked"):
            assert accounts.claim_key(scope, "d") is None
            answering = KEY.set(scope)
            if scope == "done":
                accounts.add("ada", "h", ADMIN, deed())
                accounts.add("bob", "h", ADMIN, Deed(actor="a", action="x", object="another"))
            else:
                accounts.record(deed())
            KEY.reset(answering)
            accounts.drop_key(scope)
            clock.advance(61)
        assert accounts.claim_key("done", "d") == Replayed(digest="d", status=CARRIED_OUT, body=deed().object)
        assert accounts.claim_key("looked", "d") is None
        accounts.finish_key("done", Replayed(digest="d", status=201))
        assert accounts.claim_key("done", "d") == Replayed(digest="d", status=201)

    def test_a_key_is_claimed_once_and_its_answer_kept_for_a_day(self, accounts: Accounts, clock: FakeClock) -> None:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: accounts.claim_key("k", "d"), range(8)))
        assert found.count(None) == 1
        assert accounts.claim_key("k", "other") == Replayed(digest="d")
        done = Replayed(digest="d", status=201, headers={"location": "/x"}, body='{"a": "ü"}')
        accounts.finish_key("k", done)
        assert accounts.claim_key("k", "d") == done
        clock.advance(86_401)
        assert accounts.claim_key("k", "d") is None
        clock.advance(61)
        assert accounts.claim_key("k", "d") is None
        accounts.drop_key("k")
        assert accounts.claim_key("k", "d") is None
