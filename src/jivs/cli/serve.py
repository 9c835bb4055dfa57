"""``jivs serve`` and ``jivs worker``: the service."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from jivs.cli.frame import Output, build_service, clear_errors, load_settings
from jivs.cli.supervisor import Part, apart, stand, supervise
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

    def prepare() -> None:
        service, settings = build_service()
        _make_first_user(service, output)
        _require_room(settings)
        _require_shelf(service)

    def listen(settings: Settings) -> socket.socket:
        chosen = settings.server_port if port is None else port
        return _listen(settings.server_address, chosen, "SERVER_PORT or --port")

    _run(output, prepare, listen, workers=workers)


def worker(output: ServedOption = Output.TEXT) -> None:
    """Execute runs: beside the catalog of a `jivs serve` on this or another machine. Its management listener is its own."""

    def prepare() -> None:
        _, settings = build_service()
        _require_room(settings)

    _run(output, prepare, None, workers=True)


def _make_first_user(service: Service, output: Output) -> None:
    from jivs.operations.users import first_admin

    made = first_admin(service)
    if made is None:
        return
    if output is Output.JSON:
        first = {"event": "first-user", "username": made[0].username, "password": made[1].reveal()}
        print(json.dumps(first), file=sys.stderr, flush=True)
    else:
        print(f"First user: {made[0].username}, password: {made[1].reveal()}", file=sys.stderr)
        print("It is shown this once; jivs user password admin sets another.", file=sys.stderr, flush=True)


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


def _run(
    output: Output, prepare: Callable[[], None], listen: Callable[[Settings], socket.socket] | None, *, workers: bool
) -> NoReturn:
    """Prepare, and keep the processes running, measured as one. All are forks of this process, which connects to nothing."""
    stand()
    with clear_errors(output):
        signal.signal(signal.SIGTERM, _end)
        _say(output)
        settings = load_settings()
        from jivs.bootstrap import new_metrics_folder
        from jivs.settings import measure_in

        with new_metrics_folder() as folder:
            measure_in(folder.variables)
            _load(api=listen is not None or settings.management_port >= 0, workers=workers)
            if code := apart(_told(output, prepare)):
                raise typer.Exit(code)
            public = listen(settings) if listen else None
            raise typer.Exit(supervise(list(_parts(settings, public, workers=workers)), folder.tidy))


def _load(*, api: bool, workers: bool) -> None:
    """Load what forks need, once for all."""
    from jivs import bootstrap

    bootstrap.preload()
    try:
        if api:
            import_module("jivs.api.server")
        if workers:
            import_module("jivs.worker.child")
            import_module("jivs.worker.dispatcher")
    except ImportError as error:
        raise bootstrap.missing(error, "service") from None
    gc.freeze()  # or looking at it would copy what is shared


def _told(output: Output, work: Callable[[], None]) -> Callable[[], None]:
    """The same, which says what went wrong and ends the process with its code."""

    def told() -> None:
        try:
            with clear_errors(output):
                work()
        except typer.Exit as ended:
            raise SystemExit(ended.exit_code) from None

    return told


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)  # which nobody takes for an error, in whatever module that is loaded now it is raised


def _parts(settings: Settings, public: socket.socket | None, *, workers: bool) -> Iterator[Part]:
    """The processes of the service."""
    private = None
    if settings.management_port >= 0:
        private = _listen(settings.management_address, settings.management_port, "MANAGEMENT_PORT")
    hears, rings = os.pipe()
    if public is not None or private is not None:
        name, short = ("API", "jivs api") if public is not None else ("management listener", "jivs management")
        given = [one.detach() if one is not None else _NONE for one in (public, private)]
        inherited = [rings, *(number for number in given if number != _NONE)]
        yield Part(name=name, short=short, package="jivs.api", arguments=[*given, rings], descriptors=inherited)
    if workers:
        name, short = "dispatcher of workers", "jivs dispatcher"
        yield Part(name=name, short=short, package="jivs.worker", arguments=[hears], descriptors=[hears])


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
