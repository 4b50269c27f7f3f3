"""What commands on a running server share: where it is, and how it is asked."""

import argparse
import os
from collections.abc import Iterator
from typing import Any

import httpx2
import msgspec

from embedsvc.errors import ServerError

TIMEOUT = httpx2.Timeout(60.0, connect=5.0)


class Server:
    """A running server, asked over HTTP."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """What it answers. Raises `ServerError` with its words, or why it cannot be reached."""
        url = f"{self.url}{path}"
        try:
            answer = httpx2.request(method, url, json=body, headers=self._headers, timeout=TIMEOUT)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ServerError(f"no server at {self.url}: {error}") from None
        if answer.status_code != 200:
            raise ServerError(_refusal(answer.status_code, answer.content))
        return msgspec.json.decode(answer.content)

    def events(self, path: str) -> Iterator[Any]:
        """Server-sent events, as they come. Raises `ServerError`."""
        url = f"{self.url}{path}"
        patient = httpx2.Timeout(None, connect=5.0)
        try:
            with httpx2.stream("GET", url, headers=self._headers, timeout=patient) as answer:
                if answer.status_code != 200:
                    raise ServerError(_refusal(answer.status_code, answer.read()))
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        yield msgspec.json.decode(line.removeprefix("data: "))
        except httpx2.HTTPError as error:
            raise ServerError(f"{self.url} is gone: {error}") from None


def add_server(parser: argparse.ArgumentParser) -> None:
    """The options that say which server."""
    parser.add_argument(
        "--url", default="http://127.0.0.1:8000", help="default: http://127.0.0.1:8000"
    )
    parser.add_argument(
        "--api-key", metavar="KEY", help="if it wants one; default: $OPENAI_API_KEY"
    )


def server_of(given: argparse.Namespace) -> Server:
    """The server that the options name."""
    return Server(given.url, given.api_key or os.environ.get("OPENAI_API_KEY"))


def _refusal(status: int, content: bytes) -> str:
    try:
        return msgspec.json.decode(content)["error"]["message"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"the server answered {status}"
