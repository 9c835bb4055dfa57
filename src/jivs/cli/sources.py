"""``jivs discover`` and ``jivs plan``: look at a source without reading rows."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jivs.cli.frame import Output, OutputOption, build_app, clear_errors, console, show_json
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


def discover(
    url: UrlArgument,
    columns: Annotated[bool, typer.Option("--columns", help="Show every column with its type in the archive.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show the tables of a source: kinds, keys, estimates."""
    with clear_errors(output):
        from jivs.operations.discover import discover as run

        app = build_app()
        found = run(app, url, app.limits, columns=columns or output is Output.JSON)
        if output is Output.JSON:
            show_json(
                {
                    "address": found.address,
                    "server": {"product": found.server.product, "version": found.server.version},
                    "tables": [
                        {
                            "schema": listing.name.schema,
                            "name": listing.name.name,
                            "kind": listing.kind.value,
                            "estimated_rows": listing.estimated_rows if listing.estimated_rows >= 0 else None,
                            "estimated_bytes": listing.estimated_bytes if listing.estimated_bytes >= 0 else None,
                            "primary_key": list(table.primary_key),
                            "columns": [column.to_json() for column in table.columns],
                            "notes": [*listing.notes, *table.notes],
                        }
                        for listing, table in zip(found.listings, found.tables, strict=True)
                    ],
                }
            )
            return
        from rich.table import Table

        out = console()
        out.print(f"{found.address}  {found.server.product} {found.server.version}")
        grid = Table("table", "kind", "about rows", "about MB", "notes")
        for listing in found.listings:
            rows = f"{listing.estimated_rows:,}" if listing.estimated_rows >= 0 else "?"
            size = f"{listing.estimated_bytes / 1e6:,.1f}" if listing.estimated_bytes >= 0 else "?"
            grid.add_row(str(listing.name), listing.kind.value, rows, size, "; ".join(listing.notes))
        out.print(grid)
        for table in found.tables:
            out.print(f"\n{table.name}  key: {', '.join(table.primary_key) or 'none'}")
            fields = Table("column", "type in the source", "type in the archive", "fidelity")
            for column in table.columns:
                fields.add_row(column.name, column.source_type, str(column.type), column.fidelity.value)
            out.print(fields)


def plan(
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
    output: OutputOption = Output.TEXT,
) -> None:
    """Show what an extraction would read, in which partitions; reads no rows."""
    with clear_errors(output):
        from jivs.operations.extract import plan as run
        from jivs.operations.job import ExtractJob

        app = build_app()
        job = ExtractJob(
            address=app.address(url),
            archive=to,
            selection=selection(table, exclude, query, columns, where),
            limits=app.limits,
            source_name=source_name,
            options=file_options(infer, types),
        )
        planned = run(app, job)
        if output is Output.JSON:
            data: dict[str, Any] = planned.to_json()
            show_json({key: data[key] for key in ("source", "snapshot", "tables")})
            return
        from rich.table import Table

        grid = Table("table", "kind", "about rows", "partitions", "columns", "not exact")
        for item in planned.tables:
            inexact = [column.name for column in item.table.columns if column.fidelity.value != "exact"]
            rows = f"{item.table.estimated_rows:,}" if item.table.estimated_rows >= 0 else "?"
            grid.add_row(
                str(item.table.name),
                item.table.kind.value,
                rows,
                str(len(item.partitions)),
                str(len(item.table.columns)),
                ", ".join(inexact),
            )
        out = console()
        out.print(grid)
        one = "one snapshot for all tables" if planned.snapshot["one"] else "NO common snapshot"
        out.print(f"{len(planned.partitions)} partitions; {one}. Nothing was read or written.")
        for note in planned.snapshot["notes"]:
            out.print(f"note: {note}")
