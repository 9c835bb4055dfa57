"""Statements that go to PostgreSQL together are one transaction, whatever became of those before them on that connection."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from jivs.backends.catalog import trail
from jivs.backends.catalog.engine import Engine, PoolLimits
from jivs.backends.catalog.extractions import SqlExtractions
from jivs.backends.catalog.registry import SqlRegistry
from jivs.backends.clock import SystemClock
from jivs.domain.audit import GENESIS, Deed, chained, said
from jivs.domain.extraction import ExtractionDraft, Job
from jivs.domain.registry import SourceDraft
from jivs.domain.source import Address
from jivs.errors import AlreadyExistsError

DEED = Deed(actor="a", action="x", object="y")


class Catalog:
    """A catalog with a source, over so many connections."""

    def __init__(self, pg: str, connections: int) -> None:
        self.engine = Engine(Address.parse(pg, lambda _: None), PoolLimits(maximum=connections))
        self._extractions = SqlExtractions(self.engine, SystemClock())
        address = Address(scheme="sqlite", database="/x")
        draft = SourceDraft(name="s", address=address)
        self.source = SqlRegistry(self.engine, SystemClock()).add_source(draft, lambda _: "", DEED).id

    def add(self, name: str) -> int:
        draft = ExtractionDraft(name=name, source_id=self.source, job=Job(archive="x"))
        return self._extractions.add(draft, "a", DEED).id

    def entries(self) -> int:
        """How many the trail has; it is one chain."""
        previous, count = GENESIS, 0
        for entry in trail.everything(self.engine):
            assert entry.hash == chained(previous, entry.seq, said(entry.at, entry.deed))
            previous, count = entry.hash, count + 1
        return count


@pytest.mark.parametrize("before", range(8))
def test_a_refusal_harms_nothing_that_comes_after_it(pg: str, before: int) -> None:
    """Whatever the driver has prepared by then."""
    catalog = Catalog(pg, connections=1)
    for number in range(before):
        catalog.add(f"x{number}")
    catalog.add("taken")
    with pytest.raises(AlreadyExistsError, match="TAKEN"):
        catalog.add("TAKEN")
    for number in range(8):
        catalog.add(f"y{number}")
        catalog.engine.fetch(("SELECT 1", ()), ("SELECT count(*) FROM audit", ()))
    assert catalog.entries() == 1 + before + 1 + 8
    catalog.engine.close()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_who_waits_for_the_trail_sees_its_end_whatever_the_database_is_set_to(pg: str, level: str) -> None:
    with psycopg.connect(pg, autocommit=True) as connection:
        [(name,)] = connection.execute("select current_database()").fetchall()
        connection.execute(f"alter database {name} set default_transaction_isolation = '{level}'")
    catalog = Catalog(pg, connections=4)

    def write(number: int) -> None:
        """In one message, and in a transaction of its own on a connection that was read from."""
        catalog.add(f"x{number}")
        catalog.engine.fetch(("SELECT 1", ()))
        with catalog.engine.write() as connection:
            trail.append(catalog.engine, connection, time.time(), DEED)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(40)))
    assert catalog.entries() == 81
    catalog.engine.close()
