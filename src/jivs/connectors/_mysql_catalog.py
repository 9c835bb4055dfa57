"""What MySQL and MariaDB say about tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from jivs.connectors import _mysql_types as types
from jivs.connectors._sql import narrow, refuse_duplicates
from jivs.domain.schema import Column, Table, TableKind, TableName, assign_fields
from jivs.errors import UsageError
from jivs.ports.connector import Listing, Narrowing

Described = tuple[Table, list[types.Rule], int]


def quote(name: str) -> str:
    """An identifier in SQL."""
    return "`" + name.replace("`", "``") + "`"


def qualified(name: TableName) -> str:
    """A table's name in SQL."""
    return f"{quote(name.schema)}.{quote(name.name)}"


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Describes tables; ``rows`` runs a small query."""

    rows: Callable[..., list[tuple[Any, ...]]]
    narrowing: Narrowing

    def describe(self, name: TableName, listing: Listing) -> Described:
        """A table, the rules of its columns, and the bytes that a row can have at most (-1: unbounded)."""
        facts = self.rows(
            "select column_name, data_type, column_type, is_nullable, numeric_precision, numeric_scale,"
            " character_set_name, character_octet_length, extra, column_default, collation_name, column_comment"
            " from information_schema.columns where table_schema = %s and table_name = %s order by ordinal_position",
            [name.schema, name.name],
        )
        if not facts:
            raise UsageError(f"There is no table {name}. jivs discover lists what there is.")
        columns, rules, widest = [], [], 0
        for column, data_type, column_type, nullable, precision, scale, charset, octets, *_ in facts:
            fact = types.Facts(
                data_type=data_type.lower(),
                unsigned="unsigned" in column_type,
                zerofill="zerofill" in column_type,
                precision=int(precision or 0),
                scale=int(scale or 0),
                charset=charset or "",
            )
            chosen = types.rule(fact)
            rules.append(chosen)
            columns.append(_column(column, chosen, column_type, nullable=nullable == "YES"))
            widest = -1 if widest < 0 or fact.data_type in types.UNBOUNDED else widest + int(octets or 40)
        definition = {
            "columns": [list(row) for row in facts],
            "create": self.rows(f"show create table {qualified(name)}")[0][1],
        }
        table = Table(
            name=name,
            kind=listing.kind,
            columns=assign_fields(columns),
            primary_key=self._key(name),
            estimated_rows=listing.estimated_rows,
            estimated_bytes=listing.estimated_bytes,
            ddl=json.dumps(definition, ensure_ascii=False, sort_keys=True),
            notes=listing.notes,
            in_snapshot=not any("ignores snapshots" in note for note in listing.notes),
        )
        by_name = {column.name: rule for column, rule in zip(table.columns, rules, strict=True)}
        kept = narrow(table.columns, self.narrowing, str(name))
        return replace(table, columns=tuple(kept)), [by_name[column.name] for column in kept], widest

    def _key(self, name: TableName) -> tuple[str, ...]:
        rows = self.rows(
            "select column_name from information_schema.key_column_usage where constraint_name = 'PRIMARY'"
            " and table_schema = %s and table_name = %s order by ordinal_position",
            [name.schema, name.name],
        )
        return tuple(row[0] for row in rows)

    def describe_query(self, connection: Any, name: TableName, query: str, collations: dict[int, str]) -> Described:
        """A free query presented as a table."""
        with connection.cursor() as cursor:
            cursor.execute(f"select * from ({query}\n) as q limit 0")
            fields = cursor._result.fields  # noqa: SLF001 - the driver's only way to a column's character set
        columns, rules = [], []
        for item in fields:
            fact = _facts_of_field(item, collations)
            chosen = types.rule(fact)
            rules.append(chosen)
            label = item.name if isinstance(item.name, str) else item.name.decode()
            columns.append(_column(label, chosen, fact.data_type, nullable=True))
        named = assign_fields(refuse_duplicates(columns, name.name))
        return Table(name=name, kind=TableKind.QUERY, columns=named, ddl=query), rules, -1


def _facts_of_field(item: Any, collations: dict[int, str]) -> types.Facts:
    """The facts of a result's column, from its protocol description."""
    from pymysql.constants import FIELD_TYPE, FLAG

    names = {
        FIELD_TYPE.TINY: "tinyint", FIELD_TYPE.SHORT: "smallint", FIELD_TYPE.INT24: "mediumint", FIELD_TYPE.LONG: "int",
        FIELD_TYPE.LONGLONG: "bigint", FIELD_TYPE.FLOAT: "float", FIELD_TYPE.DOUBLE: "double",
        FIELD_TYPE.NEWDECIMAL: "decimal", FIELD_TYPE.DECIMAL: "decimal", FIELD_TYPE.DATE: "date",
        FIELD_TYPE.NEWDATE: "date", FIELD_TYPE.DATETIME: "datetime", FIELD_TYPE.TIMESTAMP: "timestamp",
        FIELD_TYPE.TIME: "time", FIELD_TYPE.YEAR: "year", FIELD_TYPE.BIT: "bit", FIELD_TYPE.GEOMETRY: "geometry",
    }  # fmt: skip
    unsigned = bool(item.flags & FLAG.UNSIGNED)
    binary = item.charsetnr == 63
    data_type = names.get(item.type_code, "longblob" if binary else "longtext")
    return types.Facts(
        data_type=data_type,
        unsigned=unsigned,
        zerofill=bool(item.flags & FLAG.ZEROFILL),
        precision=item.length - (0 if unsigned else 1) - (1 if item.scale else 0) if data_type == "decimal" else 0,
        scale=item.scale,
        charset="" if binary else collations.get(item.charsetnr, "utf8mb4"),
    )


def _column(name: str, chosen: types.Rule, source_type: str, *, nullable: bool) -> Column:
    return Column(
        name=name,
        field=name,
        type=chosen.archive,
        source_type=source_type,
        fidelity=chosen.fidelity,
        nullable=nullable,
        logical=chosen.logical,
    )
