"""``jivs serve`` and ``jivs worker``: the service."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from jivs.cli.frame import Output, build_service, clear_errors
from jivs.cli.supervisor import supervise
from jivs.errors import JivsError, SettingsError, UnreachableError

if TYPE_CHECKING:
    from jivs.ports.service import Service
    from jivs.settings import Settings

_NONE = -1
"""In place of a listener's descriptor: there is none."""


ServedOption = Annotated[
    Output, typer.Option("--output", help="Say what happens as text, or as JSON, a line each, as LOG_FORMAT=json does.")
]


def _say(output: Output) -> None:
    if output is Output.JSON:
        from jivs.settings import log_as_json

        log_as_json()


def serve(
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Listen here; 0: a free port.")] = None,
    workers: Annotated[bool, typer.Option("--workers/--no-workers", help="Execute runs here, too.")] = True,
    output: ServedOption = Output.TEXT,
) -> None:
    """Serve the REST API, and execute runs. At the first start the password of the first user is printed, once."""
    with clear_errors(output):
        _say(output)
        service, settings = build_service()
        from jivs.operations.users import first_admin

        made = first_admin(service)
        if made is not None and output is Output.JSON:
            first = {"event": "first-user", "username": made[0].username, "password": made[1].reveal()}
            print(json.dumps(first), file=sys.stderr, flush=True)
        elif made is not None:
            print(f"First user: {made[0].username}, password: {made[1].reveal()}", file=sys.stderr)
            print("It is shown this once; jivs user password admin sets another.", file=sys.stderr, flush=True)
        _require_room(settings)
        _require_shelf(service)
        chosen = settings.server_port if port is None else port
        public = _listen(settings.server_address, chosen, "SERVER_PORT or --port")
        raise typer.Exit(_run(settings, public, workers=workers))


def worker(output: ServedOption = Output.TEXT) -> None:
    """Execute runs: beside the catalog of a `jivs serve` on this or another machine. Its management listener is its own."""
    with clear_errors(output):
        _say(output)
        _, settings = build_service()
        _require_room(settings)
        raise typer.Exit(_run(settings, None, workers=True))


def _require_room(settings: Settings) -> None:
    """Whether what the settings ask for is there. Raises SettingsError for what cannot work; warns of what may not."""
    from jivs import bootstrap
    from jivs.domain.finding import Severity
    from jivs.domain.sizing import judge
    from jivs.operations.doctor import catalog_sizes, machine_sizes

    sizes = machine_sizes(bootstrap.sizes(settings), bootstrap.machine())
    with suppress(UnreachableError):  # whoever needs the catalog waits for it, and says so
        sizes = catalog_sizes(sizes, bootstrap.build_upkeep(settings))
    for finding in judge(sizes):
        if finding.severity is Severity.ERROR:
            raise SettingsError(finding.message)
        logging.getLogger("jivs").warning(finding.message)


def _require_shelf(service: Service) -> None:
    """Whether the archives of the catalog are here. Raises SettingsError where they are not; a store that does not answer
    keeps nobody from starting.
    """
    from jivs.operations import shelf

    try:
        shelf.require(service)
    except SettingsError:
        raise
    except JivsError as error:
        logging.getLogger("jivs").warning(error.message)


def _run(settings: Settings, public: socket.socket | None, *, workers: bool) -> int:
    """Keep the processes running, and measure them as one; the exit code."""
    from jivs.bootstrap import new_metrics_folder

    private = None
    if settings.management_port >= 0:
        private = _listen(settings.management_address, settings.management_port, "MANAGEMENT_PORT")
    hears, rings = os.pipe()
    with new_metrics_folder() as folder:
        python = ["env", *(f"{name}={value}" for name, value in folder.variables.items()), sys.executable, "-m"]
        commands: dict[str, tuple[list[str], list[int]]] = {}
        if public is not None or private is not None:
            given = [one.fileno() if one is not None else _NONE for one in (public, private)]
            name = "API" if public is not None else "management listener"
            inherited = [rings, *(number for number in given if number != _NONE)]
            commands[name] = ([*python, "jivs.api", *(str(number) for number in (*given, rings))], inherited)
        if workers:
            commands["dispatcher of workers"] = ([*python, "jivs.worker", str(hears)], [hears])
        return supervise(commands, folder.tidy)


def _listen(address: str, port: int, setting: str) -> socket.socket:
    """A socket that the API's process takes requests from. It outlives that process: requests wait for the next one."""
    try:
        return socket.create_server(
            (address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET, backlog=512
        )
    except OSError as error:
        raise SettingsError(
            f"Nobody can listen at {address}:{port}: {error.strerror}. Set {setting} to a free one."
        ) from None
