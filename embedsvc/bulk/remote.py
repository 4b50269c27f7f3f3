"""A server that speaks OpenAI's API, this one or another, and may be busy or away for a while."""

import asyncio
import binascii
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import urlsplit

import httpx2
import msgspec
import numpy as np
from numpy.typing import NDArray

from embedsvc.bulk.about import How
from embedsvc.engine import Embedded
from embedsvc.errors import BadRequest, BulkError, EmbeddingFailed
from embedsvc.http.schema import ChunkRow
from embedsvc.texts.late_chunking import Chunk

AGAIN = (408, 409, 425, 429, 502, 503, 504)
"""Answers of a server that may do better later."""
WRONG = (400, 413, 422)
"""Answers to a request that will not do better later."""
PATIENCE_SECONDS = 600.0
"""How long one request is tried."""
MOST_SECONDS = 30.0
"""Between tries, where the server does not say."""
TIMEOUT = httpx2.Timeout(600.0, connect=10.0, pool=None)


class _Row(msgspec.Struct):
    index: int
    embedding: str | list[float]
    chunk: ChunkRow | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class _Answer(msgspec.Struct):
    data: list[_Row]
    usage: _Usage | None = None


class _Named(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Named]


class _Error(msgspec.Struct):
    message: str


class _Refusal(msgspec.Struct):
    error: _Error


Sleep = Callable[[float], Awaitable[None]]


class Remote:
    """A server's model; see `Embedder`."""

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
        """As asked for, until an answer tells the name behind an alias."""
        self.calls = calls
        self._asked = model
        self._client = client
        self._url = str(client.base_url).rstrip("/")
        self._patience = patience
        self._sleep = sleep

    async def embed(self, texts: Sequence[str], how: How) -> Embedded:
        asked = {"model": self._asked, "input": texts, "encoding_format": "base64"}
        body = msgspec.json.encode(asked | msgspec.to_builtins(how))
        response = await self.ask("POST", "/embeddings", body)
        self.model = response.headers.get("openai-model", self.model)
        try:
            answer = msgspec.json.decode(response.content, type=_Answer)
            rows = sorted(answer.data, key=lambda row: row.index)
            if [row.index for row in rows] != list(range(len(rows))):
                raise ValueError("rows are missing")
            chunks = _chunks(rows, len(texts)) if how.chunking else None
            if chunks is None and len(rows) != len(texts):
                raise ValueError(f"{len(rows)} vectors for {len(texts)} texts")
            vectors = np.stack([_vector(row.embedding) for row in rows])
            if not np.isfinite(vectors).all():
                raise ValueError("a vector is not finite")
        except (ValueError, binascii.Error) as error:  # among them msgspec's
            raise BulkError(f"{self._url}: no embeddings: {error}") from None
        return Embedded(
            vectors,
            answer.usage.prompt_tokens if answer.usage else 0,
            int(response.headers.get("x-embedsvc-truncated", 0)),
            int(response.headers.get("x-embedsvc-split", 0)),
            chunks,
        )

    async def first_model(self) -> str:
        """The first that the server lists. Raises `BulkError`."""
        response = await self.ask("GET", "/models", b"")
        try:
            return msgspec.json.decode(response.content, type=_Models).data[0].id
        except (msgspec.MsgspecError, IndexError):
            raise BulkError(f"{self._url} lists no models: say --model") from None

    async def ask(self, method: str, path: str, body: bytes) -> httpx2.Response:
        """A good answer, however often it has to be asked for.

        Raises `RequestError` if the request is at fault, `BulkError` if the server is.
        """
        deadline = time.monotonic() + self._patience
        pause = 0.5
        while True:
            wait = None
            try:
                response = await self._client.request(method, path, content=body)
            except httpx2.TransportError as error:
                trouble = f"{type(error).__name__} {error}".strip()
            else:
                if response.status_code == HTTPStatus.OK:
                    return response
                message = _message(response)
                if response.status_code in WRONG:
                    raise BadRequest(message)
                if response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise EmbeddingFailed(message)
                trouble = f"{response.status_code}: {message}"
                if response.status_code not in AGAIN:
                    raise BulkError(f"{self._url}: {trouble}")
                wait = _retry_after(response)
            if wait is None:
                wait = pause * random.uniform(0.5, 1)  # noqa: S311 - not to come all at once
                pause = min(2 * pause, MOST_SECONDS)
            if time.monotonic() + wait > deadline:
                raise BulkError(f"{self._url}: {trouble}")
            await self._sleep(wait)


@asynccontextmanager
async def open_remote(
    url: str, key: str, model: str | None, calls: int
) -> AsyncGenerator[Remote, None]:
    """A server's model of that name, or the first it lists. Raises `BulkError`."""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise BulkError(f"--url must be like http://127.0.0.1:8000/v1, not {url}")
    base = url.rstrip("/").removesuffix("/embeddings")
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    limits = httpx2.Limits(max_connections=calls, max_keepalive_connections=calls)
    async with httpx2.AsyncClient(
        base_url=base, headers=headers, limits=limits, timeout=TIMEOUT
    ) as client:
        yield Remote(client, model or await Remote(client, "", calls).first_model(), calls)


def _vector(sent: str | list[float]) -> NDArray[np.float32]:
    if isinstance(sent, str):
        return np.frombuffer(binascii.a2b_base64(sent), "<f4")
    return np.array(sent, np.float32)


def _chunks(rows: Sequence[_Row], texts: int) -> list[list[Chunk]]:
    chunks: list[list[Chunk]] = [[] for _ in range(texts)]
    for row in rows:
        if row.chunk is None:
            raise ValueError("the server does not do late chunking")
        chunks[row.chunk.input].append(Chunk(row.chunk.start, row.chunk.end, row.chunk.tokens))
    return chunks


def _message(response: httpx2.Response) -> str:
    try:
        return msgspec.json.decode(response.content, type=_Refusal).error.message
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return response.text[:300]


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds; the header has them, or a date."""
    said = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return None
