"""The command line's root."""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from typing import Annotated

import typer

from jivs import __version__
from jivs.cli import archives, audit, config, db, demo, doctor, extract, serve, sources, user

app = typer.Typer(
    name="jivs",
    help="Extract data from systems being retired, prove that nothing was lost or bent, keep it open and queryable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from jivs.wire import native

        print(f"jivs {__version__} ({native.path()})")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Verified extraction of data."""


for verb in (
    demo.demo,
    sources.discover,
    sources.plan,
    extract.extract,
    archives.verify,
    archives.inspect,
    archives.query,
    serve.serve,
    serve.worker,
    doctor.doctor,
):
    app.command()(verb)
app.add_typer(user.app, name="user")
app.add_typer(config.app, name="config")
app.add_typer(db.app, name="db")
app.add_typer(audit.app, name="audit")


def _tune_process() -> None:
    """Before anything heavy is loaded: jemalloc for Arrow where its packages have it (half the page faults and less memory
    at the peak than its default), and a garbage collector that does not search all modules again and again while they load,
    nor when the process ends.
    """
    if sys.platform == "linux" and "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or ""):
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
    gc.set_threshold(100_000, 20, 100)
    atexit.register(_end_quickly)


def _end_quickly() -> None:
    """Spare the last search for garbage; DuckDB's binding tells of every object that is not searched for."""
    if "duckdb" not in sys.modules:
        gc.freeze()


def main() -> None:
    """Run the command line. A terminal that cannot show a character shows its escape."""
    _tune_process()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()
