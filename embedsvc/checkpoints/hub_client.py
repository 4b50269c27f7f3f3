"""Requests to a hub, which may be broken or lie: redirects and answers are followed so far and no
further.

No answer is unpacked, so what comes is as large as it looks. The token of this machine's user goes
to the hub alone, and not to where it redirects.
"""

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from threading import Event
from typing import Annotated
from urllib.parse import quote

import httpx2
import msgspec
from huggingface_hub import constants, get_session
from huggingface_hub.utils import (
    build_hf_headers,  # pyright: ignore[reportUnknownVariableType] - of an unused parameter
)
from msgspec import Meta

from embedsvc.bounds import HUB_INFO_BYTES
from embedsvc.errors import Stopped

REDIRECTS = 5
TIMEOUT = httpx2.Timeout(30.0, connect=10.0)
INFO_SECONDS = 60.0
"""How long a hub may take to list the files of a repository."""


class Refused(Exception):
    """A hub answered with an error."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        """Hugging Face's name of the error, or ""."""


class BrokenAnswer(Exception):
    """A hub's answer cannot be used; the message goes on from the repository's name."""


class Lfs(msgspec.Struct):
    """A file that is kept beside git, by Git LFS."""

    sha256: str = ""


class Sibling(msgspec.Struct, rename={"name": "rfilename", "blob": "blobId"}):
    """A file, as a hub lists it."""

    name: str
    size: Annotated[int, Meta(ge=0)] | None = None
    blob: str | None = None
    lfs: Lfs | None = None


class Info(msgspec.Struct):
    """A commit of a repository, as a hub describes it."""

    sha: str = ""
    siblings: list[Sibling] = []


def ask(repo: str, revision: str, stop: Event) -> Info:
    """The commit of a repository that a revision is, and its files.

    Raises `Refused`, `BrokenAnswer`, `httpx2.HTTPError`; `Stopped` once `stop` is set.
    """
    url = f"{constants.ENDPOINT}/api/models/{repo}/revision/{quote(revision, safe='')}?blobs=true"
    content = read_answer(url, HUB_INFO_BYTES, stop)
    try:
        return msgspec.json.decode(content, type=Info)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BrokenAnswer(
            f"is told of by {constants.ENDPOINT} in a way that is not known"
        ) from None


def read_answer(url: str, most: int, stop: Event) -> bytes:
    """A short answer, of so many bytes at most. Raises what `ask` does."""
    content = bytearray()
    began = time.monotonic()
    with opened(url, build_hf_headers()) as answer:
        for chunk in answer.iter_raw():
            content += chunk
            if len(content) > most:
                raise BrokenAnswer(f"is told of by {constants.ENDPOINT} at too great a length")
            if stop.is_set():
                raise Stopped("the download was stopped")
            if time.monotonic() - began > INFO_SECONDS:
                raise httpx2.ReadTimeout("its answer does not end")
    return bytes(content)


@contextmanager
def opened(url: str, headers: Mapping[str, str]) -> Generator[httpx2.Response]:
    """The answer to a GET, whose body is still to be read, by `iter_raw`.

    Raises `Refused`, `BrokenAnswer`, `httpx2.HTTPError`.
    """
    headers = {**headers, "Accept-Encoding": "identity"}
    origin = target = httpx2.URL(url)
    for _ in range(REDIRECTS + 1):
        with get_session().stream(
            "GET", target, headers=headers, timeout=TIMEOUT, follow_redirects=False
        ) as answer:
            if not answer.has_redirect_location:
                _check(answer)
                yield answer
                return
            target = _redirected(origin, target, answer.headers["location"])
        if _origin(target) != _origin(origin):
            headers = {name: headers[name] for name in headers if name.lower() != "authorization"}
    raise BrokenAnswer(f"is redirected more than {REDIRECTS} times by {origin.host}")


def _check(answer: httpx2.Response) -> None:
    if not answer.is_success:
        raise Refused(answer.status_code, answer.headers.get("x-error-code", ""))
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise BrokenAnswer(f"is sent compressed by {answer.url.host}, which nobody asked for")


def _redirected(origin: httpx2.URL, here: httpx2.URL, location: str) -> httpx2.URL:
    """Where a redirect leads. It may lead anywhere by TLS, without only within the hub itself."""
    try:
        target = here.join(location)
    except (httpx2.InvalidURL, ValueError):
        target = httpx2.URL("")
    if not target.host or (target.port or 0) > 65535:
        raise BrokenAnswer(f"is redirected by {here.host} to no address")
    if target.scheme != "https" and _origin(target) != _origin(origin):
        raise BrokenAnswer(f"is redirected by {here.host} to another host, and not by https")
    return target


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
