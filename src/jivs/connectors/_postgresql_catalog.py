"""What PostgreSQL's system catalogues say about tables."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jivs.connectors import _postgresql_types as types
from jivs.connectors._sql import CUT_SECONDS, refuse_duplicates
from jivs.domain.schema import Column, Table, TableKind, TableName, assign_fields
from jivs.errors import UnreachableError
from jivs.ports.connector import Listing

if TYPE_CHECKING:
    import psycopg

KINDS = {
    "r": TableKind.TABLE,
    "p": TableKind.PARTITIONED,
    "v": TableKind.VIEW,
    "m": TableKind.MATERIALIZED_VIEW,
    "f": TableKind.FOREIGN,
}

_LIST = """
select n.nspname, c.relname, c.relkind::text, c.reltuples::bigint,
       case when c.relkind in ('r','m') then pg_relation_size(c.oid)
            when c.relkind = 'p' then (select coalesce(sum(pg_relation_size(t.relid)),0)::bigint
                                       from pg_partition_tree(c.oid) t where t.isleaf)
            else -1 end
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r','p','v','m','f') and not c.relispartition and c.relpersistence <> 't'
  and n.nspname <> 'information_schema' and n.nspname not like 'pg\\_%'
order by 1, 2
"""

_FOUND = """
select n.nspname, c.relname, c.oid::bigint, c.relkind::text, c.reltuples::bigint,
       case when c.relkind in ('r','m') then pg_table_size(c.oid) else -1 end
from unnest(%s::text[], %s::text[]) as wanted(nspname, relname)
     join pg_namespace n on n.nspname = wanted.nspname
     join pg_class c on c.relnamespace = n.oid and c.relname = wanted.relname
where c.relkind in ('r','p','v','m','f')
"""

_COLUMNS = """
select a.attrelid::bigint, a.attname, a.attnotnull, a.atttypid::bigint, a.atttypmod, format_type(a.atttypid, a.atttypmod),
       a.attgenerated::text, a.attidentity::text, pg_get_expr(d.adbin, d.adrelid), co.collname,
       col_description(a.attrelid, a.attnum)
from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     left join pg_collation co on co.oid = a.attcollation
where a.attrelid = any(%s::oid[]) and a.attnum > 0 and not a.attisdropped order by a.attrelid, a.attnum
"""

_KEY = """
select i.indrelid::bigint, a.attname from pg_index i cross join lateral unnest(i.indkey) with ordinality k(attnum, position)
     join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
where i.indrelid = any(%s::oid[]) and i.indisprimary order by i.indrelid, k.position
"""

_DEFINITIONS = {
    "constraints": "select conrelid::bigint, conname || ' ' || pg_get_constraintdef(oid) from pg_constraint"
    " where conrelid = any(%s::oid[]) order by conrelid, conname",
    "indexes": "select indrelid::bigint, pg_get_indexdef(indexrelid) from pg_index"
    " where indrelid = any(%s::oid[]) order by indrelid, indexrelid",
    "comment": "select oid::bigint, obj_description(oid, 'pg_class') from unnest(%s::oid[]) as wanted(oid)",
    "inherits": "select inhrelid::bigint, inhparent::regclass::text from pg_inherits"
    " where inhrelid = any(%s::oid[]) order by inhrelid, inhseqno",
}
"""Parts of a table's definition, as rows of the table's oid and a text."""

_AT_ONCE = 500
_ENDING_SECONDS = 5.0

_TYPES = """
select t.oid::bigint, t.typname, t.typtype::text, t.typbasetype::bigint, t.typtypmod, n.nspname
from pg_type t join pg_namespace n on n.oid = t.typnamespace
"""


@dataclass(frozen=True)
class Type:
    """A row of pg_type."""

    name: str
    kind: str
    base: int
    typmod: int
    schema: str


def quote(name: str) -> str:
    """An identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def qualified(name: TableName) -> str:
    """A table's name in SQL."""
    return f"{quote(name.schema)}.{quote(name.name)}"


WATCH_WIRE: dict[str, Any] = {
    "keepalives_idle": CUT_SECONDS - 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": CUT_SECONDS * 1000,
}
"""Of a connection, at our end."""


