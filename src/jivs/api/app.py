"""The application: routes, errors and the shield put together."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware

from jivs import __version__
from jivs.api import actuator, archives, audit, auth, events, extractions, problems, sources, users
from jivs.api.front import Front
from jivs.api.shield import Shield
from jivs.ports.service import Service

PREFIX = "/api/v1"
_ASKED = [
    "Authorization", "Content-Type", "If-Match", "If-None-Match", "If-Range", "Range", "Idempotency-Key", "Last-Event-ID",
    "traceparent",
]  # fmt: skip
_TOLD = [
    "ETag", "Location", "Retry-After", "X-Trace-Id", "Accept-Ranges", "Content-Range", "Content-Disposition",
    "JiVS-Manifest", "JiVS-Rows", "JiVS-Truncated",
]  # fmt: skip


def create(service: Service, *, origins: list[str]) -> FastAPI:
    """The ASGI application of a service. ``origins``: web sites that may call it from a browser."""
    app = FastAPI(
        title="JiVS",
        version=__version__,
        description="Verified extraction of data from systems that are being retired or replaced.",
        openapi_url="/v3/api-docs",
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    app.state.hub = events.Hub(service)
    problems.install(app)
    api = APIRouter(prefix=PREFIX)
    for noun in (auth, users, sources, extractions, archives, events, audit):
        api.include_router(noun.router)
    app.include_router(api)
    app.include_router(actuator.router)
    app.add_middleware(Front, service=service)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=_ASKED,
            expose_headers=_TOLD,
            max_age=600,
        )
    app.add_middleware(Shield)
    return app
