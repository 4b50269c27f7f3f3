"""From a request to its vectors, for the routes of every dialect."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from embedsvc.errors import BadRequest, ClientGone
from embedsvc.serving.engine import Embedded, Engine
from embedsvc.serving.registry import Registry
from embedsvc.serving.vectors import vectors_of
from embedsvc.telemetry.record import current
from embedsvc.texts.requests import EmbeddingRequest
from embedsvc.web.answers import Form, most_rows

T = TypeVar("T")
NUMBERS: tuple[Form, ...] = (("float", "float"),)
PATIENCE = 0.05
"""Seconds before somebody looks out for the client hanging up."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Vectors as they were asked for, and what the answer's headers say of them."""

    embedded: Embedded
    headers: list[tuple[bytes, bytes]]


async def embed(
    request: Request, wanted: EmbeddingRequest, forms: Sequence[Form] = NUMBERS
) -> Answer:
    """The vectors of a request, of the size it wants, to be written in so many forms.

    Raises `RequestError`, also where the answer would be too large, before anything is computed.

    `ClientGone` if the client hangs up before they are there; they are not computed then.
    """
    return await _while_connected(request, _embed(request, wanted, forms))


async def _embed(request: Request, wanted: EmbeddingRequest, forms: Sequence[Form]) -> Answer:
    registry: Registry = request.app.state.registry
    card, prompt = registry.card(wanted.model)
    record = current.get()
    if record is not None:
        record.model = card.id
    control = request.headers.get("cache-control", "").lower()
    caching = {"read_cache": "no-cache" not in control, "write_cache": "no-store" not in control}
    async with registry.use(wanted.model) as engine:
        most = _most_rows(engine, wanted, forms)
        embedded = await vectors_of(engine, card, prompt, wanted, most_rows=most, **caching)
    if record is not None:
        record.texts, record.tokens = len(wanted.inputs), embedded.tokens
    headers = [
        (b"openai-model", card.id.encode("ascii", "replace")),
        (b"x-embedsvc-fingerprint", engine.fingerprint.encode()),
    ]
    if embedded.truncated:
        headers.append((b"x-embedsvc-truncated", b"%d" % embedded.truncated))
    if embedded.split:
        headers.append((b"x-embedsvc-split", b"%d" % embedded.split))
    return Answer(embedded, headers)


def _most_rows(engine: Engine, wanted: EmbeddingRequest, forms: Sequence[Form]) -> int:
    """How many rows the answer may have. Raises `BadRequest` if there are more inputs than that."""
    dimensions = min(wanted.dimensions or engine.dimensions, engine.dimensions)
    most = most_rows(max(dimensions, 1), forms)
    if len(wanted.inputs) > most:
        raise BadRequest(
            f"Invalid '{wanted.fields.input}': in the form that is asked for, an answer has "
            f"{most} vectors of {dimensions} dimensions at most."
        )
    return most


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; the work is cancelled if the client hangs up first."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine is run by one
    gone: asyncio.Future[Any] | None = None

    def hung_up(_: object) -> None:
        task.cancel()

    def watch() -> None:
        nonlocal gone
        gone = asyncio.ensure_future(request.receive())  # once the body is read: the disconnect
        gone.add_done_callback(hung_up)

    # Most answers are there before it is worth the while.
    soon = asyncio.get_running_loop().call_later(PATIENCE, watch)
    try:
        return await work
    except asyncio.CancelledError:
        if gone is None or not gone.done():
            raise  # somebody else's doing
        task.uncancel()
        raise ClientGone from None
    finally:
        soon.cancel()
        if gone is not None:
            gone.remove_done_callback(hung_up)
            gone.cancel()
