"""Pairs of texts whose score is a cosine: what a model of vectors makes of a request for scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Card
from embedsvc.errors import BadRequest, TooManyTokens
from embedsvc.serving.engine import Engine
from embedsvc.texts.inputs import InputOptions, Tokenized, tokenize
from embedsvc.texts.prompts import choose
from embedsvc.texts.requests import EmbeddingRequest, ScoringRequest
from embedsvc.texts.steps import Steps
from embedsvc.texts.tokenizer import Tokenizer
from embedsvc.texts.truncation import Rule

Side = tuple[list[str], InputOptions]
"""Texts, and how they are tokenised."""


@dataclass(frozen=True, slots=True)
class Cosines:
    """The cosines of one request, and what became of its texts."""

    values: NDArray[np.float32]  # (n,)
    tokens: int
    """Tokens of all texts, special tokens included. A query of many documents counts once."""
    truncated: int
    """How many pairs have a text that was cut."""


async def cosines_of(
    engine: Engine,
    card: Card,
    request: ScoringRequest,
    rule: Rule,
    *,
    read_cache: bool = True,
    write_cache: bool = True,
) -> Cosines:
    """The cosine of each query and its document, each with its prompt. Raises `RequestError`."""
    engine.check_head("vector")
    queries = [query for query in request.given_queries if query is not None]
    if len(queries) < len(request.given_queries):
        raise BadRequest(f"Invalid '{request.fields.query}': model `{card.id}` compares two texts.")
    sides: list[Side] = [
        (texts, InputOptions(_prompt(engine, request, prompt), rule, field=field, max_tokens=most))
        for texts, prompt, field, most in (
            (
                queries,
                request.query_prompt,
                request.fields.query,
                request.max_tokens_per_query,
            ),
            (
                list(request.documents),
                request.document_prompt,
                request.fields.documents,
                request.max_tokens_per_doc,
            ),
        )
    ]
    work = _tokenize(engine.tokenizer, sides, rule.request_tokens)
    count = sum(len(texts) for texts, _ in sides)
    characters = sum(len(text) + len(how.prompt) for texts, how in sides for text in texts)
    first, second = await engine.tokenized(work, count, characters, here=True)
    items = [*first.items, *second.items]
    vectors = await engine.run("vector", items, read=read_cache, write=write_cache)
    a, b = np.split(vectors.astype(np.float64), [len(first.items)])
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    values = np.clip((a * b).sum(axis=1) / lengths, -1, 1).astype(np.float32)
    truncated = int((np.array(first.were_cut) | np.array(second.were_cut)).sum())
    engine.truncated += truncated
    return Cosines(values, sum(map(len, items)), truncated)


def _prompt(engine: Engine, request: ScoringRequest, name: str | None) -> str:
    """The prompt of that name; the model's default if there is no name."""
    asked = EmbeddingRequest(model=engine.checkpoint.card.id, inputs=[], input_type=name)
    return choose(engine.checkpoint.prompts, asked, None, engine.checkpoint.default_prompt)


def _tokenize(tokenizer: Tokenizer, sides: Sequence[Side], most: int) -> Steps[list[Tokenized]]:
    """The texts of all sides, one side after the other. Raises `RequestError`."""
    found: list[Tokenized] = []
    for texts, options in sides:
        if found:
            yield
        found.append((yield from tokenize(tokenizer, texts, options)))
    tokens = sum(len(item) for side in found for item in side.items)
    if tokens > most:
        raise TooManyTokens(tokens, most)
    return found
