"""``/actuator``: is it well, and what does it measure? No login is needed; details of health are for ADMIN."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials

from jivs import __version__
from jivs.api.deps import Model, ServiceDep, bearer
from jivs.domain.access import Right
from jivs.errors import JivsError
from jivs.operations import users
from jivs.operations.health import ESSENTIAL, Component, Health
from jivs.ports.service import Service

router = APIRouter(prefix="/actuator", tags=["actuator"])
Status = Literal["UP", "DOWN"]
_T = TypeVar("_T")
_SAMPLE = (
    "# HELP extraction_records_total Rows read and archived.\n# TYPE extraction_records_total counter\n"
    "extraction_records_total 0.0\n"
)
_EXPOSITIONS: dict[str, Any] = {
    kind: {"schema": {"type": "string"}, "example": _SAMPLE} for kind in ("text/plain", "application/openmetrics-text")
}
_ASIDE = ThreadPoolExecutor(4, thread_name_prefix="actuator")
"""Threads of its own: it answers also when all that serve requests are busy."""


async def aside(function: Callable[..., _T], *given: Any) -> _T:
    """Call it in a thread that serves nothing else."""
    return await asyncio.get_running_loop().run_in_executor(_ASIDE, partial(function, *given))


class ComponentOut(Model):
    """A part of the service; ``details`` are for ADMIN."""

    status: Status
    details: dict[str, Any] | None = None


class HealthOut(Model):
    """Whether it is well, and its parts."""

    status: Status
    components: dict[str, ComponentOut]


class StatusOut(Model):
    """Whether it is well."""

    status: Status


class ApplicationOut(Model):
    """A program and its version."""

    name: str
    version: str


class InfoOut(Model):
    """What runs."""

    app: ApplicationOut


def _state(*, up: bool, response: Response) -> Status:
    if not up:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return "UP" if up else "DOWN"


def _shown(component: Component, *, details: bool) -> ComponentOut:
    return ComponentOut(status="UP" if component.up else "DOWN", details=dict(component.details) if details else None)


def _is_admin(service: Service, token: str) -> bool:
    with suppress(JivsError):
        return users.authenticate(service, token)[0].may(Right.ADMINISTER)
    return False


@router.get(
    "/health",
    response_model_exclude_none=True,
    responses={503: {"model": HealthOut, "description": "DOWN: the catalog does not answer."}},
)
async def get_health(
    request: Request,
    service: ServiceDep,
    response: Response,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> HealthOut:
    """UP, or DOWN with 503, which is when the catalog is; what else is down stands among the components."""
    found: Health = request.app.state.health
    components = await aside(found.components)
    up = components[ESSENTIAL].up
    details: bool = request.app.state.trusted
    if credentials is not None and up and not details:
        details = await aside(_is_admin, service, credentials.credentials)
    return HealthOut(
        status=_state(up=up, response=response),
        components={name: _shown(component, details=details) for name, component in components.items()},
    )


@router.get("/health/liveness")
async def get_liveness() -> StatusOut:
    """Whether the process answers; depends on nothing outside it."""
    return StatusOut(status="UP")


@router.get("/health/readiness", responses={503: {"model": StatusOut, "description": "DOWN: the catalog does not answer."}})
async def get_readiness(request: Request, response: Response) -> StatusOut:
    """Whether requests can be served: the catalog answers."""
    found: Health = request.app.state.health
    return StatusOut(status=_state(up=await aside(found.ready), response=response))


@router.get("/info")
async def get_info() -> InfoOut:
    """What runs here."""
    return InfoOut(app=ApplicationOut(name="jivs", version=__version__))


@router.get("/prometheus", response_class=Response, responses={200: {"content": _EXPOSITIONS}})
async def get_metrics(request: Request, service: ServiceDep) -> Response:
    """All metrics, as text for Prometheus or as OpenMetrics."""
    text, kind = await aside(service.metrics.exposition, request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": kind})
