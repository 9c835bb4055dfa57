"""``jivs demo``: a complete run on sample data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jivs.cli import exits
from jivs.cli.archives import query
from jivs.cli.extract import document, show
from jivs.cli.frame import Output, OutputOption, build_app, clear_errors, show_json


def demo(
    to: Annotated[str, typer.Option("--to", help="Folder for the sample database and its archive.")] = "jivs-demo",
    output: OutputOption = Output.TEXT,
) -> None:
    """Run the main job on sample data: extract, verify, query, and find a flipped bit. Needs no service."""
    with clear_errors(output):
        from jivs.operations import demo as run

        app, folder = build_app(), Path(to)
        if output is Output.JSON:
            steps: list[str] = []
            made: dict[str, Any] = {}
            run.demo(app, folder, steps.append, lambda outcome, _: made.update(document(outcome)))
            found = run.damage(app, folder, steps.append)
            show_json({"archive": str(folder / "archive"), "extraction": made, "steps": steps, "flipped_bit_found": found})
        else:
            run.demo(app, folder, print, lambda outcome, archive: show(outcome, archive, Output.TEXT))
            query(str(folder / "archive"), run.QUERY)
            found = run.damage(app, folder, print)
            print("The flipped bit was found." if found else "The flipped bit was NOT found: this is a defect of JiVS.")
        raise typer.Exit(exits.DONE if found else exits.UNEXPECTED)
