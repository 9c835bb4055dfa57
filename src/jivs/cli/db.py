"""``jivs db``: the catalog's database, for who operates it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jivs.cli import exits
from jivs.cli.frame import Output, OutputOption, build_upkeep, clear_errors, console, load_settings, show_json
from jivs.errors import JivsError

if TYPE_CHECKING:
    from jivs.operations.catalog_check import Report

app = typer.Typer(help="The catalog's database: its schema, backups, and whether it is sound.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(help="File of the backup.", show_default=False)]


@app.command()
def upgrade(output: OutputOption = Output.TEXT) -> None:
    """Bring the catalog's schema to this version's, or make the catalog. Of several at once one does it."""
    with clear_errors(output):
        upkeep, _ = build_upkeep()
        before = upkeep.version()
        upkeep.upgrade()
        after = upkeep.version()
        if output is Output.JSON:
            show_json({"catalog": upkeep.shown, "from": before or None, "to": after})
        elif before == after:
            console().print(f"{upkeep.shown} has schema {after} already.")
        else:
            console().print(f"{upkeep.shown}: from {f'schema {before}' if before else 'nothing'} to schema {after}.")


@app.command()
def backup(file: FileArgument, output: OutputOption = Output.TEXT) -> None:
    """Save the catalog in a file, while the service goes on. An older backup of that name is replaced."""
    with clear_errors(output):
        from jivs.operations import backup as run

        made = run.backup(*build_upkeep(), file)
        if output is Output.JSON:
            show_json({"file": str(file), **made.to_json()})
            return
        console().print(f"{file}: schema {made.schema}, {made.size / 1e6:,.1f} MB, SHA-256 {made.sha256}")
        print(_KEYS, file=sys.stderr)


_KEYS = "The keys (ENCRYPTION_KEY, JWT_SECRET, or keys.json beside an SQLite catalog) are not in it: keep a copy elsewhere."


@app.command()
def restore(
    file: FileArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Also while others use the catalog, or where it cannot be saved first.")
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Put a backup in the place of the catalog, all or nothing. What was there is saved beside the backup first."""
    with clear_errors(output):
        from jivs.operations import backup as run

        upkeep, clock = build_upkeep()
        done = run.restore(upkeep, clock, file, force=force)
        _forget_cached()
        if output is Output.JSON:
            show_json(
                {
                    "catalog": upkeep.shown,
                    "backup": done.backup.to_json(),
                    "schema": done.schema,
                    "kept": done.kept or None,
                }
            )
            return
        console().print(f"{upkeep.shown} is as it was at {done.backup.created}, with schema {done.schema}.")
        if done.kept:
            console().print(f"What was there before: {done.kept}")
        print("All sessions have ended. See whether all agrees: jivs db check", file=sys.stderr)


def _forget_cached() -> None:
    """What Redis has is of another catalog now."""
    from jivs.bootstrap import build_service

    loaded = load_settings()
    if not loaded.redis_host:
        return
    try:
        cache = build_service(loaded).cache
        cache.clear()
        forgotten = cache.healthy()
        cache.close()
    except JivsError as error:
        print(error.message, file=sys.stderr)
        forgotten = False
    if not forgotten:
        print(
            "Redis may still have copies of what was there before: FLUSHALL it before the service starts.", file=sys.stderr
        )


@app.command("turn-keys")
def turn_keys(output: OutputOption = Output.TEXT) -> None:
    """Encrypt all passwords of sources with the newest key. When it is done, the older keys can be dropped."""
    with clear_errors(output):
        from jivs.bootstrap import build_service
        from jivs.operations.sources import turn_keys as run

        turned, passwords = run(build_service(load_settings()), "command line")
        if output is Output.JSON:
            show_json({"turned": turned, "passwords": passwords})
        else:
            console().print(f"{turned} of {passwords} passwords were under an older key; all are under the newest one now.")


@app.command()
def check(output: OutputOption = Output.TEXT) -> None:
    """Read all of the catalog: is it whole, and does it agree with the keys and the archives?"""
    with clear_errors(output):
        from jivs.bootstrap import build_service
        from jivs.operations.catalog_check import check as run

        report = run(build_upkeep()[0], lambda: build_service(load_settings()))
        if output is Output.JSON:
            show_json(report.to_json())
        else:
            _show(report)
        code = exits.INCOMPLETE if report.damaged else exits.USAGE if report.wrong_key else exits.DONE
        raise typer.Exit(code)


def _show(report: Report) -> None:
    out = console()
    for finding in report.findings:
        out.print(f"{finding.severity.value.upper()} {finding.code}: {finding.object}: {finding.message}")
    verdict = "SOUND" if report.sound else "NOT SOUND"
    out.print(
        f"{verdict}: {report.catalog}, schema {report.schema or 'none'}, {report.audit_entries} audit entries, "
        f"{report.passwords} passwords, {report.runs} runs in {report.archives} archives"
    )
    if report.audit_hash:
        out.print(f"Hash of the last audit entry: {report.audit_hash}")
