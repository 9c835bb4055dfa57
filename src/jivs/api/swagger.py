"""``/swagger-ui.html``: the OpenAPI document as a page to read and to try. To read it, as the document, needs no login.

The program is Swagger UI's own (Apache-2.0), from the package ``fastapi-swagger``; nothing comes from elsewhere.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Literal

from fastapi import APIRouter, Response

router = APIRouter(include_in_schema=False)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>JiVS: REST API</title>
<link rel="icon" href="swagger-ui/favicon-32x32.png">
<link rel="stylesheet" href="swagger-ui/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="swagger-ui/swagger-ui-bundle.js"></script>
<script src="swagger-ui/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "v3/api-docs",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "none",
  filter: true,
  validatorUrl: null,
});
"""
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",  # marks of the stylesheet
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
Asset = Literal["swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"]
_KINDS: dict[str, str] = {"js": "text/javascript", "css": "text/css", "png": "image/png"}


@cache
def _read(name: str) -> bytes:
    return resources.files("fastapi_swagger").joinpath("resources", name).read_bytes()


@router.get("/swagger-ui.html")
async def page() -> Response:
    """The page."""
    return Response(_PAGE, media_type="text/html", headers={"Content-Security-Policy": _POLICY})


@router.get("/swagger-ui/start.js")
async def start() -> Response:
    """What starts it: a file, so that no script in the page has to be allowed."""
    return Response(_START, media_type=_KINDS["js"])


@router.get("/swagger-ui/{name}")
def asset(name: Asset) -> Response:
    """One of its files."""
    kind = _KINDS[name.rpartition(".")[2]]
    return Response(_read(name), media_type=kind, headers={"Cache-Control": "public, max-age=3600"})
