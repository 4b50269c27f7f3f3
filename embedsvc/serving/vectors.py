"""From a request to its vectors, whoever asks: a route, or a command in this process."""

from dataclasses import replace

from embedsvc.bounds import CHUNKS
from embedsvc.catalog.cards import Card
from embedsvc.serving import matryoshka
from embedsvc.serving.engine import Embedded, Engine
from embedsvc.texts.inputs import Reading
from embedsvc.texts.prompts import choose
from embedsvc.texts.requests import EmbeddingRequest
from embedsvc.texts.truncation import Rule


async def vectors_of(
    engine: Engine,
    card: Card,
    prompt: str | None,
    wanted: EmbeddingRequest,
    *,
    most_rows: int = CHUNKS,
    read_cache: bool = True,
    write_cache: bool = True,
) -> Embedded:
    """The vectors, of the size wanted; `prompt` is the one named with the model, if any.

    With late chunking there are no more than `most_rows`.

    Raises `RequestError`.
    """
    if wanted.dimensions is not None:
        field = wanted.fields.dimensions
        matryoshka.check(wanted.dimensions, engine.dimensions, card.dimensions, field)
    reading = Reading(
        choose(engine.checkpoint.prompts, wanted, prompt, engine.checkpoint.default_prompt),
        _rule(engine, card, wanted),
        card.token_ids,
        wanted.fields.input,
    )
    caching = {"read_cache": read_cache, "write_cache": write_cache}
    if wanted.chunks is None:
        embedded = await engine.embed(wanted.inputs, reading, **caching)
    else:
        embedded = await engine.embed_chunks(
            wanted.inputs, reading, wanted.chunks, most_rows=most_rows, **caching
        )
    if wanted.dimensions is not None:
        cut = matryoshka.cut(embedded.vectors, wanted.dimensions, layer_norm=card.layer_norm)
        embedded = replace(embedded, vectors=cut)
    return embedded


def _rule(engine: Engine, card: Card, wanted: EmbeddingRequest) -> Rule:
    """What becomes of texts that are too long: what the request says, else its model's card, else
    the server's setting, else what is the custom in the request's dialect."""
    said, custom = wanted.truncate or card.truncate or engine.truncate, wanted.otherwise
    longest = None if said else custom.longest
    return Rule(said or custom.truncate, longest, custom.remedy, engine.max_request_tokens)
