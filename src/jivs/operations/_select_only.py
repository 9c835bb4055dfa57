"""SQL that users write for sources: it reads, and nothing else."""

from __future__ import annotations

from jivs.errors import DriverMissingError, UsageError

_DIALECTS = {"postgresql": "postgres", "postgres": "postgres", "mysql": "mysql", "mariadb": "mysql", "sqlite": "sqlite"}
_REACHING = frozenset(
    {
        "pg_read_file", "pg_read_binary_file", "pg_ls_dir", "pg_stat_file", "lo_import", "lo_export", "lo_get", "lo_put",
        "dblink", "dblink_exec", "dblink_connect", "dblink_send_query", "query_to_xml", "database_to_xml", "cursor_to_xml",
        "pg_terminate_backend", "pg_cancel_backend", "pg_reload_conf", "pg_rotate_logfile", "set_config", "pg_notify",
        "pg_advisory_lock", "pg_try_advisory_lock", "pg_logical_emit_message", "nextval", "setval",
        "load_file", "sleep", "benchmark", "get_lock", "release_lock", "sys_exec", "sys_eval",
        "load_extension", "readfile", "writefile", "edit", "fts3_tokenizer",
    }
)  # fmt: skip
"""Functions that reach files, other servers, other sessions, or change something although a transaction only reads."""


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
    try:
        found = sqlglot.parse(sql, read=_DIALECTS.get(scheme))
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
            if name in _REACHING:
                raise UsageError(f"{what} calls {name}, which does more than read tables.")


def require_condition(sql: str, scheme: str) -> None:
    """``require_select`` for what stands behind WHERE."""
    require_select(f"SELECT 1 FROM t WHERE ({sql}\n)", scheme, "where")  # parsed, never run
