"""SQL that users write for sources: it reads, and nothing else."""

from __future__ import annotations

import re

from jivs.errors import DriverMissingError, UsageError

_DIALECTS = {"postgresql": "postgres", "postgres": "postgres", "mysql": "mysql", "mariadb": "mysql", "sqlite": "sqlite"}
_REACHING = re.compile(
    r"""
    pg_(?!(?:typeof|get_\w+|column_size|size_pretty|\w*relation_size|table_size|indexes_size|database_size|collation_for
        |encoding_to_char|char_to_encoding|client_encoding|input_is_valid|is_in_recovery|postmaster_start_time)$)\w+
    | lo_\w+ | dblink\w* | (?:query|cursor|table|schema|database)_to_xml\w* | https?(?:_\w+)? | aws_\w+ | postgres_fdw_\w+
    | set_config | nextval | setval | next_value_for
    | sys_\w+ | lib_mysqludf_\w+ | load_file | sleep | benchmark | get_lock | release_lock | release_all_locks
    | (?:master|source)_\w+_wait | wait_(?:for|until)_\w+
    | load_extension | readfile | writefile | fsdir | edit | fts3_tokenizer
    | .*[^\w$].*
    """,
    re.VERBOSE,
)
"""Functions that reach files, other servers, other sessions, wait, or change something although a transaction only reads;
and names that are written so that they are not seen for what they are.
"""

_RUN_ANYWAY = ("!", "M!")
"""Comments of MySQL and MariaDB that begin so are no comments."""

_STEERING = re.compile(r"\b(?:set_var|resource_group)\b", re.IGNORECASE)
"""Hints of MySQL that set variables of the session, or whom it runs for."""


def require_select(sql: str, scheme: str, what: str) -> None:
    """Raises UsageError for anything but one SELECT. ``what`` names the SQL in the error.

    The text is parsed in the dialect of the source; what cannot be parsed is refused, and the source runs the rest in a
    transaction that only reads.
    """
    try:
        import sqlglot
        from sqlglot import exp
        from sqlglot.errors import SqlglotError
    except ImportError:
        raise DriverMissingError("Checking SQL needs a package that is not installed: pip install 'jivs[service]'") from None
    dialect = _DIALECTS.get(scheme)
    try:
        comments = [comment for token in sqlglot.tokenize(sql, read=dialect) for comment in token.comments]
        found = sqlglot.parse(sql, read=dialect)
    except (SqlglotError, RecursionError):
        raise UsageError(f"{what} cannot be read as one SELECT in the source's SQL.") from None
    if dialect == "mysql" and any(one.startswith(_RUN_ANYWAY) or _STEERING.search(one) for one in comments):
        raise UsageError(f"{what} has a comment that the source would run: write it without.")
    statements = [one for one in found if one is not None]
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise UsageError(f"{what} is not one SELECT: a source is only read.")
    writing = (exp.DML, exp.DDL, exp.Command, exp.Into, exp.Lock, exp.Set, exp.Pragma)
    for node in statements[0].walk():
        if isinstance(node, writing) and not isinstance(node, exp.Query):
            raise UsageError(f"{what} would change something or lock rows: a source is only read.")
        if isinstance(node, exp.Func):
            name = (node.name if isinstance(node, exp.Anonymous) else node.sql_name()).casefold()
            schema = node.parent.left.name.casefold() if isinstance(node.parent, exp.Dot) else ""
            if _REACHING.fullmatch(name) or schema.startswith("aws_"):
                raise UsageError(f"{what} calls {name}, which does more than read tables.")


def require_condition(sql: str, scheme: str) -> None:
    """``require_select`` for what stands behind WHERE."""
    require_select(f"SELECT 1 FROM t WHERE ({sql}\n)", scheme, "where")  # parsed, never run
