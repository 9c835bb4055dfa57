"""``/preferences``: what the user who asks wants to find as it was left."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.exceptions import HTTPException

from jivs.api.deps import CallerDep, ServiceDep, VersionDep, etag
from jivs.api.document import fails, tells
from jivs.operations import preferences
from jivs.ports.preferences import Preferences

router = APIRouter(prefix="/preferences", tags=["preferences"])

_DOCUMENT: dict[str, Any] = {"content": {"application/json": {"schema": {"type": "object", "additionalProperties": True}}}}


async def _body(request: Request) -> bytes:
    body = await request.body()
    if len(body) > preferences.LARGEST:
        raise HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Preferences may have {preferences.LARGEST} bytes, no more."
        )
    return body


def _answer(found: Preferences) -> Response:
    return Response(found.document, media_type="application/json", headers={"ETag": etag(found.version)})


@router.get("", response_class=Response, responses=tells("ETag", **_DOCUMENT))
def get_preferences(service: ServiceDep, caller: CallerDep) -> Response:
    """The caller's own document: {} until one is kept."""
    return _answer(preferences.get(service, caller.user.id))


@router.put(
    "",
    response_class=Response,
    responses=tells("ETag", **_DOCUMENT) | fails(404, 413),
    openapi_extra={"requestBody": {"required": True, **_DOCUMENT}},
)
def put_preferences(
    service: ServiceDep, caller: CallerDep, version: VersionDep, body: Annotated[bytes, Depends(_body)]
) -> Response:
    """Replace it by any JSON object of at most 64 KiB, which is given back to the byte."""
    return _answer(preferences.put(service, caller.user.id, version, body))
