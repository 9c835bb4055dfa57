"""The OpenAPI document: what the framework knows of each route, and what holds for all of them, which is said here once.

Routes say only what is their own: with ``fails`` which problems they have beside those that follow from what they take
(``_problems``), and with ``tells`` which headers their answers bring.
"""

from __future__ import annotations

import json
from functools import cache
from http import HTTPStatus
from importlib import resources
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic.alias_generators import to_camel

Schema = dict[str, Any]
Responses = dict[int | str, dict[str, Any]]

_OWN = "/api/v1/"
_PROBLEM = "application/problem+json"
_KINDS: dict[int, tuple[str, str, tuple[str, ...]]] = {
    400: ("Malformed", "The body is no JSON.", ("malformed",)),
    401: ("Unauthenticated", "Nobody knows who asks: log in, or refresh the session.", ("unauthenticated",)),
    403: ("Forbidden", "Who asks may not, or the operator does not allow it.", ("forbidden",)),
    404: ("NotFound", "There is nothing of this name or number.", ("not-found",)),
    406: ("NotAcceptable", "It does not come in any form that Accept names.", ("not-acceptable",)),
    409: (
        "Conflict",
        "Somebody else was first, a state forbids it, or what is kept is damaged.",
        ("conflict", "already-exists", "schema-changed", "integrity"),
    ),
    413: ("TooLarge", "The body is too large.", ("too-large",)),
    415: ("UnsupportedMediaType", "The body is not said to be JSON.", ("unsupported-media-type",)),
    416: ("RangeNotSatisfiable", "The file is shorter.", ("range-not-satisfiable",)),
    422: ("Refused", "The request is not valid, or it is refused: detail says why.", ("invalid", "refused", "over-limit")),
    428: ("PreconditionRequired", "If-Match is missing.", ("precondition-required",)),
    429: ("TooManyRequests", "Too often, or as many as may be are at work.", ("too-many-requests",)),
    431: (
        "HeadTooLarge",
        "The address and the headers are too large: at most 32 KiB.",
        ("request-header-fields-too-large",),
    ),
    503: ("Unavailable", "The catalog, the archive's store or the source cannot be reached now.", ("unavailable",)),
}
"""What problems there are: their names here, what they mean, and the ends of their types."""

_ELSEWHERE = ("method-not-allowed", "request-timeout", "internal", "http")
"""Kinds of problems that belong to no operation."""

_SOMETIMES: Schema = {"const": "true"}
"""The schema of a header that not every such answer has."""

_EVERY = (*(kind for *_, kinds in _KINDS.values() for kind in kinds), *_ELSEWHERE)
_HEADERS: dict[str, tuple[str, Schema, str]] = {
    "X-Trace-Id": (
        "Names the request in the service's logs and traces.",
        {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "4bf92f3577b34da6a3ce929d0e0e4736",
    ),
    "ETag": ("The version of what is shown; PUT wants it as If-Match.", {"type": "string"}, '"1"'),
    "Location": ("The path of what was made.", {"type": "string", "format": "uri-reference"}, "/api/v1/sources/1"),
    "Retry-After": ("Seconds after which it may be tried again.", {"type": "string", "pattern": "^[0-9]+$"}, "60"),
    "WWW-Authenticate": ("How to say who asks.", {"type": "string"}, 'Bearer realm="jivs"'),
    "Idempotent-Replayed": ("It is the answer to an earlier request with the same key.", _SOMETIMES, "true"),
    "Accept-Ranges": ("That parts can be asked for.", {"const": "bytes"}, "bytes"),
    "Content-Disposition": ("The name of the file.", {"type": "string"}, 'attachment; filename="000001.parquet"'),
    "Content-Range": ("Which part it is, or how long the file is.", {"type": "string"}, "bytes 0-1023/4096"),
    "JiVS-Manifest": ("The number of the manifest that was asked.", {"type": "string", "pattern": "^[0-9]+$"}, "1"),
    "JiVS-Rows": ("How many rows the answer has.", {"type": "string", "pattern": "^[0-9]+$"}, "2"),
    "JiVS-Truncated": ("Whether there are more rows.", {"enum": ["true", "false"]}, "false"),
}
_SUCCESSES = {"200": "Here it is.", "201": "Made.", "202": "Asked for: it will happen.", "204": "Done."}
_TAG = {"type": "string", "pattern": '^(W/)?"[0-9]{1,18}"$'}
_OF_PROBLEMS = {401: "WWW-Authenticate", 416: "Content-Range", 429: "Retry-After", 503: "Retry-After"}

IDEMPOTENCY_KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A key of the client's, a UUID for example: sent again within a day, the request is answered as it was "
    "the first time, and nothing happens twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    "example": "7c2f4d0e-0a56-4b3c-9d1f-5a8f7f1f2b3c",
}

