"""The application: routes, errors and the shield put together."""

from __future__ import annotations

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware

from jivs import __version__
from jivs.api import (
    actuator,
    archives,
    audit,
    auth,
    document,
    events,
    extractions,
    preferences,
    problems,
    schedules,
    sources,
    swagger,
    users,
)
from jivs.api.deps import known_parameters
from jivs.api.front import Front
from jivs.api.rates import Rates
from jivs.api.shield import Shield
from jivs.api.timing import Timed, Traced
from jivs.operations.health import Fresh, Health
from jivs.ports.service import Service

PREFIX = "/api/v1"
_COUNTED_SECONDS = 5.0
_ASKED = [
    "Authorization", "Content-Type", "If-Match", "If-None-Match", "If-Range", "Range", "Idempotency-Key", "Last-Event-ID",
    "traceparent",
]  # fmt: skip
_TOLD = [
    "ETag", "Location", "Retry-After", "X-Trace-Id", "Accept-Ranges", "Content-Range", "Content-Disposition",
    "JiVS-Manifest", "JiVS-Rows", "JiVS-Truncated", "Idempotent-Replayed",
]  # fmt: skip


def create(service: Service, *, origins: list[str], rates: Rates | None = None) -> FastAPI:
    """The ASGI application of a service. ``origins``: web sites that may call it from a browser. ``rates``: how much one
    user may ask for; as much as is wanted, if left out.
    """
    rates = rates or Rates()
    app = FastAPI(
        title="JiVS",
        version=__version__,
        openapi_url="/v3/api-docs",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirection would repeat whatever the client said of our name
        separate_input_output_schemas=False,
        generate_unique_id_function=document.operation_id,
    )
    app.state.waiting = set()
    app.state.hub = events.Hub(service)
    prepare(app, service, Health(service), trusted=False, rates=rates)
    # They are looked through in this order: what is asked for most often comes first.
    for noun in (extractions, auth, users, sources, schedules, archives, events, preferences, audit):
        app.include_router(noun.router, prefix=PREFIX, dependencies=[Depends(known_parameters)])
    app.include_router(actuator.router)
    app.include_router(swagger.router)
    document.install(app)
    app.add_middleware(Front, service=service, rates=rates)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=_ASKED,
            expose_headers=_TOLD,
            max_age=600,
        )
    surround(app, service)
    return app


def prepare(app: FastAPI, service: Service, health: Health, *, trusted: bool, rates: Rates) -> None:
    """What every application here has. ``trusted``: whoever reaches it may see details."""
    app.state.service = service
    app.state.health = health
    app.state.trusted = trusted
    app.state.rates = rates
    problems.install(app)


def count_runs(service: Service) -> None:
    """Let the metrics tell of the runs, without asking the catalog often or waiting for it long."""
    counts = Fresh(lambda: service.work().by_state(), seconds=_COUNTED_SECONDS, patience=1.0)
    service.metrics.runs(counts.get)


def surround(app: FastAPI, service: Service) -> None:
    """The middleware of every application here, the outermost last."""
    app.add_middleware(Shield)
    app.add_middleware(Timed, metrics=service.metrics)
    if service.app.tracing.active:
        app.add_middleware(Traced, tracing=service.app.tracing)
