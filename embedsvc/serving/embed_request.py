"""From a request for vectors to the vectors, whoever asks: a route, or a command in this process.

The engine computes; here a request is held against the model's card: its prompt, its rule for long
texts, and the dimensions it asks for.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from embedsvc.bounds import CHUNKS
from embedsvc.catalog.cards import Card
from embedsvc.errors import BadRequest
from embedsvc.inference.heads.sparse_vector import SparseVector, pruned
from embedsvc.serving.embedded import Embedded
from embedsvc.serving.engine import Engine
from embedsvc.serving.matryoshka import check_dimensions, shorten
from embedsvc.texts.inputs import InputOptions
from embedsvc.texts.prompts import choose, is_query
from embedsvc.texts.requests import EmbeddingRequest, SparseOptions
from embedsvc.texts.truncation import Rule


async def embed_request(
    engine: Engine,
    card: Card,
    prompt: str | None,
    request: EmbeddingRequest,
    *,
    most_rows: int = CHUNKS,
    most_tokens: int | None = None,
    read_cache: bool = True,
    write_cache: bool = True,
) -> Embedded:
    """The vectors that a request asks for.

    `prompt` is the name of the prompt that the model's name stands for, if it does (`e5:query`).
    With late chunking there may be `most_rows` vectors. `most_tokens` is how many all inputs may
    have; None: as the server is set. Raises `RequestError`.
    """
    if request.dimensions is not None and request.dense:
        field = request.fields.dimensions
        check_dimensions(request.dimensions, engine.dimensions, card.dimensions, field)
    options = InputOptions(
        choose(engine.checkpoint.prompts, request, prompt, engine.checkpoint.default_prompt),
        _rule_for_long_texts(engine, card, request, most_tokens or engine.max_request_tokens),
        card.token_ids,
        request.fields.input,
        request.max_tokens,
    )
    caching = {"read_cache": read_cache, "write_cache": write_cache}
    heads = heads_for(engine, request)
    if request.chunks is None:
        asked, default = is_query(request, prompt), engine.queries
        query = default is not None and default.by_default if asked is None else asked
        embedded = await engine.embed(
            request.inputs, options, heads=heads, queries=query, **caching
        )
    else:
        embedded = await engine.embed_chunks(
            request.inputs, options, request.chunks, most_rows=most_rows, **caching
        )
    if request.dimensions is not None and request.dense:
        vectors = shorten(embedded.vectors, request.dimensions, layer_norm=card.layer_norm)
        embedded = replace(embedded, vectors=vectors)
    if request.sparse is not None and embedded.sparse is not None:
        # A vector may have as many weights as the vocabulary has tokens: the event loop goes on.
        sparse = await asyncio.to_thread(_prune, embedded.sparse, request.sparse)
        embedded = replace(embedded, sparse=sparse)
    return embedded


def heads_for(engine: Engine, request: EmbeddingRequest) -> list[str]:
    """The heads that a request asks for. Raises `BadRequest` if the model lacks one of them."""
    heads = ["vector"] if request.dense else []
    if request.sparse is not None:
        heads.append(engine.sparse_head)
    for head in heads:
        engine.check_head(head)
    if request.chunks is not None and heads != ["vector"]:
        raise BadRequest("Late chunking gives vectors alone, and no sparse ones.")
    return heads


def _prune(vectors: Sequence[SparseVector], asked: SparseOptions) -> list[SparseVector]:
    return [pruned(vector, asked.most, asked.least) for vector in vectors]


def _rule_for_long_texts(
    engine: Engine, card: Card, request: EmbeddingRequest, most_tokens: int
) -> Rule:
    """What becomes of texts that are too long.

    The request says it, else the model's card, else the server's setting, else the custom of the
    request's dialect, which may also bound how long a text may be.
    """
    explicit, custom = request.truncate or card.truncate or engine.truncate, request.otherwise
    longest = None if explicit else custom.longest
    return Rule(explicit or custom.truncate, longest, custom.remedy, most_tokens)
