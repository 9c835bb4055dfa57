"""Conformance suites: what each adapter of a port has to pass. Subclass one, give it the adapter; override no case."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jivs.domain.plan import Bounds
from jivs.domain.run import Run, RunState
from jivs.domain.schema import Table, TableName
from jivs.domain.source import Limits
from jivs.errors import AlreadyExistsError, ConflictError, FencedError, UsageError
from jivs.ports.catalog import Catalog
from jivs.ports.connector import Request, Session
from jivs.ports.shelf import Shelf
from jivs.ports.store import Store
from jivs.testing.clock import FakeClock
from jivs.transfer.conform import conform
from jivs.wire.rowhash import RowHasher


class StoreSuite:
    """For every Store."""

    @pytest.fixture
    def store(self) -> Store:
        """An empty store."""
        raise NotImplementedError  # whoever uses the suite gives it

    def test_what_was_written_is_read(self, store: Store) -> None:
        store.replace("a/b.txt", b"one")
        assert store.read("a/b.txt") == b"one"
        store.replace("a/b.txt", b"two, longer")
        assert store.read("a/b.txt") == b"two, longer"
        assert store.size("a/b.txt") == 11
        with store.open("a/b.txt") as file:
            file.seek(5)
            assert file.read() == b"longer"

    def test_ranges_are_those_of_the_file(self, store: Store) -> None:
        data = random.Random(1).randbytes(3_000_000)
        store.replace("a/large", data)
        assert store.read("a/large", 5, 10) == data[5:15]
        assert store.read("a/large", 2_999_990) == data[-10:]
        assert store.read("a/large", 2_999_990, 100) == data[-10:]
        assert store.read("a/large", 7, 0) == b""
        draw = random.Random(2)
        with store.open("a/large") as file:
            for _ in range(40):
                start, count = draw.randrange(len(data)), draw.choice([1, 4000, 70_000, 900_000])
                assert file.seek(start) == start
                assert file.read(count) == data[start : start + count]
                assert file.read(300_000) == data[start + count : start + count + 300_000]
            assert file.seek(-8, 2) == len(data) - 8
            assert file.read() == data[-8:]
            assert file.read(1) == b""
        with store.open("a/large") as file:
            assert b"".join(iter(lambda: file.read(50_000), b"")) == data

    def test_an_empty_file_is_a_file(self, store: Store) -> None:
        store.replace("empty", b"")
        assert store.size("empty") == 0
        assert store.read("empty") == b""
        with store.open("empty") as file:
            assert file.read() == b""

    def test_readers_of_parquet_read_it(self, store: Store) -> None:
        table = pa.table({"id": range(50_000), "text": [f"text {number}" for number in range(50_000)]})
        local = store.spool / "table"
        pq.write_table(table, local, row_group_size=7000)
        store.put(local, "data/t.parquet")
        with store.open("data/t.parquet") as file:
            assert pq.read_metadata(file).num_rows == 50_000
        with store.open("data/t.parquet") as file:
            assert pq.read_table(file, columns=["id"]) == table.select(["id"])
        place = store.local("data/t.parquet")
        assert place is None or pq.read_table(place) == table

    def test_what_is_not_there_is_not_found(self, store: Store) -> None:
        for act in (store.read, store.open, store.size, lambda path: store.read(path, 3, 5)):
            with pytest.raises(FileNotFoundError):
                act("not/there")
        assert not store.exists("not/there")

    def test_create_succeeds_once(self, store: Store) -> None:
        store.create("m/1", b"first")
        with pytest.raises(AlreadyExistsError):
            store.create("m/1", b"second")
        assert store.read("m/1") == b"first"

    def test_of_many_creators_at_once_one_succeeds(self, store: Store) -> None:
        won: list[bytes] = []
        start = threading.Barrier(8)

        def compete(data: bytes) -> None:
            start.wait()
            try:
                store.create("m/2", data)
                won.append(data)
            except AlreadyExistsError:
                pass

        threads = [threading.Thread(target=compete, args=(str(number).encode(),)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.read("m/2") == won[0]

    def test_put_moves_a_spooled_file(self, store: Store) -> None:
        local = store.spool / "segment"
        local.write_bytes(b"rows")
        store.put(local, "data/x/abc.parquet")
        assert store.read("data/x/abc.parquet") == b"rows"
        assert not local.exists()

    def test_many_are_put_together(self, store: Store) -> None:
        files = []
        for number in range(50):
            local = store.spool / f"file {number}"
            local.write_bytes(b"x" * number)
            files.append((local, f"data/a%41-{number:02d}/f.parquet"))
        store.put_all(files)
        found = [(entry.path, entry.bytes) for entry in store.list("data/")]
        assert found == [(path, number) for number, (_, path) in enumerate(files)]
        assert not any(local.exists() for local, _ in files)

    def test_list_is_ordered_and_by_prefix(self, store: Store) -> None:
        for path in ("data/b", "data/a/z", "database", "other"):
            store.replace(path, b"x")
        assert [entry.path for entry in store.list("data/")] == ["data/a/z", "data/b"]
        assert [entry.path for entry in store.list("data")] == ["data/a/z", "data/b", "database"]
        assert list(store.list("nothing/")) == []

    def test_delete_twice_is_no_error(self, store: Store) -> None:
        store.replace("x/y", b"1")
        store.delete("x/y")
        store.delete("x/y")
        assert not store.exists("x/y")
        with pytest.raises(FileNotFoundError):
            store.read("x/y")

    @pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "a//b", "a/./b", "a\0b"])
    def test_no_path_leaves_the_root(self, store: Store, path: str) -> None:
        with pytest.raises(ValueError, match="path"):
            store.replace(path, b"x")
        with pytest.raises(ValueError, match="path"):
            store.read(path)

    def test_clean_spool_keeps_what_is_named(self, store: Store) -> None:
        for run in ("living", "dead"):
            (store.spool / run).mkdir()
            (store.spool / run / "file").touch()
        store.clean_spool(lambda name: name == "dead")
        assert (store.spool / "living" / "file").exists()
        assert not (store.spool / "dead").exists()


class ShelfSuite:
    """For every Shelf."""

    @pytest.fixture
    def shelf(self) -> Shelf:
        """An empty shelf."""
        raise NotImplementedError  # whoever uses the suite gives it

    @pytest.fixture
    def open_store(self) -> Callable[[str], Store]:
        """Opens the store at an address of the shelf."""
        raise NotImplementedError  # whoever uses the suite gives it

    def test_names_are_those_of_published_archives(self, shelf: Shelf, open_store: Callable[[str], Store]) -> None:
        assert shelf.names() == []
        for name in ("zoo", "a.b-c_d", "Begun"):
            store = open_store(shelf.address(name))
            store.replace("runs/r/open.json", b"{}")
            if name != "Begun":
                store.create("manifests/00000001.json", b"{}")
        assert shelf.names() == ["a.b-c_d", "zoo"]

    def test_a_probe_leaves_nothing_behind(self, shelf: Shelf) -> None:
        shelf.probe()
        assert shelf.names() == []
        assert shelf.mark("") == ""

    def test_a_mark_stays_whoever_else_proposes_one(self, shelf: Shelf) -> None:
        with ThreadPoolExecutor(4) as pool:
            marks = set(pool.map(shelf.mark, ["one", "two", "three", "four"]))
        assert marks < {"one", "two", "three", "four"}
        assert {shelf.mark(""), shelf.mark("five")} == marks
        assert shelf.names() == []
        assert shelf.shown

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "a b", "a\0", "s3://other"])
    def test_what_is_no_name_has_no_address(self, shelf: Shelf, name: str) -> None:
        with pytest.raises(UsageError):
            shelf.address(name)


class CatalogSuite:
    """For every Catalog."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def catalog(self, clock: FakeClock, tmp_path: Path) -> Catalog:
        """An empty catalog on this clock."""
        raise NotImplementedError  # whoever uses the suite gives it

    @pytest.fixture
    def run(self, catalog: Catalog, clock: FakeClock) -> str:
        now = clock.now()
        run = Run(
            id="r1",
            kind="extract",
            source="s",
            archive="/a",
            digest="d",
            state=RunState.PENDING,
            created_at=now,
            updated_at=now,
        )
        catalog.create_run(run)
        return run.id

    def test_a_run_is_kept_as_it_was(self, catalog: Catalog, run: str) -> None:
        kept = catalog.run(run)
        assert kept is not None
        assert (kept.kind, kept.source, kept.archive, kept.digest, kept.state) == (
            "extract",
            "s",
            "/a",
            "d",
            RunState.PENDING,
        )
        assert catalog.run("unknown") is None
        assert [item.id for item in catalog.runs(archive="/a", digest="d")] == [run]
        assert catalog.runs(archive="/other") == []

    def test_a_run_is_recorded_once(self, catalog: Catalog, run: str) -> None:
        kept = catalog.run(run)
        assert kept is not None
        with pytest.raises(AlreadyExistsError):
            catalog.create_run(kept)

    def test_a_lease_excludes_until_it_expires(self, catalog: Catalog, run: str, clock: FakeClock) -> None:
        first = catalog.claim_run(run, "one", 10)
        assert first is not None
        assert catalog.claim_run(run, "two", 10) is None
        clock.advance(6)
        assert catalog.renew_run(run, first, 10)
        clock.advance(6)
        assert catalog.claim_run(run, "two", 10) is None
        assert catalog.claim_run(run, "two", 10, instead_of=first - 1) is None
        clock.advance(5)
        second = catalog.claim_run(run, "two", 10)
        assert second is not None
        assert second > first
        assert not catalog.renew_run(run, first, 10)
        third = catalog.claim_run(run, "three", 10, instead_of=second)
        assert third is not None
        assert not catalog.renew_run(run, second, 10)

    def test_an_old_owner_is_fenced(self, catalog: Catalog, run: str, clock: FakeClock) -> None:
        first = catalog.claim_run(run, "one", 1)
        clock.advance(2)
        second = catalog.claim_run(run, "two", 1)
        assert first is not None
        assert second is not None
        with pytest.raises(FencedError):
            catalog.transition(run, first, RunState.RUNNING)
        catalog.transition(run, second, RunState.RUNNING)

    def test_transitions_follow_the_table(self, catalog: Catalog, run: str) -> None:
        epoch = catalog.claim_run(run, "one", 10)
        assert epoch is not None
        with pytest.raises(ConflictError):
            catalog.transition(run, epoch, RunState.COMPLETED)
        catalog.transition(run, epoch, RunState.RUNNING)
        catalog.transition(run, epoch, RunState.COMPLETED, "well")
        kept = catalog.run(run)
        assert kept is not None
        assert (kept.state, kept.message, kept.lease_until) == (RunState.COMPLETED, "well", None)
        with pytest.raises(ConflictError):
            catalog.transition(run, epoch, RunState.RUNNING)

    def test_each_step_is_claimed_once(self, catalog: Catalog, run: str) -> None:
        names = [f"p{number:03}" for number in range(40)]
        catalog.add_steps(run, names)
        catalog.add_steps(run, names)
        claimed: list[str] = []
        lock = threading.Lock()

        def work(owner: str) -> None:
            while (step := catalog.claim_step(run, owner, 60, run_epoch=0)) is not None:
                with lock:
                    claimed.append(step.partition)
                assert catalog.complete_step(run, step.partition, step.epoch, 7)

        threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(claimed) == names
        assert {(step.state.value, step.rows) for step in catalog.steps(run)} == {("DONE", 7)}

    def test_an_expired_step_goes_to_another_and_the_first_is_fenced(
        self, catalog: Catalog, run: str, clock: FakeClock
    ) -> None:
        catalog.add_steps(run, ["p"])
        first = catalog.claim_step(run, "one", 5, run_epoch=0)
        assert first is not None
        assert catalog.claim_step(run, "two", 5, run_epoch=0) is None
        clock.advance(6)
        assert catalog.claim_step(run, "one", 5, run_epoch=0) is None, "nobody takes what is his own"
        second = catalog.claim_step(run, "two", 5, run_epoch=0)
        assert second is not None
        assert second.epoch > first.epoch
        assert not catalog.renew_step(run, "p", first.epoch, 5)
        assert not catalog.complete_step(run, "p", first.epoch, 1)
        assert catalog.complete_step(run, "p", second.epoch, 1)

    def test_released_failed_done_and_dropped_steps(self, catalog: Catalog, run: str) -> None:
        catalog.add_steps(run, ["a", "b"])
        step = catalog.claim_step(run, "one", 5, run_epoch=0)
        assert step is not None
        assert catalog.release_step(run, step.partition, step.epoch)
        again = catalog.claim_step(run, "one", 5, run_epoch=0)
        assert again is not None
        assert (again.partition, again.attempts) == (step.partition, 2)
        assert catalog.release_step(run, again.partition, again.epoch, failed=True)
        catalog.add_steps(run, ["b", "c"], done=True)
        assert catalog.claim_step(run, "one", 5, run_epoch=0) is None
        catalog.drop_steps(run, ["a"])
        assert [(step.partition, step.state.value) for step in catalog.steps(run)] == [("b", "DONE"), ("c", "DONE")]


