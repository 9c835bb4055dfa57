"""The management listener: what the process is doing now, for those who run it. Its own port, thread and event loop, so that
it answers when the service does not.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import resource
import sys
import threading
import traceback
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Path, Request
from pydantic import Field

from jivs import __version__
from jivs.api import actuator
from jivs.api.app import prepare, surround
from jivs.api.deps import Model, ServiceDep, may
from jivs.api.rates import Rates
from jivs.domain.access import Right
from jivs.errors import ForbiddenError, NotFoundError
from jivs.operations.health import Health
from jivs.ports.service import Service

router = APIRouter(prefix="/actuator", tags=["management"])
Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "OFF"]
_LOG = logging.getLogger(__name__)
_ROOT = "ROOT"
_OFF = logging.CRITICAL + 1


class LoggerLevel(Model):
    """A level, or null: that of the logger above decides, and for ROOT the settings do."""

    configured_level: Annotated[Level | None, Field(examples=["DEBUG"])]


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address that is listened at."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def create(service: Service, health: Health, *, address: str) -> FastAPI:
    """The application of the listener at an address. Off loopback all of it is for ADMIN, except what is public anyway."""
    app = FastAPI(title="JiVS management", version=__version__, openapi_url=None, docs_url=None, redoc_url=None)
    here = is_loopback(address)
    prepare(app, service, health, trusted=here, rates=Rates())
    app.state.root_level = logging.root.level
    rule = _named_as_here if here else may(Right.ADMINISTER)
    app.include_router(router, dependencies=[Depends(rule)])
    app.include_router(actuator.router, dependencies=[Depends(_named_as_here)] if here else [])
    surround(app, service)
    return app


def _named_as_here(request: Request) -> None:
    """Refuse what a web page of somebody else has a browser on this machine send (DNS rebinding)."""
    host = request.headers.get("host", "").rpartition("]")
    name = f"{host[0]}]" if host[1] else host[2].partition(":")[0]
    if not is_loopback(name.strip("[]").lower()) or "origin" in request.headers:
        raise ForbiddenError("This listener answers programs of its own machine only: ask 127.0.0.1 or localhost.")


@router.get("/threaddump")
async def threaddump() -> dict[str, Any]:
    """All threads and where they are."""
    known = {thread.ident: thread for thread in threading.enumerate()}
    return {
        "threads": [
            {
                "id": ident,
                "name": known[ident].name if ident in known else "",
                "daemon": known[ident].daemon if ident in known else True,
                "stack": [f"{one.filename}:{one.lineno} {one.name}" for one in reversed(traceback.extract_stack(frame))],
            }
            for ident, frame in sys._current_frames().items()  # noqa: SLF001 - documented, for this very purpose
        ]
    }


@router.get("/pools")
async def pools(service: ServiceDep) -> dict[str, Any]:
    """How connections to the catalog and to sources are used, by all processes of the service."""
    return asdict(await actuator.aside(service.metrics.pools))


@router.get("/memory")
async def memory() -> dict[str, Any]:
    """Memory of the process in bytes, and its garbage collector."""
    return await asyncio.to_thread(_memory)


def _memory() -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: dict[str, Any] = {
        "process": {"peakResident": peak * (1 if sys.platform == "darwin" else 1024)},
        "python": {"blocks": sys.getallocatedblocks(), "collector": gc.get_stats(), "waiting": gc.get_count()},
    }
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no path of ours
            found["process"]["resident"] = int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        pass
    if (arrow := sys.modules.get("pyarrow")) is not None:
        pool = arrow.default_memory_pool()
        found["arrow"] = {"allocator": pool.backend_name, "allocated": pool.bytes_allocated(), "peak": pool.max_memory()}
    return found


@router.get("/loggers")
async def loggers() -> dict[str, Any]:
    """All loggers of the process and their levels."""
    names = [_ROOT, *sorted(logging.root.manager.loggerDict)]
    return {"levels": ["OFF", "ERROR", "WARNING", "INFO", "DEBUG"], "loggers": {name: _level(name) for name in names}}


@router.get("/loggers/{name}")
async def one_logger(name: str) -> dict[str, Any]:
    """The level of a logger."""
    _logger(name)
    return _level(name)


@router.post("/loggers/{name}", status_code=204)
@router.put("/loggers/{name}", status_code=204)
async def set_level(name: Annotated[str, Path(max_length=200)], body: LoggerLevel, request: Request) -> None:
    """Change the level of a logger until the process ends."""
    logger = _logger(name)
    wanted = body.configured_level
    before = _level(name)["effectiveLevel"]
    above: int = request.app.state.root_level if name == _ROOT else logging.NOTSET
    logger.setLevel(_OFF if wanted == "OFF" else wanted or above)
    who = request.scope.get("jivs.user", "somebody on this machine")
    _LOG.warning("Logger %s: %s instead of %s, by %s", name, _level(name)["effectiveLevel"], before, who)


def _logger(name: str) -> logging.Logger:
    """A logger that is there: who asks for others makes none."""
    if name == _ROOT:
        return logging.root
    if name not in logging.root.manager.loggerDict:
        raise NotFoundError("There is no such logger: GET /actuator/loggers lists them.")
    return logging.getLogger(name)


def _level(name: str) -> dict[str, str | None]:
    logger = _logger(name)
    own = _name(logger.level) if logger.level else None
    return {"configuredLevel": own, "effectiveLevel": _name(logger.getEffectiveLevel())}


def _name(level: int) -> str:
    return "OFF" if level >= _OFF else logging.getLevelName(level)