TAGS = {
    "auth": "Logging in and out.",
    "users": "Accounts and their roles.",
    "sources": "Where data comes from.",
    "extractions": "What is read from a source into which archive, and the runs that do it.",
    "schedules": "Extractions that run by themselves.",
    "archives": "What was extracted: manifests, files, verification and queries.",
    "events": "What happens to runs, as it happens.",
    "preferences": "What a program keeps for the user who asks.",
    "audit": "Who did what.",
    "actuator": "Is it well, and what does it measure? No login is needed.",
}

_DESCRIPTION = """Verified extraction of data from systems that are being retired or replaced.

Log in with `POST /api/v1/auth/login` and send the `accessToken` as `Authorization: Bearer`. Errors are problem details
(RFC 9457) with a stable `type` and the `traceId` that is also in the header `X-Trace-Id`; a `traceparent` (W3C Trace
Context) that is sent decides it. Names of fields are camelCase, and a field that is not known is an error. A path that
is not here gives 404, a method that a path does not have 405 with `Allow`, a head that takes more than 20 seconds 408, and
a defect of JiVS 500 with the type `urn:jivs:problem:internal`; all of them are problems, too."""


def fails(*statuses: int) -> Responses:
    """Problems that a route has beside those that follow from what it takes."""
    return {status: {} for status in statuses}


def tells(*headers: str, status: int = 200, **more: Any) -> Responses:
    """Headers of a route's answer."""
    return {status: {"headers": {name: _header(name) for name in headers}, **more}}


def operation_id(route: APIRoute) -> str:
    """The stable name of an operation: that of its function, which a test pins."""
    return to_camel(route.name)


def install(app: FastAPI) -> None:
    """Let ``app`` give the document, made when it is first asked for."""
    app.description = _DESCRIPTION
    app.openapi_tags = [{"name": name, "description": meaning} for name, meaning in TAGS.items()]
    framework = app.openapi
    app.openapi = cache(lambda: _completed(framework()))  # type: ignore[method-assign]


def _completed(document: Schema) -> Schema:
    schemas = document["components"]["schemas"]
    for gone in ("HTTPValidationError", "ValidationError"):
        schemas.pop(gone, None)
    schemas |= _PROBLEM_SCHEMAS
    document["components"]["headers"] = {name: _described(*_HEADERS[name]) for name in _HEADERS}
    document["components"]["responses"] = {name: _problem(status) for status, (name, _, _) in _KINDS.items()}
    examples = json.loads(resources.files("jivs.api").joinpath("examples.json").read_text(encoding="utf-8"))
    order = list(TAGS)  # routes stand as they are asked for most often; a reader logs in first
    document["paths"] = dict(sorted(document["paths"].items(), key=lambda one: min(map(order.index, _tags(one[1])))))
    _link(document["paths"])
    for path, item in document["paths"].items():
        for method, operation in item.items():
            _complete(path, method, operation, examples.get(operation["operationId"], {}))
    return document


def _tags(item: Schema) -> set[str]:
    return {tag for operation in item.values() for tag in operation["tags"]}


def _link(paths: Schema) -> None:
    """From what makes something to what can be done with it."""
    for path, item in paths.items():
        made = item.get("post", {}).get("responses", {}).get("201")
        if made is None:
            continue
        made["links"] = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {other[len(path) + 2 :].partition("}")[0]: "$response.body#/id"},
                "description": operation["description"].partition("\n\n")[0],
            }
            for other, operations in paths.items()
            if other.startswith(path + "/{")
            for operation in operations.values()
        }


