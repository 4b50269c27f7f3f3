"""The routes that rank documents for a query, at all paths where clients look for them.

A body with `documents` is answered as the clients of Cohere, Jina, vLLM, infinity and llama.cpp
read it, one with `texts` as those of text-embeddings-inference do.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from embedsvc.catalog.cards import Truncate
from embedsvc.errors import BadRequest, RequestError
from embedsvc.serving.score_request import Scores
from embedsvc.texts.requests import PairFields, ScoringRequest, each_once
from embedsvc.web.answers import dump_in_turns
from embedsvc.web.bodies.json_body import fields_of, parse, wrong_field
from embedsvc.web.dialects.cohere import COHERE
from embedsvc.web.dialects.dialect import Dialect, speak
from embedsvc.web.dialects.openai_error import ErrorBody
from embedsvc.web.dialects.openai_error import write_error as write_openais
from embedsvc.web.dialects.rerank_schema import (
    LongPair,
    RerankAnswer,
    RerankBody,
    Side,
    TeiRank,
    is_false,
    is_true,
)
from embedsvc.web.dialects.rerank_texts import (
    check_number,
    listed,
    name_of,
    read_documents,
    read_query,
    to_json,
)
from embedsvc.web.dialects.tei_error import TEI, TeiErrorType
from embedsvc.web.endpoint import Endpoint, read_bytes
from embedsvc.web.scoring import answer_scores, values_of
from embedsvc.web.state import state_of

SEARCH_UNIT = 100
"""Cohere counts a query with up to so many documents as one unit."""
LONG: dict[str, Truncate] = {"none": "error", "true": "end", "false": "error"}
"""What becomes of a pair that is too long: our names for the words of other servers' clients."""


class RerankError(msgspec.Struct):
    """The errors of reranking: OpenAI's, or TEI's for a body with `texts`."""

    error: ErrorBody | str
    error_type: TeiErrorType | msgspec.UnsetType = msgspec.UNSET


async def rerank(request: Request) -> Response:
    """`POST /rerank`: documents or texts by how well they fit a query, best first."""
    return await answer_rerank(request, _read(request, await read_bytes(request)))


async def answer_rerank(
    request: Request, sent: RerankBody, *, plain_documents: bool = False
) -> Response:
    """The answer that a body asks for. Raises `RequestError`.

    Documents come back as objects, or `plain_documents` as strings.
    """
    if (sent.documents is None) == (sent.texts is None):
        raise BadRequest("Give either `documents` or `texts`.")
    asked = ScoringRequest(
        model=sent.model or "",
        query=read_query(sent.query),
        documents=_documents(request, sent),
        instruction=sent.instruction,
        max_tokens_per_doc=sent.max_tokens_per_doc or None,
        max_tokens_per_query=sent.max_tokens_per_query or None,
        truncate=read_truncate(sent.truncate, sent.truncation_direction or sent.truncation_side),
        fields=PairFields("query", "documents" if sent.texts is None else "texts"),
    )
    if sent.texts is None:
        write = partial(_write, sent, asked, plain_documents)
    else:
        write = partial(_write_ranks, sent, asked)
    return await answer_scores(request, asked, write, task="rerank")


def _at(path: str) -> Endpoint:
    return Endpoint("POST", path, rerank, body=RerankBody, answer=RerankAnswer | list[TeiRank])


PATHS = ("/rerank", "/v1/rerank", "/reranking", "/v1/reranking")
routes = [*map(_at, PATHS), _at("/v2/rerank")]


def write_error(error: RequestError) -> RerankError:
    """An error as OpenAI's clients read it, as vLLM's, infinity's and llama.cpp's do."""
    return RerankError(write_openais(error).error)


RERANK = Dialect("rerank", PATHS, RerankError, write_error)


def read_truncate(value: LongPair | None, side: Side | None) -> Truncate | None:
    """What becomes of a pair that is too long, as our own setting has it.

    >>> read_truncate(True, "Left"), read_truncate("NONE", None), read_truncate(None, None)
    ('start', 'error', None)
    """
    if value is None:
        return None if side is None else _cut(side)
    word = str(value).lower()
    if value is True and side is not None:
        return _cut(side)
    return LONG.get(word, word)  # pyright: ignore[reportReturnType] - the others are ours


