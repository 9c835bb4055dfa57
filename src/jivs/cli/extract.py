"""``jivs extract``: from a source to a verified archive."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jivs.cli import exits
from jivs.cli.frame import Output, OutputOption, build_app, clear_errors, console, printing, show_json, stopping
from jivs.cli.progress import Meter, Style
from jivs.cli.selecting import (
    ColumnsOption,
    ExcludeOption,
    InferOption,
    QueryOption,
    SourceNameOption,
    TableOption,
    ToOption,
    TypesOption,
    UrlArgument,
    WhereOption,
    file_options,
    selection,
)
from jivs.domain.plan import Level

if TYPE_CHECKING:
    from rich.console import Console

    from jivs.operations.job import Outcome, TableResult


def extract(
    url: UrlArgument,
    to: ToOption,
    table: TableOption = None,
    exclude: ExcludeOption = None,
    query: QueryOption = None,
    columns: ColumnsOption = None,
    where: WhereOption = "",
    source_name: SourceNameOption = "",
    infer: InferOption = False,
    types: TypesOption = "",
    verify: Annotated[Level, typer.Option("--verify", help="What is compared with the source.")] = Level.COUNT,
    parallel: Annotated[int | None, typer.Option("--parallel", min=1, max=64, help="Readers at once.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Ceiling of rows per batch.")] = None,
    max_connections: Annotated[
        int | None, typer.Option("--max-connections", min=1, help="Connections to the source at once.")
    ] = None,
    max_rows_per_second: Annotated[
        int | None, typer.Option("--max-rows-per-second", min=1, help="Rows read per second, over all readers.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run of the same source.")] = False,
    fail_on_quarantine: Annotated[
        bool, typer.Option("--fail-on-quarantine", help="Exit with 3 if anything went to quarantine.")
    ] = False,
    progress: Annotated[Style, typer.Option("--progress", help="How progress is shown.")] = Style.AUTO,
    output: OutputOption = Output.TEXT,
) -> None:
    """Extract tables into an archive, and prove that nothing was lost or bent."""
    with clear_errors(output):
        from jivs.operations.extract import extract as run
        from jivs.operations.job import ExtractJob

        app = build_app()
        limits = replace(
            app.limits,
            parallel=parallel or app.limits.parallel,
            batch_rows=batch_size or app.limits.batch_rows,
            connections=max_connections or app.limits.connections,
            rows_per_second=max_rows_per_second or app.limits.rows_per_second,
        )
        job = ExtractJob(
            address=app.address(url),
            archive=to,
            selection=selection(table, exclude, query, columns, where),
            limits=limits,
            level=verify,
            source_name=source_name,
            options=file_options(infer, types),
            resume=resume,
        )

        def hint() -> None:
            print("Stopping at the next batch; once more to stop at once.", file=sys.stderr)

        with Meter(style=progress) as meter, stopping(job.gate, hint):
            outcome = run(app, job, meter)
        with printing():
            show(outcome, to, output)
        raise typer.Exit(_code(outcome, fail_on_quarantine))


def _code(outcome: Outcome, fail_on_quarantine: bool) -> int:
    if not outcome.complete:
        return exits.SCHEMA_CHANGED if outcome.schema_changed else exits.INCOMPLETE
    quarantined = any(table.quarantined_rows or table.quarantined_values for table in outcome.tables)
    return exits.INCOMPLETE if fail_on_quarantine and quarantined else exits.DONE


def document(outcome: Outcome) -> dict[str, Any]:
    """What became of a run, as JSON."""
    return {
        "run": outcome.run_id,
        "state": _state(outcome),
        "level": outcome.level.value,
        "one_snapshot": outcome.snapshot_one,
        "manifest": outcome.manifest,
        "manifest_sha256": outcome.manifest_sha256,
        "seconds": round(outcome.seconds, 3),
        "notes": list(outcome.notes),
        "tables": [
            {**item.__dict__, "table": str(item.table), "seconds": round(item.seconds, 3)} for item in outcome.tables
        ],
    }


def _state(outcome: Outcome) -> str:
    return "COMPLETED" if outcome.complete else "INCOMPLETE"


def show(outcome: Outcome, archive: str, output: Output) -> None:
    """The closing table, or the same as JSON."""
    if output is Output.JSON:
        show_json(document(outcome))
        return
    state = _state(outcome)
    out = console()
    _show_tables(out, [_cells(item) for item in outcome.tables])
    for item in outcome.tables:
        if item.reason:
            out.print(f"{item.table}: {item.reason}")
    for note in outcome.notes:
        out.print(f"note: {note}")
    snapshot = "one snapshot" if outcome.snapshot_one else "NO common snapshot"
    out.print(f"{state}, level {outcome.level.value}, {snapshot}, {outcome.seconds:.1f} s. Run {outcome.run_id}.")
    out.print(f"Manifest {outcome.manifest}, SHA-256 {outcome.manifest_sha256}")
    out.print(f"Note the SHA-256: jivs verify {archive} --expect {outcome.manifest_sha256}")


_HEADS = ("table", "source rows", "archived", "quarantined", "verdict", "time")
_NUMBERS = range(1, 4)
_DRAWN = 200
"""More lines than this are written plainly: drawing them would take longer than reading the tables."""


def _cells(item: TableResult) -> tuple[str, ...]:
    quarantined = f"{item.quarantined_rows} rows" if item.quarantined_rows else ""
    if item.quarantined_values:
        quarantined = f"{quarantined} {item.quarantined_values} values".strip()
    rows = f"{item.source_rows:,}" if item.source_rows >= 0 else "?"
    return str(item.table), rows, f"{item.archived:,}", quarantined, item.verdict, f"{item.seconds:.1f} s"


def _show_tables(out: Console, lines: list[tuple[str, ...]]) -> None:
    from rich.table import Table

    if len(lines) <= _DRAWN:
        grid = Table(*_HEADS)
        for number in _NUMBERS:
            grid.columns[number].justify = "right"
        for line in lines:
            grid.add_row(*line)
        out.print(grid)
        return
    widths = [max(map(len, column)) for column in zip(_HEADS, *lines, strict=True)]
    for line in (_HEADS, *lines):
        cells = [
            cell.rjust(width) if number in _NUMBERS else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        out.file.write("  ".join(cells).rstrip() + "\n")