def settings(statement_timeout: int, lock_timeout: int) -> str:
    """What the meaning of text in both directions depends on, as statements, whatever the server was set to."""
    values = {
        "standard_conforming_strings": "on",
        "datestyle": "'ISO, YMD'",
        "intervalstyle": "postgres",
        "timezone": "'UTC'",
        "extra_float_digits": 3,
        "bytea_output": "hex",
        "search_path": "''",
        "row_security": "off",
        "default_transaction_read_only": "on",
        "idle_in_transaction_session_timeout": 0,
        "tcp_keepalives_idle": 10,
        "tcp_keepalives_interval": 5,
        "tcp_keepalives_count": 3,
        "statement_timeout": statement_timeout,
        "lock_timeout": lock_timeout,
        "synchronize_seqscans": "off",
        "jit": "off",
        "client_min_messages": "error",
    }
    return "; ".join(f"set {name} = {value}" for name, value in values.items())


def load_types(connection: psycopg.Connection[Any]) -> dict[int, Type]:
    """All types of the database by oid."""
    return {row[0]: Type(*row[1:]) for row in connection.execute(_TYPES)}


def listings(connection: psycopg.Connection[Any]) -> list[Listing]:
    """Everything that holds or gives rows, but for partitions of partitioned tables."""
    return [
        Listing(
            name=TableName(schema=schema, name=name),
            kind=KINDS[kind],
            estimated_rows=rows if rows > 0 or kind not in "vf" else -1,
            estimated_bytes=size,
        )
        for schema, name, kind, rows, size in connection.execute(_LIST)
    ]


def rule(known: dict[int, Type], oid: int, typmod: int) -> tuple[types.Rule, str]:
    """How a type is archived, and the name of the domain it came in, if any."""
    domain = ""
    type_ = known.get(oid)
    while type_ is not None and type_.kind == "d":
        domain = domain or f"{type_.schema}.{type_.name}"
        typmod = type_.typmod if typmod == -1 else typmod
        oid, type_ = type_.base, known.get(type_.base)
    if type_ is not None and type_.kind == "e":
        return types.SENT_TEXT, domain
    if type_ is None or type_.schema != "pg_catalog" or type_.kind != "b":
        return types.OUTPUT_TEXT, domain
    if type_.name == "numeric":
        return types.numeric(typmod), domain
    return types.RULES.get(type_.name, types.OUTPUT_TEXT), domain


Described = tuple[Table, list[types.Rule], int]
"""A table, the rules of its columns, and its oid."""


def describe(
    connection: psycopg.Connection[Any], known: dict[int, Type], names: Sequence[TableName]
) -> dict[TableName, Described]:
    """Those of the tables that exist, in few statements for all of them."""
    out: dict[TableName, Described] = {}
    for start in range(0, len(names), _AT_ONCE):
        part = names[start : start + _AT_ONCE]
        wanted = ([name.schema for name in part], [name.name for name in part])
        found = connection.execute(_FOUND, wanted).fetchall()
        oids = [row[2] for row in found]
        facts = _by_table(connection, _COLUMNS, oids)
        keys = _by_table(connection, _KEY, oids)
        definitions = {name: _by_table(connection, query, oids) for name, query in _DEFINITIONS.items()}
        for schema, relation, oid, kind, rows, size in found:
            name = TableName(schema=schema, name=relation)
            columns, rules = [], []
            for attname, notnull, type_oid, typmod, formatted, *_ in facts.get(oid, ()):
                chosen, domain = rule(known, type_oid, typmod)
                columns.append(_column(attname, chosen, formatted, nullable=not notnull, domain=domain))
                rules.append(chosen)
            texts = {
                title: [row[0] for row in parts.get(oid, ()) if row[0] is not None] for title, parts in definitions.items()
            }
            table = Table(
                name=name,
                kind=KINDS[kind],
                columns=assign_fields(columns),
                primary_key=tuple(row[0] for row in keys.get(oid, ())),
                estimated_rows=rows if kind not in "vf" else -1,
                estimated_bytes=size,
                ddl=_definition(connection, oid, kind, facts.get(oid, ()), texts),
                notes=_notes(connection, oid, kind),
                in_snapshot=kind != "f" and not _has_foreign_leaf(connection, oid, kind),
            )
            out[name] = table, rules, oid
    return out


def _by_table(connection: psycopg.Connection[Any], query: str, oids: list[int]) -> dict[int, list[tuple[Any, ...]]]:
    """Rows that begin with a table's oid, by that oid."""
    out: dict[int, list[tuple[Any, ...]]] = {}
    for oid, *rest in connection.execute(query, (oids,)):
        out.setdefault(oid, []).append(tuple(rest))
    return out


def leaves(connection: psycopg.Connection[Any], oid: int) -> list[tuple[Any, ...]]:
    """Schema, name, kind of the tables that hold a partitioned table's rows, and whether the account may read them."""
    return connection.execute(
        "select n.nspname, c.relname, c.relkind::text, has_table_privilege(c.oid, 'select')"
        " from pg_partition_tree(%s) t join pg_class c on c.oid = t.relid"
        " join pg_namespace n on n.oid = c.relnamespace where t.isleaf order by 1, 2",
        (oid,),
    ).fetchall()


