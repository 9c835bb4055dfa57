"""SQL that users write for sources: it reads, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jivs.errors import DriverMissingError, UsageError

if TYPE_CHECKING:
    from sqlglot import Token

_DIALECTS = {"postgresql": "postgres", "postgres": "postgres", "mysql": "mysql", "mariadb": "mysql", "sqlite": "sqlite"}
_REACHING = re.compile(
    r"""
    pg_(?!(?:typeof|get_\w+|column_size|size_pretty|\w*relation_size|table_size|indexes_size|database_size|collation_for
        |encoding_to_char|char_to_encoding|client_encoding|input_is_valid|is_in_recovery|postmaster_start_time)$)\w+
    | lo_\w+ | dblink\w* | (?:query|cursor|table|schema|database)_to_xml\w* | https?(?:_\w+)? | aws_\w+ | postgres_fdw_\w+
    | set_config | nextval | setval | next_value_for
    | sys_\w+ | lib_mysqludf_\w+ | load_file | sleep | benchmark | get_lock | release_lock | release_all_locks
    | (?:master|source)_\w+_wait | wait_(?:for|until)_\w+
    | ts_stat | ts_rewrite | crosstab\w* | connectby | xpath_table | loread | lowrite | binary_upgrade_\w+ | brin_\w+
    | gin_clean\w*
    | group_replication_\w+ | asynchronous_connection_failover_\w+ | keyring_\w+
    | load_extension | readfile | writefile | fsdir | edit | fts3_tokenizer
    | .*[^\w$].*
    """,
    re.VERBOSE,
)
"""Functions that reach files, other servers, other sessions, wait, or change something although a transaction only reads;
and names that are written so that they are not seen for what they are.
"""

_PLAIN_SCHEMAS = {"", "pg_catalog"}
"""Whose functions may be called by name and schema: what others have is whatever an extension or somebody put there."""

_SIGNS = {
    "": r"--|/\*|\*/|\{[#%{]",
    "postgres": r"\$\w*\$|(?<!\w)(?:e|u&)'",
    "mysql": r"\#|\{\s*[\w`]",
}
"""What the source may read otherwise than the parser here does: comments, which nest in one and not in the other or are run,
templates, texts with quotes of their own. Refused wherever it stands, within a text too: where a text ends is the question.
"""

_DEEPEST = 4
"""Names of types that take each other as arguments: the parser tries each in two ways."""


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
    for signs in (_SIGNS[""], _SIGNS.get(dialect or "")):
        if signs and (sign := re.search(signs, sql, re.IGNORECASE)):
            raise UsageError(
                f"{what} has {sign[0]}: comments, texts in $$ or E'', and what looks like one of them, also within a text, "
                "are not taken. Write it in another way: '-' || '-' is a text of two."
            )
    try:
        _require_shallow(sqlglot.tokenize(sql, read=dialect), what)
        found = sqlglot.parse(sql, read=dialect)
    except (SqlglotError, RecursionError):
        raise UsageError(f"{what} cannot be read as one SELECT in the source's SQL.") from None
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
            if _REACHING.fullmatch(name):
                raise UsageError(f"{what} calls {name}, which does more than read tables.")
            if schema not in _PLAIN_SCHEMAS:
                raise UsageError(f"{what} calls {schema}.{name}: of functions, only those of the database itself are taken.")


def _require_shallow(tokens: Sequence[Token], what: str) -> None:
    """Refuse what would keep the parser busy for hours: it doubles its work with each name of a type within another's."""
    from sqlglot import TokenType
    from sqlglot.parser import Parser

    opening = {TokenType.L_PAREN, TokenType.L_BRACKET}
    closing = {TokenType.R_PAREN, TokenType.R_BRACKET}
    open_: list[bool] = []
    angles, before = 0, None
    for token in tokens:
        kind = token.token_type
        typed = before in Parser.TYPE_TOKENS
        if kind in opening:
            open_.append(typed)
        elif kind in closing and open_:
            open_.pop()
        angles += typed and kind is TokenType.LT
        if sum(open_) + angles > _DEEPEST:
            raise UsageError(f"{what} has more than {_DEEPEST} types within each other.")
        before = kind


def require_condition(sql: str, scheme: str) -> None:
    """``require_select`` for what stands behind WHERE."""
    require_select(f"SELECT 1 FROM t WHERE ({sql}\n)", scheme, "where")  # parsed, never run
