"""A server that speaks OpenAI's API, this one or another. It may be busy or away for a while."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2
import msgspec
import numpy as np
from numpy.typing import NDArray

from embedsvc.bounds import ANSWER_BYTES
from embedsvc.bulk.answer import read_answer, read_scores
from embedsvc.bulk.manifest import EmbedOptions
from embedsvc.errors import BadRequest, BulkError, EmbeddingFailed, key_refused
from embedsvc.serving.embedded import Embedded
from embedsvc.system.proxy import is_here
from embedsvc.wording.msgspec_errors import plain_types

NO_KEY = "Bearer none"
"""What is sent without a key: some servers want one, and take any."""
RETRY_STATUSES = (408, 409, 425, 429, 502, 503, 504)
"""Statuses after which a request is sent again."""
BAD_REQUEST_STATUSES = (400, 413, 422)
"""Statuses that say that the request itself is at fault."""
PATIENCE_SECONDS = 600.0
"""How long one request is tried."""
MAX_PAUSE_SECONDS = 30.0
"""The longest pause between tries, where the server does not say when to try again."""
TIMEOUT = httpx2.Timeout(600.0, connect=10.0, pool=None)


class _Named(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Named]


class _Error(msgspec.Struct):
    message: str


class _Refusal(msgspec.Struct):
    error: _Error


class _Reply(NamedTuple):
    status: int
    headers: httpx2.Headers
    content: bytes


class ServedModel(NamedTuple):
    """What answers tell of the model. It must be the same for all answers of a run."""

    model: str
    fingerprint: str | None
    """A digest of the model's files and precision, if the server tells it."""
    dimensions: int


Sleep = Callable[[float], Awaitable[None]]