def leaf_oids(connection: psycopg.Connection[Any], oid: int) -> list[int]:
    """The tables that hold a partitioned table's rows."""
    query = "select relid::oid::bigint from pg_partition_tree(%s) where isleaf"
    return [row[0] for row in connection.execute(query, (oid,)).fetchall()]


def _has_foreign_leaf(connection: psycopg.Connection[Any], oid: int, kind: str) -> bool:
    query = "select count(*) from pg_partition_tree(%s) t join pg_class c on c.oid = t.relid where c.relkind = 'f'"
    return kind == "p" and bool(connection.execute(query, (oid,)).fetchall()[0][0])


def _notes(connection: psycopg.Connection[Any], oid: int, kind: str) -> tuple[str, ...]:
    """What a snapshot or the run's locks do not cover."""
    if kind == "f" or _has_foreign_leaf(connection, oid, kind):
        return ("rows of a foreign server: the snapshot does not cover them",)
    query = (
        "select count(*) from pg_rewrite r join pg_depend d on d.objid = r.oid and d.refclassid = 'pg_proc'::regclass"
        " join pg_proc p on p.oid = d.refobjid where r.ev_class = %s and p.oid >= 16384"
    )
    if kind == "v" and connection.execute(query, (oid,)).fetchall()[0][0]:
        return ("reads through functions: what they read is not locked against TRUNCATE",)
    return ()


def describe_query(
    connection: psycopg.Connection[Any], known: dict[int, Type], name: TableName, query: str
) -> tuple[Table, list[types.Rule]]:
    """A free query presented as a table."""
    cursor = connection.execute(f"select * from ({query}\n) as q limit 0")
    result = cursor.pgresult
    assert result is not None
    columns, rules = [], []
    for index in range(result.nfields):
        oid, typmod = result.ftype(index), result.fmod(index)
        chosen, domain = rule(known, oid, typmod)
        shown = connection.execute("select format_type(%s::oid, %s)", (oid, typmod)).fetchone()
        label = (result.fname(index) or b"").decode()
        columns.append(_column(label, chosen, shown[0] if shown else "", nullable=True, domain=domain))
        rules.append(chosen)
    named = assign_fields(refuse_duplicates(columns, name.name))
    return Table(name=name, kind=TableKind.QUERY, columns=named, ddl=query), rules


def _column(name: str, chosen: types.Rule, formatted: str, *, nullable: bool, domain: str) -> Column:
    return Column(
        name=name,
        field=name,
        type=chosen.archive,
        source_type=formatted,
        fidelity=chosen.fidelity,
        nullable=nullable,
        logical=chosen.logical,
        domain=domain,
    )


def _definition(
    connection: psycopg.Connection[Any], oid: int, kind: str, columns: Sequence[tuple[Any, ...]], texts: dict[str, list[str]]
) -> str:
    """The catalogue's own words: columns, constraints, indexes, view text, partitioning, comment."""
    names = ("name", "not_null", "type_oid", "type_modifier", "type", "generated", "identity", "default", "collation")
    definition: dict[str, Any] = {"columns": [dict(zip((*names, "comment"), row, strict=True)) for row in columns], **texts}

    def one(query: str) -> list[str]:
        return [row[0] for row in connection.execute(query, (oid,)) if row[0] is not None]

    if kind in "vm":
        definition["view"] = one("select pg_get_viewdef(%s::oid)")
    if kind == "p":
        definition["partition_key"] = one("select pg_get_partkeydef(%s)")
        definition["partitions"] = one(
            "select relid::regclass::text from pg_partition_tree(%s) where isleaf order by 1",
        )
    return json.dumps(definition, sort_keys=True, ensure_ascii=False)


def end_others_of_run(connection: psycopg.Connection[Any]) -> None:
    """End what an earlier worker of the run still has open here: it may be frozen, and counts against the source's cap."""
    others = (
        "from pg_stat_activity where application_name = current_setting('application_name') and usename = current_user "
        "and datname = current_database() and pid <> pg_backend_pid()"
    )
    connection.execute(f"select pg_terminate_backend(pid) {others}")
    end = time.monotonic() + _ENDING_SECONDS
    while connection.execute(f"select 1 {others} limit 1").fetchone() is not None:
        connection.execute("select pg_stat_clear_snapshot()")
        if time.monotonic() > end:
            raise UnreachableError("Connections of an earlier worker of this run do not end. Try again in a moment.")
        time.sleep(0.02)