def best(scores: Scores, top: int | None) -> list[int]:
    """The numbers of the best documents, best first: so many, or all."""
    ranking = scores.ranking()
    return ranking[:top] if top is not None and top > 0 else ranking


def _cut(side: Side) -> Truncate:
    return "start" if side.lower() == "left" else "end"


def _read(request: Request, body: bytes) -> RerankBody:
    """The body. Where it is for TEI, errors are written as TEI's clients read them.

    Raises `BadRequest`.
    """
    try:
        sent = parse(body, RerankBody)
    except msgspec.ValidationError as error:
        fields = fields_of(body)
        _speak(request, "texts" in fields and "documents" not in fields)
        raise wrong_field(fields, RerankBody, str(error)) from None
    _speak(request, sent.texts is not None and sent.documents is None)
    return sent


def _speak(request: Request, texts: bool) -> None:
    if texts and not request.scope["path"].startswith(COHERE.paths):
        speak(request, TEI)


def _documents(request: Request, sent: RerankBody) -> list[str]:
    most = state_of(request).settings.max_inputs
    if sent.texts is not None:
        check_number(sent.texts, most, "texts")
        return sent.texts
    each_once("rank_fields", sent.rank_fields or ())
    texts = read_documents(sent.documents, most, rank_fields=sent.rank_fields or ())
    if is_true(sent.return_documents):
        for index, document in enumerate(listed(sent.documents)):
            if not isinstance(document, str):  # is refused before anything is computed
                to_json({"document": document}, name_of(sent.documents, "documents", index))
    return texts


async def _write(
    sent: RerankBody, asked: ScoringRequest, plain_documents: bool, scores: Scores
) -> list[bytes]:
    """The object with the results, in pieces."""
    raw = is_true(sent.raw_scores) or is_false(sent.use_activation)
    values = values_of(scores, raw=raw)[:, 0]
    order = best(scores, sent.top_n if sent.top_n is not None else sent.top_k)
    rows: list[dict[str, Any]] = [{"index": i, "relevance_score": values[i]} for i in order]
    if is_true(sent.return_documents):
        given = listed(sent.documents)
        for row, i in zip(rows, order, strict=True):
            text = asked.documents[i]
            row["document"] = text if plain_documents else _document(given[i], text)
    tokens = {"input_tokens": scores.tokens, "output_tokens": 0}
    units = -(-len(asked.documents) // SEARCH_UNIT)
    end = {
        "usage": {"prompt_tokens": scores.tokens, "total_tokens": scores.tokens},
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": units, "total_tokens": scores.tokens},
            "tokens": tokens,
        },
        "tokens": tokens,
    }
    start = {
        "id": f"rerank-{uuid4().hex}",
        "object": "rerank",
        "created": int(time.time()),
        "model": asked.model or scores.model,
    }
    return [
        b'%b,"results":[' % orjson.dumps(start)[:-1],
        *await dump_in_turns(rows),
        b"],%b" % orjson.dumps(end)[1:],
    ]


def _document(given: str | dict[str, Any], text: str) -> dict[str, Any]:
    """A document as it was sent, and its text, as an object: nearly all clients read one."""
    return {"text": text} if isinstance(given, str) else {"text": text} | given


async def _write_ranks(sent: RerankBody, asked: ScoringRequest, scores: Scores) -> list[bytes]:
    """The list that the clients of TEI read, which has all texts."""
    return await write_ranks(
        scores,
        values_of(scores, raw=is_true(sent.raw_scores))[:, 0],
        asked.documents if is_true(sent.return_text) else None,
    )


async def write_ranks(
    scores: Scores, values: NDArray[np.floating], texts: Sequence[str] | None
) -> list[bytes]:
    """A list of ranks with their scores (n,), and their texts if those are wanted, best first."""
    order = best(scores, None)
    rows: list[dict[str, Any]] = [{"index": i, "score": values[i]} for i in order]
    if texts is not None:
        for row, i in zip(rows, order, strict=True):
            row["text"] = texts[i]
    return [b"[", *await dump_in_turns(rows), b"]"]