class Remote:
    """A server's model; see `Embedder` and `Ranker`."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        model: str,
        calls: int,
        *,
        patience: float = PATIENCE_SECONDS,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.model = model
        """The name that was asked for, until an answer tells the one behind an alias."""
        self.calls = calls
        self.fingerprint: str | None = None
        """What the server tells of it, once it has answered."""
        self._asked = model
        self._served: ServedModel | None = None
        self._client = client
        self._url = str(client.base_url).rstrip("/")
        self._patience = patience
        self._sleep = sleep

    async def embed(self, texts: Sequence[str], options: EmbedOptions) -> Embedded:
        request = {"model": self._asked, "input": texts, "encoding_format": "base64"}
        body = msgspec.json.encode(request | msgspec.to_builtins(options))
        reply = await self.request("POST", "/embeddings", body)
        try:
            answer = read_answer(reply.content, texts, chunked=options.chunking is not None)
            truncated = int(reply.headers.get("x-embedsvc-truncated", 0))
            split = int(reply.headers.get("x-embedsvc-split", 0))
        except ValueError as error:
            raise BulkError(f"{self._url}: no embeddings: {plain_types(str(error))}") from None
        self._check_model(
            ServedModel(
                reply.headers.get("openai-model") or answer.model,
                reply.headers.get("x-embedsvc-fingerprint"),
                answer.vectors.shape[1],
            )
        )
        return Embedded(answer.vectors, answer.tokens, truncated, split, answer.chunks)

    async def score(self, query: str, documents: Sequence[str]) -> NDArray[np.float64]:
        request = {"query": query, "documents": documents}
        if self._asked:  # else the server knows which of its models reranks
            request["model"] = self._asked
        reply = await self.request("POST", "/rerank", msgspec.json.encode(request))
        try:
            scores = read_scores(reply.content, len(documents))
        except ValueError as error:
            raise BulkError(f"{self._url}: no scores: {plain_types(str(error))}") from None
        self.model = reply.headers.get("openai-model") or self.model
        return scores

    def _check_model(self, served: ServedModel) -> None:
        """Raises `BulkError` if this answer is by another model than the first one."""
        if self._served is None:
            self._served = served
            self.model = served.model or self.model
            self.fingerprint = served.fingerprint
        if served != self._served:
            differences = [
                f"{name} was {before}, is {now}"
                for name, before, now in zip(ServedModel._fields, self._served, served, strict=True)
                if before != now
            ]
            raise BulkError(
                f"{self._url}: the server's model has changed: {', '.join(differences)}"
            )

    async def first_model(self) -> str:
        """The first model that the server lists. Raises `BulkError`."""
        reply = await self.request("GET", "/models", b"")
        try:
            return msgspec.json.decode(reply.content, type=_Models).data[0].id
        except (ValueError, RecursionError, IndexError):
            raise BulkError(f"{self._url} lists no models: say --model") from None

    async def request(self, method: str, path: str, body: bytes) -> _Reply:
        """Send a request, again and again if need be, until there is a good answer.

        Raises `RequestError` if the request is at fault, `BulkError` if the server is.
        """
        deadline = time.monotonic() + self._patience
        pause = 0.5
        while True:
            wait = None
            try:
                reply = await self._try(method, path, body)
            except httpx2.TransportError as error:
                trouble = f"{type(error).__name__} {error}".strip()
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise BulkError(f"{self._url}: {error}") from None
            else:
                if reply.status == HTTPStatus.OK:
                    return reply
                message = _message(reply)
                if reply.status in BAD_REQUEST_STATUSES:
                    raise BadRequest(message)
                if reply.status == HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise EmbeddingFailed(message)
                if reply.status == HTTPStatus.UNAUTHORIZED:
                    sent = self._client.headers.get("authorization") not in (None, NO_KEY)
                    raise BulkError(key_refused(self._url, sent=sent))
                trouble = f"{reply.status}: {message}"
                if reply.status not in RETRY_STATUSES:
                    raise BulkError(f"{self._url}: {trouble}")
                wait = _retry_after(reply)
            if wait is None:
                wait = pause * random.uniform(0.5, 1)  # noqa: S311 - so that clients do not come all at once
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
            if time.monotonic() + wait > deadline:
                raise BulkError(f"{self._url}: {trouble}")
            await self._sleep(wait)

    async def _try(self, method: str, path: str, body: bytes) -> _Reply:
        """Send a request once. Raises `BulkError` if the answer has too many bytes."""
        content = bytearray()
        async with self._client.stream(method, path, content=body) as response:
            async for part in response.aiter_bytes():
                content += part
                if len(content) > ANSWER_BYTES:
                    most = f"{ANSWER_BYTES >> 20} MiB"
                    raise BulkError(f"{self._url}: an answer of more than {most}")
        return _Reply(response.status_code, response.headers, bytes(content))


@asynccontextmanager
async def open_remote(
    url: str, key: str, model: str | None, calls: int
) -> AsyncGenerator[Remote, None]:
    """A server's model of that name; if it is None, the first one that it lists, and if it is
    "", the one that the server chooses by itself. Raises `BulkError`."""
    if not _is_url(url):
        raise BulkError(f"--url must be like http://127.0.0.1:8000/v1, not {url}")
    base = url.rstrip("/").removesuffix("/embeddings")
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    limits = httpx2.Limits(max_connections=calls, max_keepalive_connections=calls)
    async with httpx2.AsyncClient(
        base_url=base,
        headers=headers,
        limits=limits,
        timeout=TIMEOUT,
        trust_env=not is_here(base),
    ) as client:
        if model is None:
            model = await Remote(client, "", calls).first_model()
        yield Remote(client, model, calls)


def _is_url(url: str) -> bool:
    """Whether it is the URL of a server whose name can be looked up."""
    try:
        parts = urlsplit(url)
        httpx2.URL(url)
        (parts.hostname or "").encode("idna")  # which is how it is looked up
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx2.InvalidURL):
        return False


def _message(reply: _Reply) -> str:
    try:
        return msgspec.json.decode(reply.content, type=_Refusal).error.message
    except (ValueError, RecursionError):
        return reply.content[:300].decode(errors="replace")


def _retry_after(reply: _Reply) -> float | None:
    """The seconds to wait that the `Retry-After` header asks for, as a number or as a date."""
    header = reply.headers.get("retry-after", "")
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
