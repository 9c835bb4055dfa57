"""``jivs demo``: a complete run on sample data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jivs.cli import exits
from jivs.cli.archives import query
from jivs.cli.extract import show
from jivs.cli.frame import Output, build_app, clear_errors


def demo(
    to: Annotated[str, typer.Option("--to", help="Folder for the sample database and its archive.")] = "jivs-demo",
) -> None:
    """Run the main job on sample data: extract, verify, query, and find a flipped bit. Needs no service."""
    with clear_errors(Output.TEXT):
        from jivs.operations import demo as run

        app, folder = build_app(), Path(to)
        run.demo(app, folder, print, lambda outcome, archive: show(outcome, archive, Output.TEXT))
        query(str(folder / "archive"), run.QUERY)
        found = run.damage(app, folder, print)
        print("The flipped bit was found." if found else "The flipped bit was NOT found: this is a defect of JiVS.")
        raise typer.Exit(exits.DONE if found else exits.UNEXPECTED)
