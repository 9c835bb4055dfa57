"""``jivs verify``, ``jivs inspect``, ``jivs query``: look at an archive."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jivs.cli import exits
from jivs.cli.frame import Output, OutputOption, build_app, clear_errors, console, printing, show_json
from jivs.cli.selecting import SourceNameOption

if TYPE_CHECKING:
    from jivs.domain.finding import Verdict

ArchiveArgument = Annotated[str, typer.Argument(help="Folder of the archive, or s3://bucket/prefix.")]
_SHOWN_ROWS = 100


class Depth(StrEnum):
    """Levels of verification."""

    FILES = "files"
    COUNT = "count"
    FULL = "full"


def verify(
    archive: ArchiveArgument,
    level: Annotated[Depth, typer.Option("--level", help="How deeply; each level includes those before it.")] = Depth.FILES,
    source: Annotated[str, typer.Option("--source", help="Also compare with the source at this URL.")] = "",
    source_name: SourceNameOption = "",
    expect: Annotated[str, typer.Option("--expect", help="SHA-256 that the newest manifest had when published.")] = "",
    max_connections: Annotated[
        int | None, typer.Option("--max-connections", min=1, help="Connections to the source.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Prove that an archive is what was published; with --source, that the source still has the same."""
    with clear_errors(output):
        from jivs.operations.verify import VerifyJob
        from jivs.operations.verify import verify as run

        app = build_app()
        limits = replace(app.limits, connections=max_connections or app.limits.connections)
        job = VerifyJob(
            archive=archive, level=level.value, limits=limits, source=source, source_name=source_name, expect=expect
        )
        verdict = run(app, job)
        with printing():
            if output is Output.JSON:
                show_json(verdict.to_json())
            else:
                _show_verdict(verdict)
        raise typer.Exit(exits.DONE if verdict.sound and not verdict.source_differs else exits.INCOMPLETE)


def _show_verdict(verdict: Verdict) -> None:
    out = console()
    for finding in verdict.findings:
        out.print(f"{finding.severity.value.upper()} {finding.code}: {finding.object}: {finding.message}")
    for note in verdict.notes:
        out.print(f"note: {note}")
    state = "SOUND" if verdict.sound else "DAMAGED"
    if verdict.sound and verdict.source_differs:
        state = "SOUND, the source differs now"
    out.print(
        f"{state} at level {verdict.level}: manifest {verdict.manifest}, {verdict.tables} tables, {verdict.rows:,} rows, "
        f"{verdict.files} files, {verdict.bytes / 1e6:,.1f} MB"
    )
    out.print(f"SHA-256 of the manifest: {verdict.manifest_sha256}")


def inspect(
    archive: ArchiveArgument,
    as_of: Annotated[int | None, typer.Option("--as-of", help="Number of an earlier manifest.")] = None,
    columns: Annotated[bool, typer.Option("--columns", help="Show every column.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show what an archive holds, from its manifest."""
    with clear_errors(output):
        from jivs.operations.inspect import inspect as run

        found = run(build_app(), archive, as_of)
        manifest = found.link.manifest
        if output is Output.JSON:
            show_json({"sha256": found.link.sha256, "manifest": json.loads(manifest.to_bytes())})
            return
        from rich.table import Table

        out = console()
        out.print(
            f"{found.address}: manifest {manifest.number} of {found.manifests}, {manifest.created}, {manifest.tool}, "
            f"run {manifest.run_id}"
        )
        out.print(f"SHA-256 {found.link.sha256}")
        for label, facts in manifest.sources.items():
            out.print(f"source {label}: {facts['kind']} {facts['address']} ({facts['product']} {facts['version']})")
        grid = Table("source", "table", "rows", "quarantined", "MB", "segments", "verified", "snapshot")
        for table in manifest.tables:
            size = sum(segment.bytes for segment in table.segments)
            grid.add_row(
                table.source,
                str(table.name),
                f"{table.rows:,}",
                f"{table.rows_quarantined} rows, {table.values_quarantined} values",
                f"{size / 1e6:,.1f}",
                str(len(table.segments)),
                f"{table.proof.level}: {table.proof.verdict}",
                "one" if table.proof.one_snapshot else "not common",
            )
        out.print(grid)
        for failed in manifest.failed:
            out.print(f"failed in this run: {failed['table']}: {failed['reason']}")
        for note in manifest.notes:
            out.print(f"note: {note}")
        for run_ in found.open_runs:
            out.print(f"unfinished run {run_.plan.run_id} of {run_.plan.source}: go on with jivs extract --resume")
        for table in manifest.tables if columns else ():
            fields = Table("column", "type", "type in the source", "fidelity", title=str(table.name))
            for column in table.columns:
                fields.add_row(column.name, str(column.type), column.source_type, column.fidelity.value)
            out.print(fields)


def query(
    archive: ArchiveArgument,
    sql: Annotated[str, typer.Argument(help="One SELECT (DuckDB's SQL); tables as schema.table.")],
    as_of: Annotated[int | None, typer.Option("--as-of", help="Number of an earlier manifest.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Rows shown as text; 0: all.")] = _SHOWN_ROWS,
    output: OutputOption = Output.TEXT,
) -> None:
    """Run SQL over an archive; it only reads, and reaches nothing but the archive."""
    with clear_errors(output):
        from jivs.operations.query import query as run

        with run(build_app(), archive, sql, as_of) as reader:
            if output is Output.JSON:
                names = _unique(reader.schema.names)
                for batch in reader:
                    for row in _rows(batch):
                        print(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, default=str))
                return
            from rich.table import Table

            grid = Table(*reader.schema.names)
            shown = 0
            more = False
            for batch in reader:
                for row in _rows(batch):
                    if limit and shown == limit:
                        more = True
                        break
                    grid.add_row(*("NULL" if value is None else str(value) for value in row))
                    shown += 1
                if more:
                    break
            console().print(grid)
            if more:
                print(f"The first {limit} rows; --limit 0 shows all.", file=sys.stderr)


def _unique(names: list[str]) -> list[str]:
    """Names for a JSON object: of two equal ones the second gets a number."""
    out: list[str] = []
    for name in names:
        number, unique = 1, name
        while unique in out:
            number += 1
            unique = f"{name}_{number}"
        out.append(unique)
    return out


def _rows(batch: Any) -> Any:
    """Rows as tuples of printable values."""
    yield from zip(*([_value(cell) for cell in column] for column in batch.columns), strict=True)


def _value(cell: Any) -> Any:
    """A value that JSON has: bytes as hex digits, floats that are no numbers as text."""
    if not cell.is_valid:
        return None
    try:
        value = cell.as_py()
    except (ValueError, OverflowError):
        return str(cell)
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
