"""Voyage's route for reranking, below `/voyage`: its path is Cohere's, and its answer is not.

A client of Voyage's takes `http://127.0.0.1:8000/voyage/v1` as its base URL.
"""

from functools import partial
from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from embedsvc.errors import RequestError
from embedsvc.serving.score_request import Scores
from embedsvc.texts.requests import ModelName, ScoringRequest
from embedsvc.texts.truncation import Rule
from embedsvc.web.answers import dump_in_turns
from embedsvc.web.dialects.dialect import Dialect
from embedsvc.web.dialects.rerank import best
from embedsvc.web.dialects.rerank_schema import Count
from embedsvc.web.dialects.rerank_texts import read_documents, read_query
from embedsvc.web.endpoint import Endpoint, read_body
from embedsvc.web.scoring import answer_scores, values_of
from embedsvc.web.state import state_of

CUT = Rule("end", remedy='send "truncation": true')


class VoyageRerankBody(msgspec.Struct):
    query: str
    documents: list[str]
    model: ModelName
    top_k: Annotated[Count | None, Meta(description="So many of the best; 0 is all.")] = None
    return_documents: bool | None = None
    truncation: Annotated[
        bool | None, Meta(description="Whether pairs that are too long are cut.")
    ] = None


class VoyageRank(msgspec.Struct):
    index: int
    relevance_score: float
    document: str | msgspec.UnsetType = msgspec.UNSET


class VoyageUsage(msgspec.Struct):
    total_tokens: int


class VoyageRerankAnswer(msgspec.Struct):
    """The documents, best first."""

    object: Literal["list"]
    data: list[VoyageRank]
    model: str
    usage: VoyageUsage


class VoyageError(msgspec.Struct):
    """Voyage's errors."""

    detail: str


async def rerank(request: Request) -> Response:
    """`POST /voyage/v1/rerank`: documents by how well they fit a query, for Voyage's clients."""
    sent = await read_body(request, VoyageRerankBody)
    asked = ScoringRequest(
        model=sent.model,
        query=read_query(sent.query),
        documents=read_documents(sent.documents, state_of(request).settings.max_inputs),
        truncate=None if sent.truncation is None else "end" if sent.truncation else "error",
        otherwise=CUT,
    )
    return await answer_scores(request, asked, partial(_write, sent), task="rerank")


routes = [
    Endpoint("POST", "/voyage/v1/rerank", rerank, body=VoyageRerankBody, answer=VoyageRerankAnswer)
]


def write_error(error: RequestError) -> VoyageError:
    """An error as Voyage's clients read it."""
    return VoyageError(error.message)


VOYAGE = Dialect("voyage", ("/voyage",), VoyageError, write_error)


async def _write(sent: VoyageRerankBody, scores: Scores) -> list[bytes]:
    values = values_of(scores, raw=False)[:, 0]
    order = best(scores, sent.top_k)
    rows: list[dict[str, Any]] = [{"relevance_score": values[i], "index": i} for i in order]
    if sent.return_documents:
        for row in rows:
            row["document"] = sent.documents[row["index"]]
    end = {"model": sent.model, "usage": {"total_tokens": scores.tokens}}
    return [
        b'{"object":"list","data":[',
        *await dump_in_turns(rows),
        b"],%b" % orjson.dumps(end)[1:],
    ]
