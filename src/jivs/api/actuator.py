"""``/actuator``: is it well?"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Response

from jivs import __version__
from jivs.api.deps import ServiceDep
from jivs.errors import JivsError
from jivs.ports.service import Service

router = APIRouter(prefix="/actuator", tags=["actuator"])


def _catalog(service: Service) -> str:
    try:
        service.accounts().users(limit=1)
    except JivsError:
        return "DOWN"
    return "UP"


@router.get("/health")
def health(service: ServiceDep, response: Response) -> dict[str, Any]:
    """UP, or DOWN with 503."""
    state = _catalog(service)
    if state != "UP":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return {"status": state, "components": {"db": {"status": state}}}


@router.get("/health/liveness")
def liveness() -> dict[str, str]:
    """Whether the process answers; depends on nothing outside it."""
    return {"status": "UP"}


@router.get("/health/readiness")
def readiness(service: ServiceDep, response: Response) -> dict[str, str]:
    """Whether requests can be served: the catalog answers."""
    state = _catalog(service)
    if state != "UP":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return {"status": state}


@router.get("/info")
def info() -> dict[str, Any]:
    """What runs here."""
    return {"app": {"name": "jivs", "version": __version__}}
