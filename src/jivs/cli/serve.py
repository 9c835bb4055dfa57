"""``jivs serve``: the service."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Annotated, Any

import typer

from jivs.cli.frame import Output, build_service, clear_errors


def serve(
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Listen here; 0: a free port.")] = None,
) -> None:
    """Serve the REST API. At the first start the password of the first user is printed, once."""
    with clear_errors(Output.TEXT):
        service, settings = build_service()
        from jivs.operations.users import first_admin

        service.accounts().sweep()
        made = first_admin(service)
        if made is not None:
            print(f"First user: {made[0].username}, password: {made[1].reveal()}", file=sys.stderr)
            print("It is shown this once; jivs user password admin sets another.", file=sys.stderr, flush=True)
        chosen = settings.server_port if port is None else port
        raise typer.Exit(_supervise([sys.executable, "-m", "jivs.api", str(chosen)]))


def _supervise(command: list[str]) -> int:
    """Run a child until it ends, and pass signals on. Its standard input ends with this process, and so it does."""
    child = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603 - our own interpreter and module

    def pass_on(_number: int, _frame: Any) -> None:
        child.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    return child.wait()
