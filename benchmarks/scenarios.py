"""What is measured: data sets, the contenders for each, and how their results are checked."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import duckdb
import psycopg

from benchmarks import rivals
from benchmarks.rivals import ROOT, environment
from jivs.testing.servers import MariaServer, PostgresServer

DATA = ROOT / "bench-data"
JIVS = str(Path(sys.executable).parent / "jivs")
SUMS = (
    "count(*), sum(l_orderkey), sum(cast(l_extendedprice as decimal(18,2))), sum(cast(l_discount as decimal(18,2))), "
    "min(l_shipdate)::varchar, max(l_receiptdate)::varchar"
)
ORDERS_SUMS = "count(*), sum(o_orderkey), sum(cast(o_totalprice as decimal(18,2))), max(o_orderdate)::varchar"
ORDERS = """o_orderkey bigint not null, o_custkey bigint not null, o_orderstatus char(1) not null, o_totalprice numeric(15,2) not null,
o_orderdate date not null, o_orderpriority char(15) not null, o_clerk char(15) not null, o_shippriority integer not null,
o_comment varchar(79) not null"""
LINEITEM = """l_orderkey bigint not null, l_partkey bigint not null, l_suppkey bigint not null, l_linenumber integer not null,
l_quantity {n}(15,2) not null, l_extendedprice {n}(15,2) not null, l_discount {n}(15,2) not null,
l_tax {n}(15,2) not null, l_returnflag char(1) not null, l_linestatus char(1) not null, l_shipdate date not null,
l_commitdate date not null, l_receiptdate date not null, l_shipinstruct char(25) not null, l_shipmode char(10) not null,
l_comment varchar(44) not null"""
WIDE = """
create table wide as select g as id, g % 2 = 0 as b, (g % 30000)::int2 as i2, g::int4 as i4, g * 1000000007::int8 as i8, g::oid as o,
  (g / 7.0)::float4 as f4, (g / 7.0)::float8 as f8, (g * 1.01)::numeric(12,2) as n2,
  case when g = 3 then 'NaN' else (g * 1.0123456789) end::numeric(38,10) as n10,
  (g / 7.0)::numeric as nu, 'text ' || g as t, ('v' || g)::varchar(40) as v, ('c' || g % 10)::char(8) as c, decode(md5(g::text), 'hex') as y,
  md5(g::text)::uuid as u, case when g = 5 then 'infinity' else date '2000-01-01' + g % 9000 end::date as d,
  time '00:00' + g * interval '1 second' as ti, (time '00:00' + g * interval '1 second')::timetz as tz,
  case when g = 5 then '-infinity' else timestamp '2000-01-01' + g * interval '1 minute' end::timestamp as ts,
  timestamptz '2000-01-01 00:00+00' + g * interval '1 minute' as tsz, g * interval '1 day 1 microsecond' as iv,
  json_build_object('k', g)::json as j, jsonb_build_object('k', g) as jb, array[g, g + 1] as ia, array['a', g::text] as ta,
  ('10.0.' || g % 256 || '.1')::inet as ip, '08:00:2b:01:02:03'::macaddr as mac, (g % 256)::bit(8) as bi, (g::numeric / 100)::money as m,
  int4range(g, g + 5) as r, to_tsvector('simple', 'word ' || g) as tv, point(g, g) as p
