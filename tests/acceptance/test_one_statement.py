"""What users write for PostgreSQL is one statement, whatever stands in it: the server sees to it."""

from __future__ import annotations

from contextlib import suppress

import psycopg
import pytest

from jivs.errors import JivsError
from tests.acceptance.test_postgresql import make
from tests.conftest import Run


@pytest.mark.parametrize("where", [False, True])
def test_of_what_a_user_writes_the_server_takes_one_statement(pg: str, run: Run, where: bool) -> None:
    make(pg, "create table t as select 1 as a", "create table victim as select 1 as a")
    more = " limit 0; commit; begin read write; delete from public.victim; commit; begin; select * from "
    query, condition = f"select 1 as a) as q{more}(select 1 as a", f"true){more}public.t where (true"
    given = {"where": condition, "tables": ("public.t",)} if where else {"queries": (("q", query),)}
    with suppress(JivsError):
        assert not run(pg, **given).complete
    with psycopg.connect(pg) as connection:
        assert connection.execute("select count(*) from victim").fetchone() == (1,)
