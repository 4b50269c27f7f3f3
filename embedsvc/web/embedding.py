"""The one way from a request for vectors to its answer, whichever dialect it came in.

A route reads its body into an `EmbeddingRequest` and calls `answer_embeddings` with a function that
writes the vectors as the clients of its dialect read them. Everything between is here, and what
scores need as well is in `web/computing.py`.
"""

from collections.abc import Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from embedsvc.catalog.cards import Card, Task
from embedsvc.errors import BadRequest
from embedsvc.serving.embed_request import embed_request, heads_for
from embedsvc.serving.embedded import Embedded
from embedsvc.serving.engine import Engine
from embedsvc.texts.requests import EmbeddingRequest
from embedsvc.web.answers import FLOATS, Form, most_rows
from embedsvc.web.computing import Caching, compute
from embedsvc.web.endpoint import JsonResponse
from embedsvc.web.state import registry_of


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

    async def embed(engine: Engine, card: Card, prompt: str | None, caching: Caching) -> Embedded:
        heads_for(engine, asked)
        if check is not None:
            check(engine)
        most = _most_rows(engine, asked, forms)
        return await embed_request(engine, card, prompt, asked, most_rows=most, **caching)

    task: Task = "embed" if asked.dense else "sparse"
    embedded, headers = await compute(request, asked.model, task, len(asked.inputs), embed)
    if embedded.split:
        headers.append((b"x-embedsvc-split", b"%d" % embedded.split))
    return JsonResponse(await write(embedded), headers)


async def load_for_embeddings(request: Request, model: str) -> None:
    """Have a model loaded, as clients do who ask it for nothing.

    Raises `RequestError`, also if it gives no vectors.
    """
    async with registry_of(request).use(model) as engine:
        engine.check_head("vector")


def _most_rows(engine: Engine, asked: EmbeddingRequest, forms: Sequence[Form]) -> int:
    """How many rows the answer may have. Raises `BadRequest` if there are more inputs than that."""
    dimensions = min(asked.dimensions or engine.dimensions, engine.dimensions)
    most = most_rows(max(dimensions, 1), forms)
    if asked.dense and len(asked.inputs) > most:
        raise BadRequest(
            f"Invalid '{asked.fields.input}': in the form that is asked for, an answer has "
            f"{most} vectors of {dimensions} dimensions at most."
        )
    return most
