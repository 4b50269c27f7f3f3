"""vLLM's routes for scores of pairs and for labels of texts, and infinity's for labels.

vLLM and infinity answer differently at one path, `/classify`. infinity's answer is given unless the
body has what only vLLM's clients send.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal
from uuid import uuid4

import msgspec
import numpy as np
import orjson
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from embedsvc.errors import BadRequest
from embedsvc.serving.score_request import Scores
from embedsvc.texts.requests import ModelName, PairFields, ScoringRequest
from embedsvc.web.answers import dump_in_turns
from embedsvc.web.dialects.openai_schema import Usage
from embedsvc.web.dialects.rerank import read_truncate
from embedsvc.web.dialects.rerank_schema import Count, Flag, LongPair, Side, Text, is_false, is_true
from embedsvc.web.dialects.rerank_texts import (
    check_number,
    listed,
    name_of,
    read_documents,
    read_query,
)
from embedsvc.web.endpoint import Endpoint, read_body
from embedsvc.web.scoring import answer_scores, values_of
from embedsvc.web.state import state_of

Texts = Annotated[Text | list[Text], Meta(description="A text, or texts.")]
PAIRS = (
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
)
"""The names of the two sides of pairs, as vLLM's clients send them."""


class ScoreBody(msgspec.Struct, kw_only=True):
    """Two fields that go together: `text_1` and `text_2`, `queries` and `documents` or `items`, or
    `data_1` and `data_2`. The first has one text, or one for each of the second."""

    model: Annotated[
        ModelName | None, Meta(description="Default: the first model that reranks.")
    ] = None
    text_1: Texts | None = None
    text_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None
    raw_scores: Flag | None = None
    use_activation: Annotated[
        Flag | None, Meta(description="False is the model's own output, not brought to 0 to 1.")
    ] = None
    max_tokens_per_doc: Count | None = None
    max_tokens_per_query: Count | None = None
    truncate: LongPair | None = None
    truncation_side: Side | None = None


class ScoreRow(msgspec.Struct):
    index: int
    object: Literal["score"]
    score: float


class ScoreAnswer(msgspec.Struct):
    """The scores in the order of the pairs."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[ScoreRow]
    usage: Usage


class ClassifyBody(msgspec.Struct, kw_only=True):
    """Texts. An `input` that is a string, `use_activation` and `activation` are vLLM's."""

    input: Annotated[str | list[str], Meta(description="A text, or texts.")]
    model: Annotated[
        ModelName | None, Meta(description="Default: the first model that classifies.")
    ] = None
    raw_scores: Flag | None = None
    use_activation: Flag | None = None
    activation: Flag | None = None
    truncate: LongPair | None = None
    truncation_side: Side | None = None


class LabelScore(msgspec.Struct):
    score: float
    label: str