from generate_series(1, 1000000) g
"""
TEXTS = """
create table texts as select g as id, repeat(md5(g::text) || ' ', 20 + g % 60) as body, 'título ' || g || ' ñ€😀' as title
from generate_series(1, 200000) g
"""


@dataclass(kw_only=True)
class Scenario:
    """One table, or one schema, of one source."""

    name: str
    title: str
    kind: str
    url: str
    table: str
    rivals: tuple[str, ...]
    server: int | None = None
    expected: tuple[Any, ...] = ()
    levels: tuple[str, ...] = ("count",)
    batches: tuple[int, ...] = ()
    probes: dict[str, tuple[str, Any]] = field(default_factory=dict)
    sums: str = "count(*), sum(id)"
    note: str = ""

    def contenders(self) -> dict[str, Callable[[Path], list[str]]]:
        """Name -> command line for an output folder."""
        words = {"count": "count verified", "none": "not verified", "full": "fully verified"}
        chosen = self.table if "*" in self.table or self.kind == "sqlite" else self.table.rpartition(".")[2]
        base = [JIVS, "extract", self._own_url(), "--table", chosen, "--progress", "none"]
        out: dict[str, Callable[[Path], list[str]]] = {
            f"JiVS, {words[level]}": lambda out, level=level: [*base, "--verify", level, "--to", str(out)]  # type: ignore[misc]
            for level in self.levels
        }
        for rows in self.batches:
            limited = ["env", f"EXTRACTION_BATCH_SIZE={rows}", *base, "--verify", self.levels[0]]
            out[f"EXTRACTION_BATCH_SIZE={rows}"] = lambda out, limited=limited: [*limited, "--to", str(out)]  # type: ignore[misc]
        for rival in self.rivals:
            out[rival] = lambda out, rival=rival: rivals.command(rival, self.kind, self._url_of(rival), self.table, out)  # type: ignore[misc]
        return out

    def _own_url(self) -> str:
        return self.url + {"postgres": "?sslmode=disable", "mysql": "?ssl_mode=disabled"}.get(self.kind, "")

    def _url_of(self, rival: str) -> str:
        if self.kind == "sqlite" and rival.startswith("DuckDB"):
            return self.url.removeprefix("sqlite:///")
        if self.kind == "mysql":
            return self.url.replace("mariadb://", "mysql://")
        return self.url + ("?sslmode=disable" if self.kind == "postgres" else "")

    def check(self, out: Path) -> str:
        """Whether the files hold the same rows: exact, or in what they differ."""
        files = [str(path) for path in out.rglob("*.parquet") if "quarantine" not in path.parts]
        if self.table.endswith(".*"):
            found = duckdb.sql(f"select count(*), sum(id) from read_parquet({files}, union_by_name = true)").fetchall()[0]
            return "exact" if (len(files), *found) == self.expected else f"WRONG: {(len(files), *found)}"
        source = f"read_parquet({files}, union_by_name = true)"
        try:
            row = duckdb.sql(f"select {self.sums} from {source}").fetchall()[0]
        except duckdb.Error as error:
            return f"unreadable: {str(error).splitlines()[0][:60]}"
        if tuple(map(number, row)) != tuple(map(number, self.expected)):
            return f"WRONG: {row[0]} rows" if row[0] != self.expected[0] else "sums differ"
        bent = []
        for what, (query, wanted) in self.probes.items():
            try:
                if duckdb.sql(query.format(source=source)).fetchall()[0][0] != wanted:
                    bent.append(what)
            except duckdb.Error:
                bent.append(what)
        return f"bent: {', '.join(bent)}" if bent else "exact"


def number(value: object) -> object:
    """Numbers by their value, whatever their type; everything else as text."""
    try:
        return round(Decimal(str(value)), 2)
    except InvalidOperation:
        return str(value)


def table_file(name: str, scale: float) -> Path:
    """A table of TPC-H, made by tpchgen-cli."""
    DATA.mkdir(exist_ok=True)
    source = DATA / f"{name}-{scale:g}.tbl"
    if not source.exists():
        generator = environment("tpchgen", "tpchgen-cli") / "tpchgen-cli"
        folder = Path(tempfile.mkdtemp(dir=DATA))
        subprocess.run([generator, "tbl", "-s", str(scale), f"--tables={name}", "-o", folder], check=True)
        (folder / f"{name}.tbl").rename(source)
        shutil.rmtree(folder)
    return source


def postgres(server: PostgresServer, scale: float, tables: int) -> list[Scenario]:
    """PostgreSQL's data sets."""
    assert server.process is not None
    url, crowded = server.create("tpch"), server.create("crowded")
    with psycopg.connect(crowded, autocommit=True) as connection:
        connection.execute("create schema many")
        for start in range(0, tables, 100):
            with connection.transaction():
                for number_ in range(start, min(tables, start + 100)):
                    connection.execute(
                        f"create table many.t{number_:05d} as select g as id, 'name ' || g as name, g * 1.25 as amount,"
                        " timestamp '2020-01-01' + g * interval '1 hour' as at from generate_series(1, 100) g"
                    )
        connection.execute("analyze")
    with psycopg.connect(url, autocommit=True) as connection:
        for table, columns in (("lineitem", LINEITEM.format(n="numeric")), ("orders", ORDERS)):
            connection.execute(f"create table {table} ({columns})")
            with (
                connection.cursor() as cursor,
                cursor.copy(f"copy {table} from stdin with (delimiter '|')") as copy,
                table_file(table, scale).open("rb") as rows,
            ):
                while block := rows.readlines(1 << 20):
                    copy.write(b"".join(line.rstrip(b"|\n") + b"\n" for line in block))
        connection.execute(WIDE)
        connection.execute(TEXTS)
        connection.execute("create table one as select 1 as id")
        connection.execute("vacuum analyze")
        sums = connection.execute(f"select {SUMS} from lineitem").fetchall()[0]
        orders = connection.execute(f"select {ORDERS_SUMS} from orders").fetchall()[0]
    given = {"kind": "postgres", "url": url, "server": server.process.pid}
    many = given | {"url": crowded}
    main_rivals = ("DuckDB 1.5.5", "connectorx 0.4.6", "ADBC 1.13")
    exact = {
        "decimals": ("select count(*) from {source} where typeof(l_tax) not like 'DECIMAL(%,2)'", 0),
        "padding of char(n)": ("select max(length(l_shipmode)) + min(length(l_shipmode)) from {source}", 20),
    }
    return [
        Scenario(name="postgresql-lineitem", title=f"PostgreSQL, `lineitem` of TPC-H, scale {scale:g}: {sums[0]:,} rows of 16 columns",
                 table="public.lineitem", rivals=(*main_rivals, "polars 2.1 with connectorx", "rivet 0.32.2"), expected=sums, sums=SUMS,
                 levels=("none", "count", "full"), probes=exact, **given),
        Scenario(name="postgresql-batches", title=f"PostgreSQL, `lineitem` in batches of so many rows: {sums[0]:,} rows of 16 columns",
                 table="public.lineitem", rivals=(), expected=sums, sums=SUMS, levels=("none",), batches=(2000, 1000, 500, 100), probes=exact, **given),
        Scenario(name="postgresql-orders", title=f"PostgreSQL, `orders`: {orders[0]:,} rows of 9 columns", table="public.orders",
                 rivals=main_rivals, expected=orders, sums=ORDERS_SUMS, levels=("none", "count"), **given),
        Scenario(name="postgresql-wide", title="PostgreSQL, a table of 33 types, 1,000,000 rows",
                 table="public.wide", rivals=main_rivals, expected=(1000000, 1000000 * 1000001 // 2), levels=("none", "count", "full"),
                 probes={
                     "numeric NaN": ("select count(*) from {source} where n10 = 0", 0),
                     "numeric without precision": ("select nu::varchar from {source} where id = 1", "0.14285714285714285714"),
                     "padding of char(n)": ("select length(c) from {source} where id = 1", 8),
                 }, **given),
        Scenario(name="postgresql-texts", title="PostgreSQL, 200,000 rows of long texts",
                 table="public.texts", rivals=main_rivals, expected=(200000, 200000 * 200001 // 2), **given),
        Scenario(name="postgresql-many", title=f"PostgreSQL, a schema of {tables:,} tables of 100 rows",
                 table="many.*", rivals=("DuckDB 1.5.5", "ADBC 1.13"), expected=(tables, 100 * tables, 5050 * tables), levels=("none", "count"), **many),
        Scenario(name="postgresql-one", title="PostgreSQL, a table of one row", table="public.one", rivals=main_rivals, expected=(1, 1),
                 **given),
    ]  # fmt: skip


def tenfold(lineitem: Scenario) -> Scenario:
    """The same table ten times as long; makes it."""
    with psycopg.connect(lineitem.url, autocommit=True) as connection:
        connection.execute("create table lineitem_10 (like lineitem)")
        for number in range(10):  # one copy after the other, with keys of its own
            others = "l_partkey, l_suppkey, l_linenumber, l_quantity, l_extendedprice, l_discount, l_tax, l_returnflag, l_linestatus, l_shipdate, l_commitdate, l_receiptdate, l_shipinstruct, l_shipmode, l_comment"
            connection.execute(f"insert into lineitem_10 select l_orderkey + {number} * 6000000, {others} from lineitem")
        connection.execute("vacuum analyze lineitem_10")
        sums = connection.execute(f"select {SUMS} from lineitem_10").fetchall()[0]
    return replace(
        lineitem,
        name="postgresql-tenfold",
        title=f"PostgreSQL, `lineitem` ten times over: {sums[0]:,} rows of 16 columns",
        table="public.lineitem_10",
        rivals=("DuckDB 1.5.5",),
        levels=("none",),
        expected=sums,
    )


def mariadb(server: MariaServer, scale: float) -> list[Scenario]:
    """MariaDB's data sets."""
    assert server.process is not None
    with server.connect("mysql", local_infile=True) as connection, connection.cursor() as cursor:
        cursor.execute("set global local_infile = 1")
        cursor.execute("create database tpch")
        columns = LINEITEM.format(n="decimal")
        cursor.execute(f"create table tpch.lineitem ({columns}, primary key (l_orderkey, l_linenumber))")
        file = table_file("lineitem", scale)
        cursor.execute(f"load data local infile '{file}' into table tpch.lineitem fields terminated by '|'")
        cursor.execute("analyze table tpch.lineitem")
        cursor.execute(f"select {SUMS.replace('::varchar', '')} from tpch.lineitem")
        sums = cursor.fetchall()[0]
    return [
        Scenario(name="mariadb-lineitem", title=f"MariaDB, `lineitem`: {sums[0]:,} rows", kind="mysql", url=server.url("tpch"),
                 server=server.process.pid, table="lineitem", rivals=("DuckDB 1.5.5", "connectorx 0.4.6"), expected=sums, sums=SUMS,
                 levels=("none", "count", "full"),
                 probes={"decimals": ("select count(*) from {source} where typeof(l_tax) not like 'DECIMAL(%,2)'", 0)}),
    ]  # fmt: skip


def sqlite(scale: float) -> list[Scenario]:
    """SQLite's data set; decimals are doubles in it."""
    path = DATA / f"lineitem-{scale:g}.db"
    if not path.exists():
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        connection = sqlite3.connect(fresh)
        connection.execute("pragma journal_mode = off")
        connection.execute(f"create table lineitem ({LINEITEM.format(n='decimal').replace('bigint', 'integer')})")
        with table_file("lineitem", scale).open() as rows:
            split = (line.rstrip("\n").split("|")[:16] for line in rows)
            connection.executemany(f"insert into lineitem values ({','.join('?' * 16)})", split)
        connection.commit()
        connection.close()
        fresh.rename(path)
    connection = sqlite3.connect(path)
    query = (
        "count(*), sum(l_orderkey), sum(cast(round(l_extendedprice * 100) as integer)) / 100.0, "
        "sum(cast(round(l_discount * 100) as integer)) / 100.0, min(l_shipdate), max(l_receiptdate)"
    )
    sums = connection.execute(f"select {query} from lineitem").fetchall()[0]
    connection.close()
    return [
        Scenario(name="sqlite-lineitem", title=f"SQLite, `lineitem`: {sums[0]:,} rows", kind="sqlite", url=f"sqlite:///{path}",
                 table="lineitem", rivals=("DuckDB 1.5.5", "connectorx 0.4.6", "ADBC 1.13"), expected=sums, sums=SUMS,
                 levels=("none", "count", "full"), note="Types by value: JiVS counts classes first, and reads then."),
    ]  # fmt: skip
