"""What commands on a running server share: how they ask it, and how they read its answers."""

import argparse
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, TypeVar

import httpx2
import msgspec

from embedsvc.commands.address import add_address, key_of, url_of
from embedsvc.errors import ServerError, key_refused
from embedsvc.system.proxy import is_here

TIMEOUT = httpx2.Timeout(60.0, connect=5.0)
PATIENT = httpx2.Timeout(None, connect=5.0)
T = TypeVar("T")


class Instance(msgspec.Struct):
    """A model that the server has or is loading; see `web/admin/instances.py`."""

    id: str
    model: str
    state: str
    error: str | None
    progress: dict[str, int]
    memory_bytes: int
    users: int
    pinned: bool
    keep_alive: float


class Instances(msgspec.Struct):
    """All instances, and the memory that they take and may take."""

    data: list[Instance]
    memory_bytes: int
    max_memory_bytes: int


class RunningServer:
    """A running server, which is asked over HTTP."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._key = key
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        # A proxy is for other machines: the key of a server on this one must not go through it.
        self._trust_env = not is_here(self.url)

    def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, kind: type[T]
    ) -> T:
        """Its answer. Raises `ServerError` with the server's words, or why it cannot be reached."""
        url = f"{self.url}{path}"
        try:
            answer = httpx2.request(
                method,
                url,
                json=body,
                headers=self._headers,
                timeout=TIMEOUT,
                trust_env=self._trust_env,
            )
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ServerError(f"no server at {self.url}: {error}") from None
        if answer.status_code != HTTPStatus.OK:
            raise self._refusal(answer.status_code, answer.content)
        return self._read(answer.content, kind)

    def events(self, path: str, kind: type[T]) -> Iterator[T]:
        """The server-sent events of a path, as they come. Raises `ServerError`."""
        url = f"{self.url}{path}"
        try:
            with httpx2.stream(
                "GET", url, headers=self._headers, timeout=PATIENT, trust_env=self._trust_env
            ) as answer:
                if answer.status_code != HTTPStatus.OK:
                    raise self._refusal(answer.status_code, answer.read())
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        yield self._read(line.removeprefix("data: ").encode(), kind)
        except httpx2.HTTPError as error:
            raise ServerError(f"{self.url} is gone: {error}") from None

    def _read(self, content: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ServerError(f"{self.url} does not answer as embedsvc does") from None

    def _refusal(self, status: int, content: bytes) -> ServerError:
        if status == HTTPStatus.UNAUTHORIZED:
            return ServerError(key_refused(self.url, sent=self._key is not None))
        try:
            return ServerError(msgspec.json.decode(content)["error"]["message"])
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
            return ServerError(f"{self.url} does not answer as embedsvc does, but with {status}")


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which server."""
    add_address(parser.add_argument)


def server_of(args: argparse.Namespace) -> RunningServer:
    """The server that the options name. Raises `CardsError`."""
    return RunningServer(url_of(args.url), key_of(args.api_key, args.url))
