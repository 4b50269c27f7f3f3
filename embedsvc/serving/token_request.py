"""From a request for vectors of tokens to the vectors, and from a query and documents to their
scores by late interaction (MaxSim)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Card
from embedsvc.errors import BadRequest, TooManyTokens
from embedsvc.inference.heads.tokens import TokenVectors
from embedsvc.serving.engine import Engine
from embedsvc.texts.inputs import InputOptions, Tokenized, count_characters
from embedsvc.texts.item import Item
from embedsvc.texts.prompts import SYNONYMS, choose
from embedsvc.texts.requests import EmbeddingRequest, Fields, ScoringRequest
from embedsvc.texts.roles import Role, find_role, open_roles
from embedsvc.texts.truncation import Rule

GROUP_TOKENS = 1 << 16
"""Tokens of documents whose vectors are in memory at once while they are scored."""
GROUP_SECONDS = 0.1
"""How long it takes to score them, on a slow machine."""


@dataclass(frozen=True, slots=True)
class EmbeddedTokens:
    """The vectors of tokens of one request, and what became of its inputs."""

    vectors: list[TokenVectors]
    """(n, d) for each input."""
    tokens: int
    """Tokens of all inputs, those included that have no vector, and those that expand queries."""
    truncated: int = 0
    """How many inputs were cut."""


@dataclass(frozen=True, slots=True)
class MaxSims:
    """The scores of one request, and what became of its texts."""

    scores: NDArray[np.float32]  # (n,)
    tokens: int
    """Tokens of all texts. A query counts once."""
    truncated: int
    """How many texts were cut."""


async def embed_tokens(
    engine: Engine,
    card: Card,
    prompt: str | None,
    request: EmbeddingRequest,
    *,
    most_rows: int | None = None,
    read_cache: bool = True,
    write_cache: bool = True,
) -> EmbeddedTokens:
    """The vectors of tokens that a request asks for, `most_rows` of them at most. Its texts are
    documents unless a prompt for queries is named. Raises `RequestError`."""
    role = find_role(request, prompt)
    rule = Rule(
        request.truncate or card.truncate or engine.truncate or request.otherwise.truncate,
        remedy=request.otherwise.remedy,
        request_tokens=engine.max_request_tokens,
    )
    if request.truncate == "chunk":
        raise BadRequest("Invalid 'truncate': expected error, end or start for vectors of tokens.")
    tokenized = await _tokenize(engine, card, request, prompt, role, rule)
    items = tokenized.items
    rows = sum(item.count_kept() for item in items)
    if most_rows is not None and rows > most_rows:
        raise BadRequest(
            f"Invalid '{request.fields.input}': in the form that is asked for, an answer has "
            f"{most_rows} vectors of {engine.dimensions} dimensions at most, and these texts have "
            f"{rows}."
        )
    vectors = await engine.run("tokens", items, read=read_cache, write=write_cache)
    engine.truncated += tokenized.cut
    return EmbeddedTokens(vectors, sum(map(len, items)), tokenized.cut)


async def score_tokens(
    engine: Engine,
    card: Card,
    request: ScoringRequest,
    rule: Rule,
    *,
    read_cache: bool = True,
    write_cache: bool = True,
) -> MaxSims:
    """The scores of a request's documents. Raises `RequestError`.

    Vectors of documents are kept in float16. A few documents at a time are computed and scored, the
    first of them together with the queries.
    """
    queries = request.queries
    distinct = list(dict.fromkeys(query for query in queries if query is not None))
    if None in queries:
        raise BadRequest(f"Invalid '{request.fields.query}': model `{card.id}` compares two texts.")

    async def tokenize(inputs: list[str], role: Role) -> Tokenized:
        first = role == "query"
        asked = EmbeddingRequest(
            model=request.model,
            inputs=inputs,
            input_type=(request.query_prompt if first else request.document_prompt) or role,
            max_tokens=request.max_tokens_per_query if first else request.max_tokens_per_doc,
            fields=Fields(request.fields.query if first else request.fields.documents),
        )
        return await _tokenize(engine, card, asked, None, role, rule, half=not first)

    first, second = (
        await tokenize(distinct, "query"),
        await tokenize([*request.documents], "document"),
    )
    tokens = sum(map(len, (*first.items, *second.items)))
    if tokens > rule.request_tokens:
        raise TooManyTokens(tokens, rule.request_tokens)
    scores, device = np.empty(len(queries), np.float32), engine.device
    of_queries: dict[str | None, Any] = {}
    before = first.items
    for group in _groups(second.items):
        items = [*before, *(second.items[i] for i in group)]
        vectors: list[Any] = await engine.run("tokens", items, read=read_cache, write=write_cache)
        if before:
            of_queries = dict(zip(distinct, vectors, strict=False))
        documents = dict(zip(group, vectors[len(before) :], strict=True))
        before = []
        for query, places in _by_query(queries, group).items():
            work = partial(device.ops.maxsim, of_queries[query], [documents[i] for i in places])
            scores[places] = await device.run(work, GROUP_SECONDS)
    late = engine.checkpoint.late
    if late is not None and late.mean:
        scores /= np.array([len(of_queries[query]) for query in queries], np.float32)
    cut = first.cut + second.cut
    engine.truncated += cut
    return MaxSims(scores, tokens, cut)


async def _tokenize(
    engine: Engine,
    card: Card,
    request: EmbeddingRequest,
    prompt: str | None,
    role: Role,
    rule: Rule,
    *,
    half: bool = False,
) -> Tokenized:
    """The items of a request's texts, which are read as that role."""
    engine.check_head("tokens")
    roles, prompts = open_roles(engine.checkpoint, engine.tokenizer), engine.checkpoint.prompts
    named = request.prompt_name or request.input_type or prompt
    if not named and any(name in prompts for name in SYNONYMS[role]):
        request = msgspec.structs.replace(request, input_type=role)
    options = InputOptions(
        choose(prompts, request, prompt, engine.checkpoint.default_prompt),
        rule,
        card.token_ids,
        request.fields.input,
        request.max_tokens,
    )
    work = roles.tokenize(request.inputs, options, role, half=half)
    characters = count_characters(request.inputs, options)
    here = isinstance(request.inputs[0], str)
    return await engine.tokenized(work, len(request.inputs), characters, here=here)


def _by_query(queries: Sequence[str | None], group: Sequence[int]) -> dict[str | None, list[int]]:
    """The places of a group that each query has.

    >>> _by_query(["a", "b", "a", "c"], [0, 1, 2])
    {'a': [0, 2], 'b': [1]}
    """
    found: dict[str | None, list[int]] = {}
    for place in group:
        found.setdefault(queries[place], []).append(place)
    return found


def _groups(items: Sequence[Item]) -> Iterator[list[int]]:
    """The places of items in groups of `GROUP_TOKENS` tokens, or of one item with more."""
    group: list[int] = []
    tokens = 0
    for place, item in enumerate(items):
        if group and tokens + len(item) > GROUP_TOKENS:
            yield group
            group, tokens = [], 0
        group.append(place)
        tokens += len(item)
    yield group
