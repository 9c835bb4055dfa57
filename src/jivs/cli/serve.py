"""``jivs serve`` and ``jivs worker``: the service."""

from __future__ import annotations

import os
import socket
import sys
from typing import Annotated

import typer

from jivs.cli.frame import Output, build_service, clear_errors
from jivs.cli.supervisor import supervise
from jivs.errors import SettingsError


def serve(
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Listen here; 0: a free port.")] = None,
    workers: Annotated[bool, typer.Option("--workers/--no-workers", help="Execute runs here, too.")] = True,
) -> None:
    """Serve the REST API, and execute runs. At the first start the password of the first user is printed, once."""
    with clear_errors(Output.TEXT):
        service, settings = build_service()
        from jivs.operations.users import first_admin

        made = first_admin(service)
        if made is not None:
            print(f"First user: {made[0].username}, password: {made[1].reveal()}", file=sys.stderr)
            print("It is shown this once; jivs user password admin sets another.", file=sys.stderr, flush=True)
        listener = _listen(settings.server_address, settings.server_port if port is None else port)
        hears, rings = os.pipe()
        commands = {
            "API": ([sys.executable, "-m", "jivs.api", str(listener.fileno()), str(rings)], [listener.fileno(), rings])
        }
        if workers:
            commands["dispatcher of workers"] = ([sys.executable, "-m", "jivs.worker", str(hears)], [hears])
        raise typer.Exit(supervise(commands))


def worker() -> None:
    """Execute runs: beside the catalog of a `jivs serve` on this or another machine."""
    with clear_errors(Output.TEXT):
        build_service()
        raise typer.Exit(supervise({"dispatcher of workers": ([sys.executable, "-m", "jivs.worker"], [])}))


def _listen(address: str, port: int) -> socket.socket:
    """The socket that the API's process takes requests from. It outlives that process: requests wait for the next one."""
    try:
        return socket.create_server(
            (address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET, backlog=512
        )
    except OSError as error:
        raise SettingsError(
            f"Nobody can listen at {address}:{port}: {error.strerror}. Set SERVER_PORT or --port to a free one."
        ) from None
