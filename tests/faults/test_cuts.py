"""The wire to a worker is cut without a word, in a network of our own: its run goes on elsewhere, and so does it afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from jivs.testing.network import FarPostgres, Network
from jivs.testing.servers import wait_for

from .scenes import ENDED, Scene, fill, scene


@contextmanager
def far_scene(tmp_path: Path, database: Path, network: Network, server: FarPostgres, *, pace: int) -> Iterator[Scene]:
    """A service near the catalog, and a worker on each of two sides of the network."""
    beside = [
        {"inside": network.inside(side), "settings": {"DATABASE_URL": server.far("catalog", "catalog")}} for side in (1, 2)
    ]
    catalog = server.create("catalog")
    fill(server.create("source"))
    source = server.far("source", "source")
    more = {"EXTRACTION_MAX_PARALLEL_JOBS": "2"}
    with scene(tmp_path, database, source=source, catalog=catalog, beside=beside, pace=pace, **more) as at:
        yield at


def backends(server: FarPostgres, side: int, database: str) -> int:
    """How many connections from that side PostgreSQL believes to have."""
    query = "select count(*) from pg_stat_activity where datname = %s and client_addr << %s::inet"
    with psycopg.connect(server.url("postgres")) as connection:
        row = connection.execute(query, (database, f"10.77.{16 * side}.0/20")).fetchone()
    assert row is not None
    return int(row[0])


def test_the_wire_between_a_worker_and_the_catalog_is_cut(tmp_path: Path, database: Path) -> None:
    with (
        Network(2) as network,
        FarPostgres(network) as server,
        far_scene(tmp_path, database, network, server, pace=60_000) as at,
    ):
        at.start_everywhere()
        cut = len(at.workers_of(at.beside[0]))
        network.cut(1, "catalog")
        wait_for(lambda: backends(server, 1, "source") == 0, 10)  # it stops reading when its lease is over
        at.wait(lambda runs: sum(run["failures"] for run in runs) >= cut, 20)  # five seconds where nothing else runs
        at.wait(lambda runs: all(run["state"] in ENDED for run in runs))
        network.heal(1, "catalog")
        at.all_end_well()
        at.start_everywhere()
        at.all_end_well()


def test_the_wire_between_a_worker_and_the_source_is_cut_for_a_moment(tmp_path: Path, database: Path) -> None:
    with (
        Network(2) as network,
        FarPostgres(network) as server,
        far_scene(tmp_path, database, network, server, pace=60_000) as at,
    ):
        at.start_everywhere()
        wait_for(lambda: backends(server, 1, "source") == 6, 10)  # who connects meanwhile is told that there is no way
        network.cut(1, "source")
        time.sleep(3)
        network.heal(1, "source")
        at.all_end_well()
        assert sum(run["failures"] for run in at.runs()) == 0, ("TCP has not brought what was lost", at.runs(), at.printed())


@pytest.mark.soak
def test_the_wire_between_a_worker_and_the_source_is_cut_for_long(tmp_path: Path, database: Path) -> None:
    """The source never says that it is gone; nothing waits for ever."""
    with (
        Network(2) as network,
        FarPostgres(network) as server,
        far_scene(tmp_path, database, network, server, pace=60_000) as at,
    ):
        at.start_everywhere()
        cut = len(at.workers_of(at.beside[0]))
        began = time.monotonic()
        network.cut(1, "source")
        at.wait(lambda runs: sum(run["failures"] for run in runs) >= cut, 90)
        assert 15 < time.monotonic() - began < 60
        network.heal(1, "source")
        at.all_end_well()