class ConnectorSuite:
    """For every connector: give it a source with the table ``sample`` of 1,000 rows and more, with an integer ``id``."""

    @pytest.fixture
    def open_session(self) -> Callable[[Request, Limits], Session]:
        """Opens a session on the source."""
        raise NotImplementedError  # whoever uses the suite gives it

    @pytest.fixture
    def session(self, open_session: Callable[[Request, Limits], Session]) -> Session:
        return open_session(Request(), Limits(parallel=2, connections=3))

    @staticmethod
    def _sample(session: Session) -> TableName:
        return next(listing.name for listing in session.tables() if listing.name.name == "sample")

    @staticmethod
    def _fingerprint(session: Session, table: Table, bounds: Bounds) -> tuple[int, int]:
        hasher, rows, total = RowHasher(table.columns), 0, 0
        for chunk in session.read(table, bounds):
            done = conform(table.columns, chunk)
            found = hasher.fingerprint(done.batch, done.overrides)
            rows, total = rows + found.rows, (total + found.total) % 2**64
        return rows, total

    def test_it_answers(self, session: Session) -> None:
        with closing(session):
            assert session.ping().product

    def test_unknown_tables_are_refused_with_a_sentence(self, session: Session) -> None:
        with closing(session), pytest.raises(UsageError, match="nowhere"):
            session.describe(TableName(schema="", name="nowhere"))

    def test_source_and_reader_agree(self, session: Session) -> None:
        with closing(session):
            name = self._sample(session)
            session.begin([name])
            table = session.describe(name)
            found = session.fingerprint(table, {})
            assert (found.rows, found.total) == self._fingerprint(session, table, {})
            assert session.count(table, {}) == found.rows >= 1000
            assert session.changed(table) == ""

    def test_parts_tile_the_table(self, session: Session) -> None:
        with closing(session):
            name = self._sample(session)
            session.begin([name])
            table = session.describe(name)
            whole = session.fingerprint(table, {})
            rows = total = 0
            for bounds in session.split(table, 16 << 10):
                part = session.fingerprint(table, bounds)
                assert (part.rows, part.total) == self._fingerprint(session, table, bounds)
                rows, total = rows + part.rows, (total + part.total) % 2**64
                slices = [self._fingerprint(session, table, one) for one in session.slices(table, bounds)]
                assert sum(found for found, _ in slices) == part.rows
                assert sum(found for _, found in slices) % 2**64 == part.total
            assert (rows, total) == (whole.rows, whole.total)

    def test_columns_have_unique_fields_and_known_types(self, session: Session) -> None:
        with closing(session):
            table = session.describe(self._sample(session))
            fields = [column.field.casefold() for column in table.columns]
            assert len(set(fields)) == len(fields)
            assert all(column.source_type for column in table.columns)

    def test_batches_keep_the_ceiling(self, open_session: Callable[[Request, Limits], Session]) -> None:
        with closing(open_session(Request(), Limits(parallel=1, connections=2, batch_rows=100))) as session:
            name = self._sample(session)
            session.begin([name])
            table = session.describe(name)
            sizes = [chunk.batch.num_rows for chunk in session.read(table, {})]
            assert max(sizes) <= 100
            assert sum(sizes) == session.count(table, {})

    def test_connections_are_given_up_when_their_readers_are_done(
        self, open_session: Callable[[Request, Limits], Session]
    ) -> None:
        with closing(open_session(Request(), Limits(parallel=4, connections=5))) as session:
            assert session.resize(4) <= 4
            name = self._sample(session)
            session.begin([name])
            table = session.describe(name)
            whole = session.fingerprint(table, {})
            assert session.resize(5) <= 5
            readers = [session.read(table, {}) for _ in range(3)]
            for reader in readers:
                next(reader)
            session.resize(2)
            for reader in readers:
                for _ in reader:
                    pass
            left = session.resize(2)
            use = session.connections()
            assert use.active + use.idle <= left <= 3
            assert self._fingerprint(session, table, {}) == (whole.rows, whole.total)
            assert left <= session.resize(5) <= 5
            assert self._fingerprint(session, table, {}) == (whole.rows, whole.total)

    def test_reading_can_be_left_and_begun_again(self, session: Session) -> None:
        with closing(session):
            name = self._sample(session)
            session.begin([name])
            table = session.describe(name)
            rows = session.read(table, {})
            next(rows)
            close = getattr(rows, "close", None)
            assert close is not None
            close()

    def test_schemas_of_batches_match_the_columns(self, session: Session) -> None:
        with closing(session):
            name = self._sample(session)
            session.begin([name])
            table = session.describe(name)
            for chunk in session.read(table, {}):
                assert isinstance(chunk.batch, pa.RecordBatch)
                assert chunk.batch.num_columns == len(table.columns)
