"""The app in this process, and a client that speaks to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.testclient import TestClient

from embedsvc.settings import Settings
from embedsvc.web.app import create_app


@contextmanager
def serve(**settings: Any) -> Iterator[TestClient]:
    """A client of the app, which runs in this process, on NumPy."""
    app = create_app(Settings(**{"backend": "numpy"} | settings))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client
