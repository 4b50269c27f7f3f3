"""The dashboard: a page that uses the API as any client does. Its files are in data/dashboard.

A browser that asks for `/` gets it, too; see `web/middleware.py`.
"""

import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from embedsvc.errors import NoRoute
from embedsvc.web.access import DASHBOARD
from embedsvc.web.endpoint import Endpoint

FOLDER = Path(__file__).parents[2] / "data" / "dashboard"
TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
HEADERS = {
    # The page loads nothing from elsewhere and nothing inline, and never reads a text as HTML.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


async def page(request: Request) -> Response:
    """`GET /dashboard`: the page; it asks for a key itself where the server has keys."""
    if request.scope.get("raw_path", b"").endswith(b"d/"):
        return RedirectResponse("../dashboard", 308)  # the links in the page are relative
    found = (FOLDER / "index.html").read_bytes()
    return Response(found, media_type="text/html", headers=HEADERS | {"vary": "accept"})


async def file(request: Request) -> Response:
    """`GET /dashboard/{name}`: a file that the page loads."""
    name: str = request.path_params["name"]
    match = re.fullmatch(r"[a-z0-9-]+\.(css|js|svg)", name)
    if match is None or not (FOLDER / name).is_file():
        raise NoRoute(request.method, request.url.path)
    found = (FOLDER / name).read_bytes()
    return Response(found, media_type=TYPES[match[1]], headers=HEADERS)


routes = [
    Endpoint("GET", DASHBOARD, page, answer="text/html"),
    Endpoint("GET", f"{DASHBOARD}/{{name}}", file, answer="text/plain"),
]