class LabelRow(msgspec.Struct):
    """A text's best label and the scores of all, in the model's order, as vLLM answers."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class ClassifyAnswer(msgspec.Struct):
    """For each text its labels, best first, as infinity answers, or `LabelRow`s."""

    id: str
    object: Literal["classify", "list"]
    created: int
    model: str
    data: list[list[LabelScore] | LabelRow]
    usage: Usage


async def score(request: Request) -> Response:
    """`POST /score`: a score for each pair of texts."""
    sent = await read_body(request, ScoreBody)
    names = _sides(sent)
    most = state_of(request).settings.max_inputs
    first, second = (getattr(sent, name) for name in names)
    check_number(listed(first), most, names[0])
    documents = read_documents(second, most, names[1])
    queries = [
        read_query(query, name_of(first, names[0], i)) for i, query in enumerate(listed(first))
    ]
    asked = ScoringRequest(
        model=sent.model or "",
        query=queries[0] if len(queries) == 1 else queries,
        documents=documents,
        max_tokens_per_doc=sent.max_tokens_per_doc or None,
        max_tokens_per_query=sent.max_tokens_per_query or None,
        truncate=read_truncate(sent.truncate, sent.truncation_side),
        fields=PairFields(*names),
    )
    raw = is_true(sent.raw_scores) or is_false(sent.use_activation)
    return await answer_scores(request, asked, partial(_write_scores, asked, raw), task="rerank")


async def classify(request: Request) -> Response:
    """`POST /classify`: the labels of texts, and their scores."""
    sent = await read_body(request, ClassifyBody)
    vllms = isinstance(sent.input, str) or (sent.use_activation, sent.activation) != (None, None)
    return await answer_classify(request, sent, vllms=vllms)


async def answer_classify(request: Request, sent: ClassifyBody, *, vllms: bool) -> Response:
    """The answer that a body asks for, vLLM's or infinity's. Raises `RequestError`."""
    inputs = [sent.input] if isinstance(sent.input, str) else sent.input
    check_number(inputs, state_of(request).settings.max_inputs, "input")
    for index, text in enumerate(inputs):
        read_query(text, name_of(sent.input, "input", index))
    asked = ScoringRequest(
        model=sent.model or "",
        query=None,
        documents=inputs,
        truncate=read_truncate(sent.truncate, sent.truncation_side),
        fields=PairFields("input", "input"),
    )
    raw = is_true(sent.raw_scores) or is_false(sent.use_activation) or is_false(sent.activation)
    write = partial(_write_labels, asked, raw, vllms)
    return await answer_scores(request, asked, write, task="classify")


routes = [
    *(
        Endpoint("POST", f"{base}/score", score, body=ScoreBody, answer=ScoreAnswer)
        for base in ("", "/v1")
    ),
    *(
        Endpoint("POST", f"{base}/classify", classify, body=ClassifyBody, answer=ClassifyAnswer)
        for base in ("", "/v1")
    ),
]


def labelled(scores: Scores, *, raw: bool) -> list[list[dict[str, Any]]]:
    """The labels of each text with their scores, best first."""
    values, labels = values_of(scores, raw=raw), scores.scoring.labels
    orders = np.argsort(-scores.logits, axis=1, kind="stable").tolist()
    return [
        [{"score": row[i], "label": labels[i]} for i in order]
        for row, order in zip(values, orders, strict=True)
    ]


def _sides(sent: ScoreBody) -> tuple[str, str]:
    """The names of the fields that the pairs are in. Raises `BadRequest`."""
    given = {name for pair in PAIRS for name in pair if getattr(sent, name) is not None}
    for pair in PAIRS:
        if given == set(pair):
            return pair
    raise BadRequest("Give `text_1` and `text_2`, or `queries` and `documents`, and no others.")


def _rest(asked: ScoringRequest, scores: Scores, kind: str, name: str) -> tuple[bytes, bytes]:
    """What an answer has before its rows and after them."""
    start = {
        "id": f"{name}-{uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": asked.model or scores.model,
    }
    usage = {"prompt_tokens": scores.tokens, "total_tokens": scores.tokens}
    return b'%b,"data":[' % orjson.dumps(start)[:-1], b'],"usage":%b}' % orjson.dumps(usage)


async def _write_scores(asked: ScoringRequest, raw: bool, scores: Scores) -> list[bytes]:
    values = values_of(scores, raw=raw)[:, 0]
    rows = [{"index": i, "object": "score", "score": value} for i, value in enumerate(values)]
    start, end = _rest(asked, scores, "list", "score")
    return [start, *await dump_in_turns(rows), end]


async def _write_labels(
    asked: ScoringRequest, raw: bool, vllms: bool, scores: Scores
) -> list[bytes]:  # fmt: skip
    rows: Sequence[Any]
    if vllms:
        values, labels = values_of(scores, raw=raw), scores.scoring.labels
        rows = [
            {
                "index": index,
                "label": labels[int(np.argmax(scores.logits[index]))],
                "probs": probs,
                "num_classes": len(labels),
            }
            for index, probs in enumerate(values)
        ]
    else:
        rows = labelled(scores, raw=raw)
    start, end = _rest(asked, scores, "list" if vllms else "classify", "classify")
    return [start, *await dump_in_turns(rows), end]
