"""``jivs audit``: the trail of who did what, for who can reach the catalog itself."""

from __future__ import annotations

from typing import Annotated

import typer

from jivs.cli.frame import Output, OutputOption, build_service, clear_errors, console, show_json

app = typer.Typer(help="The trail of who did what.", no_args_is_help=True)


@app.command()
def verify(
    entries: Annotated[int, typer.Option("--entries", min=0, help="How many entries were noted; needs --hash.")] = 0,
    hash_: Annotated[str, typer.Option("--hash", help="The hash that was noted with them.")] = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Prove that nothing in the trail was changed, removed or added later. Note what it prints, elsewhere: given back with
    --entries and --hash it also proves that the trail was not cut off, nor written anew.
    """
    with clear_errors(output):
        from jivs.domain.audit import End
        from jivs.errors import UsageError
        from jivs.operations.users import verify_trail

        if bool(entries) != bool(hash_):
            raise UsageError("--entries and --hash belong together.")
        service, _ = build_service()
        end = verify_trail(service, End(entries=entries, hash=hash_.lower()) if entries else None)
        if output is Output.JSON:
            show_json({"entries": end.entries, "hash": end.hash})
        else:
            console().print(f"SOUND: {end.entries} entries, hash of the last: {end.hash}")
