"""Errors as problem details (RFC 9457): the one table from branches of ``JivsError`` to types and status codes."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from jivs import errors
from jivs.api.traces import trace_id

_LOG = logging.getLogger(__name__)

PROBLEMS: dict[type[errors.JivsError], tuple[HTTPStatus, str]] = {
    errors.UnauthenticatedError: (HTTPStatus.UNAUTHORIZED, "unauthenticated"),
    errors.ForbiddenError: (HTTPStatus.FORBIDDEN, "forbidden"),
    errors.NotFoundError: (HTTPStatus.NOT_FOUND, "not-found"),
    errors.PreconditionError: (HTTPStatus.PRECONDITION_REQUIRED, "precondition-required"),
    errors.TooManyError: (HTTPStatus.TOO_MANY_REQUESTS, "too-many-requests"),
    errors.OverLimitError: (HTTPStatus.UNPROCESSABLE_ENTITY, "over-limit"),
    errors.AlreadyExistsError: (HTTPStatus.CONFLICT, "already-exists"),
    errors.ConflictError: (HTTPStatus.CONFLICT, "conflict"),
    errors.UserError: (HTTPStatus.UNPROCESSABLE_ENTITY, "refused"),
    errors.SchemaChangedError: (HTTPStatus.CONFLICT, "schema-changed"),
    errors.IntegrityError: (HTTPStatus.CONFLICT, "integrity"),
    errors.TransientError: (HTTPStatus.SERVICE_UNAVAILABLE, "unavailable"),
    errors.JivsError: (HTTPStatus.INTERNAL_SERVER_ERROR, "internal"),
}
"""The nearest class counts."""

MEDIA_TYPE = "application/problem+json"


def problem(
    request: Request, status: int, kind: str, detail: str, *, headers: dict[str, str] | None = None, **more: Any
) -> JSONResponse:
    """A problem as a response. ``type`` is stable; ``detail`` is a sentence for the user."""
    body = {
        "type": f"urn:jivs:problem:{kind}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "traceId": trace_id(request),
        **more,
    }
    return JSONResponse(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.JivsError)
    nearest = next(class_ for class_ in type(error).__mro__ if class_ in PROBLEMS)
    status, kind = PROBLEMS[nearest]
    headers = {}
    if isinstance(error, errors.TooManyError):
        headers["Retry-After"] = str(error.seconds)
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="jivs"'
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "5"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _LOG.error("%s: %s", error.message, error.detail)
    return problem(request, status, kind, error.message, headers=headers)


def _malformed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fields = [
        {"field": ".".join(str(part) for part in item["loc"][1:]), "in": str(item["loc"][0]), "message": item["msg"]}
        for item in error.errors()
    ]
    unreadable = any(item["type"] == "json_invalid" for item in error.errors())
    if unreadable:
        return problem(request, HTTPStatus.BAD_REQUEST, "malformed", "The body is no JSON.")
    if not _is_json(request) and any(item["loc"] == ("body",) and item["type"] != "missing" for item in error.errors()):
        sentence = "Send the body with Content-Type: application/json."
        return problem(request, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", sentence)
    said = "; ".join(f"{item['field'] or item['in']}: {item['message']}" for item in fields[:5])
    return problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", f"The request is not valid: {said}.", errors=fields)


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kinds = {
        404: "not-found",
        405: "method-not-allowed",
        406: "not-acceptable",
        413: "too-large",
        415: "unsupported-media-type",
        416: "range-not-satisfiable",
    }
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = _methods(request)
    sentence = f"There is nothing at {request.url.path}." if error.status_code == HTTPStatus.NOT_FOUND else str(error.detail)
    return problem(request, error.status_code, kinds.get(error.status_code, "http"), sentence, headers=headers)


def _methods(request: Request) -> str:
    """The methods of a path; the framework names those of the first route that fits it (RFC 9110, section 15.5.6)."""
    routes: list[Any] = []
    for route in request.app.routes:
        routes += route.effective_route_contexts() if hasattr(route, "effective_route_contexts") else [route]
    return ", ".join(sorted({method for one in routes if one.path_regex.match(request.url.path) for method in one.methods}))


def _defect(request: Request, error: Exception) -> JSONResponse:
    _LOG.error("%s %s failed, trace %s", request.method, request.url.path, trace_id(request), exc_info=error)
    sentence = "Something in JiVS went wrong. It is in the log under the trace id: report it."
    return problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal", sentence)


def install(app: FastAPI) -> None:
    """Let every error leave as a problem."""
    app.add_exception_handler(errors.JivsError, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _defect)
