"""The one way from a request for vectors to its answer, whichever dialect it came in.

A route reads its body into an `EmbeddingRequest` and calls `answer_embeddings` with a function that
writes the vectors as the clients of its dialect read them. Everything between is here.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from embedsvc.errors import BadRequest, ClientGone
from embedsvc.serving.embed_request import embed_request
from embedsvc.serving.engine import Embedded, Engine
from embedsvc.telemetry.record import current
from embedsvc.texts.requests import EmbeddingRequest
from embedsvc.web.answers import FLOATS, Form, most_rows
from embedsvc.web.endpoint import JsonResponse
from embedsvc.web.state import registry_of

T = TypeVar("T")
HEAD = "vector"
"""What these routes ask of a model; see `inference/heads`."""
PATIENCE = 0.05
"""Seconds before a request looks whether its client has hung up. Most answers are there sooner."""
Headers = list[tuple[bytes, bytes]]


class Write(Protocol):
    """How a dialect writes vectors: the body of the answer, whole or in pieces."""

    async def __call__(self, embedded: Embedded, /) -> bytes | list[bytes]: ...


class Check(Protocol):
    """What a dialect asks of a model before it computes anything. Raises `BadRequest`."""

    def __call__(self, engine: Engine, /) -> None: ...


async def answer_embeddings(
    request: Request,
    asked: EmbeddingRequest,
    write: Write,
    *,
    forms: Sequence[Form] = (FLOATS,),
    check: Check | None = None,
) -> Response:
    """The answer to a request for vectors. `forms` are those that `write` writes each vector in.

    Raises `RequestError`; before anything is computed if the model gives no vectors or the answer
    would be too large. Raises `ClientGone` if the client hangs up first, and computes no further.
    """
    embedded, headers = await _while_connected(request, _embed(request, asked, forms, check))
    return JsonResponse(await write(embedded), headers)


async def load_for_embeddings(request: Request, model: str) -> None:
    """Have a model loaded, as clients do who ask it for nothing.

    Raises `RequestError`, also if it gives no vectors.
    """
    async with registry_of(request).use(model) as engine:
        engine.check_head(HEAD)


async def _embed(
    request: Request, asked: EmbeddingRequest, forms: Sequence[Form], check: Check | None
) -> tuple[Embedded, Headers]:
    registry = registry_of(request)
    card, prompt = registry.card(asked.model)
    record = current.get()
    if record is not None:
        record.model = card.id
    control = request.headers.get("cache-control", "").lower()
    caching = {"read_cache": "no-cache" not in control, "write_cache": "no-store" not in control}
    async with registry.use(asked.model) as engine:
        engine.check_head(HEAD)
        if check is not None:
            check(engine)
        most = _most_rows(engine, asked, forms)
        embedded = await embed_request(engine, card, prompt, asked, most_rows=most, **caching)
    if record is not None:
        record.texts, record.tokens = len(asked.inputs), embedded.tokens
    headers = [
        (b"openai-model", card.id.encode("ascii", "replace")),
        (b"x-embedsvc-fingerprint", engine.fingerprint.encode()),
    ]
    if embedded.truncated:
        headers.append((b"x-embedsvc-truncated", b"%d" % embedded.truncated))
    if embedded.split:
        headers.append((b"x-embedsvc-split", b"%d" % embedded.split))
    return embedded, headers


def _most_rows(engine: Engine, asked: EmbeddingRequest, forms: Sequence[Form]) -> int:
    """How many rows the answer may have. Raises `BadRequest` if there are more inputs than that."""
    dimensions = min(asked.dimensions or engine.dimensions, engine.dimensions)
    most = most_rows(max(dimensions, 1), forms)
    if len(asked.inputs) > most:
        raise BadRequest(
            f"Invalid '{asked.fields.input}': in the form that is asked for, an answer has "
            f"{most} vectors of {dimensions} dimensions at most."
        )
    return most


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work, which is cancelled if the client hangs up first.

    Raises `ClientGone` then.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine is run by one
    gone: asyncio.Future[Any] | None = None
    over = False

    def hung_up(_: object) -> None:
        if not over:  # it may be called after the work has ended, while the answer is written
            task.cancel()

    def watch() -> None:
        nonlocal gone
        # The body has been read, so what the server tells next is that the client hung up.
        gone = asyncio.ensure_future(request.receive())
        gone.add_done_callback(hung_up)

    soon = asyncio.get_running_loop().call_later(PATIENCE, watch)
    try:
        return await work
    except asyncio.CancelledError:
        if gone is None or not gone.done():
            raise  # somebody else cancelled the task
        task.uncancel()
        raise ClientGone from None
    finally:
        over = True
        soon.cancel()
        if gone is not None:
            gone.cancel()