def _complete(path: str, method: str, operation: Schema, examples: Schema) -> None:
    _settle(operation)
    if not path.startswith(_OWN) and "security" in operation:
        operation["security"].insert(0, {})
    responses = operation["responses"]
    for status in _problems(path, operation):
        responses[str(status)] = {"$ref": f"#/components/responses/{_KINDS[status][0]}"}
    for status, response in responses.items():
        if "$ref" in response:
            continue
        if response["description"] == "Successful Response":
            response["description"] = _SUCCESSES[status]
        headers = response.setdefault("headers", {})
        headers["X-Trace-Id"] = _header("X-Trace-Id")
        if status == "201":
            headers |= {"Location": _header("Location"), "ETag": _header("ETag")}
        if method == "post" and IDEMPOTENCY_KEY in operation.get("parameters", ()):
            headers["Idempotent-Replayed"] = _header("Idempotent-Replayed")
        if "content" in response:  # generated clients take the first form
            response["content"] = dict(sorted(response["content"].items(), key=lambda one: one[0] != "application/json"))
        _exemplify(response, examples.get("response"), status)
    operation["responses"] = dict(sorted(responses.items()))
    _exemplify(operation.get("requestBody", {}), examples.get("request"), "2")


def _settle(operation: Schema) -> None:
    """What the framework cannot know: a condition that has to be sent is required, and names are no sentences."""
    operation["summary"] = operation["summary"].capitalize()
    operation["description"] = operation["description"].replace("``", "`")
    for parameter in operation.get("parameters", ()):
        if parameter["name"] == "If-Match":
            parameter |= {"required": True, "schema": _TAG, "example": '"1"'}


def _problems(path: str, operation: Schema) -> set[int]:
    """What can go wrong with an operation: what it says itself, and what follows from what it takes."""
    if not path.startswith(_OWN):
        return {431}
    found = {int(status) for status in operation["responses"] if int(status) in _KINDS}
    names = {parameter["name"] for parameter in operation.get("parameters", ())}
    secured = operation.get("security", [])
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    found |= {431, 503}
    found |= {401} if secured else set()
    found |= {403} if any(rights for one in secured for rights in one.values()) else set()
    found |= {404} if "{" in path else set()
    found |= {400, 413, 415, 422} if "$ref" in body or "anyOf" in body else set()
    found |= {409, 428} if "If-Match" in names else set()
    found |= {409, 422} if "Idempotency-Key" in names else set()
    return found


def _exemplify(place: Schema, example: Any, status: str) -> None:
    content = place.get("content", {}).get("application/json")
    if example is not None and content is not None and status.startswith("2"):
        content["example"] = example


def _header(name: str) -> Schema:
    return {"$ref": f"#/components/headers/{name}"}


def _described(meaning: str, schema: Schema, example: str) -> Schema:
    return {"description": meaning, "required": schema is not _SOMETIMES, "schema": schema, "example": example}


def _problem(status: int) -> Schema:
    _, meaning, kinds = _KINDS[status]
    headers = {"X-Trace-Id": _header("X-Trace-Id")}
    if status in _OF_PROBLEMS:
        headers[_OF_PROBLEMS[status]] = _header(_OF_PROBLEMS[status])
    example = {
        "type": f"urn:jivs:problem:{kinds[0]}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": meaning,
        "instance": "/api/v1/extractions/1",
        "traceId": _HEADERS["X-Trace-Id"][2],
    }
    content = {_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}}
    types = " or ".join(f"`urn:jivs:problem:{kind}`" for kind in kinds)
    return {"description": f"{meaning} Its `type` is {types}.", "headers": headers, "content": content}


_PROBLEM_SCHEMAS: Schema = {
    "Problem": {
        "title": "Problem",
        "description": "What went wrong (RFC 9457).",
        "type": "object",
        "required": ["type", "title", "status", "detail", "instance", "traceId"],
        "additionalProperties": False,
        "properties": {
            "type": {
                "type": "string",
                "description": "Stable: programs decide by it.",
                "enum": [f"urn:jivs:problem:{kind}" for kind in _EVERY],
            },
            "title": {"type": "string", "description": "What the status means."},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "A sentence to act on."},
            "instance": {"type": "string", "description": "The path that was asked for."},
            "traceId": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
            "errors": {
                "type": "array",
                "description": "Of a request that is not valid: what is wrong with which part of it.",
                "items": {"$ref": "#/components/schemas/InvalidField"},
            },
        },
    },
    "InvalidField": {
        "title": "InvalidField",
        "description": "A part of a request that is not valid.",
        "type": "object",
        "required": ["field", "in", "message"],
        "additionalProperties": False,
        "properties": {
            "field": {"type": "string", "description": "The path to it; empty for the whole."},
            "in": {"type": "string", "enum": ["body", "query", "path", "header"]},
            "message": {"type": "string"},
        },
    },
}
