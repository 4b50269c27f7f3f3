"""The description of the API, which the server gives itself: OpenAPI for programs, a page for
people."""

import asyncio
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from embedsvc.web.endpoint import Endpoint, JsonResponse
from embedsvc.web.openapi import openapi_document

PAGE = Path(__file__).parents[2] / "data" / "docs.html"


async def openapi(request: Request) -> Response:
    """`GET /openapi.json`: this description."""
    state = request.app.state
    if not hasattr(state, "description"):  # it takes too long for the event loop, and never changes
        endpoints = [route for route in request.app.routes if isinstance(route, Endpoint)]
        state.description = await asyncio.to_thread(
            lambda: orjson.dumps(openapi_document(endpoints))
        )
    return JsonResponse(state.description)


async def docs(_request: Request) -> Response:
    """`GET /docs`: the same as a page, to read and try; it loads nothing from elsewhere."""
    page = PAGE.read_text(encoding="utf-8")
    script = page.partition("<script>")[2].partition("</script>")[0]
    allowed = b64encode(sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{allowed}'; style-src 'unsafe-inline'; "
        "connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(page, headers={"content-security-policy": policy})


routes = [
    Endpoint("GET", "/openapi.json", openapi, answer=dict[str, Any]),
    Endpoint("GET", "/docs", docs, answer="text/html"),
]
