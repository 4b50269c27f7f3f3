"""The routes of Hugging Face's text-embeddings-inference (TEI) that give scores.

Its server has one model. Here that is the first in the cards file that does what the route is for,
unless the body has a `model`, which is our own addition. `/rerank` is in `rerank.py`. `POST /` does
what the model is for.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar, cast

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from embedsvc.errors import BadRequest, EmptyInput
from embedsvc.serving.score_request import Scores
from embedsvc.texts.requests import (
    Choice,
    Dimensions,
    ModelName,
    PairFields,
    ScoringRequest,
)
from embedsvc.texts.truncation import Rule
from embedsvc.web.answers import dump_in_turns
from embedsvc.web.dialects.rerank import answer_rerank, read_truncate
from embedsvc.web.dialects.rerank_schema import RerankBody, Side
from embedsvc.web.dialects.rerank_texts import check_number, read_query
from embedsvc.web.dialects.score import LabelScore, labelled
from embedsvc.web.dialects.tei import TeiEmbedBody, TeiSparseBody, embed, embed_sparse
from embedsvc.web.endpoint import Endpoint, read_body
from embedsvc.web.scoring import answer_scores, first_model, values_of
from embedsvc.web.state import registry_of, state_of

S = TypeVar("S", bound=msgspec.Struct)
CUT = Rule("end", remedy='send "truncate": true')
Inputs = Annotated[
    str | list[str | list[str]], Meta(description="A text, a pair, or lists of one text or two.")
]
SHAPES = "expected a text, a pair of texts, or a list of lists of one text or two"


class Sentences(msgspec.Struct):
    source_sentence: str
    sentences: list[str]


class SimilarityParameters(msgspec.Struct):
    truncate: bool | None = None
    truncation_direction: Side | None = None
    prompt_name: Choice | None = None


class SimilarityBody(msgspec.Struct):
    inputs: Sentences
    parameters: SimilarityParameters | None = None
    model: Annotated[
        ModelName | None, Meta(description="Default: the first that embeds.")
    ] = None  # fmt: skip


class PredictBody(msgspec.Struct):
    inputs: Inputs
    truncate: bool | None = None
    truncation_direction: Side | None = None
    raw_scores: bool | None = None
    model: Annotated[ModelName | None, Meta(description="Default: the first that classifies.")] = (
        None
    )


class TeiRootBody(msgspec.Struct, kw_only=True):
    """What `/embed`, `/predict` or `/rerank` take: `inputs`, or a `query` and `texts`."""

    inputs: Inputs | None = None
    query: str | None = None
    texts: list[str] | None = None
    truncate: bool | None = None
    truncation_direction: Side | None = None
    prompt_name: Choice | None = None
    normalize: bool | None = None
    dimensions: Dimensions | None = None
    raw_scores: bool | None = None
    return_text: bool | None = None
    model: ModelName | None = None


class TeiScore(msgspec.Struct):
    """A label of a text, or the rank of one."""

    score: float
    label: str | msgspec.UnsetType = msgspec.UNSET
    index: int | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET


async def root(request: Request) -> Response:
    """`POST /`: vectors of texts, ranks of texts for a query, or labels, by the model."""
    sent = await read_body(request, TeiRootBody)
    if (sent.inputs is None) == (sent.texts is None):
        raise BadRequest("Give either `inputs` or `texts`.")
    fields = msgspec.structs.asdict(sent)
    if sent.texts is not None:
        if sent.query is None:
            raise BadRequest("Missing required parameter: 'query'.")
        return await answer_rerank(request, _only(RerankBody, fields))
    name = sent.model or first_model(request, "embed")
    registry = registry_of(request)
    task = registry.tasks(registry.card(name)[0])[0]
    if task in ("embed", "sparse"):
        _check_texts(sent.inputs)
    if task == "embed":
        return await embed(request, _only(TeiEmbedBody, fields))
    if task == "sparse":
        return await embed_sparse(request, _only(TeiSparseBody, fields))
    return await answer_predict(request, _only(PredictBody, fields))


async def similarity(request: Request) -> Response:
    """`POST /similarity`: how similar sentences are to one."""
    sent = await read_body(request, SimilarityBody)
    check_number(sent.inputs.sentences, state_of(request).settings.max_inputs, "inputs.sentences")
    how = sent.parameters or SimilarityParameters()
    asked = ScoringRequest(
        model=sent.model or first_model(request, "embed"),
        query=read_query(sent.inputs.source_sentence, "inputs.source_sentence"),
        documents=sent.inputs.sentences,
        truncate=read_truncate(how.truncate, how.truncation_direction),
        otherwise=CUT,
        query_prompt=how.prompt_name,
        document_prompt=how.prompt_name,
        fields=PairFields("inputs.source_sentence", "inputs.sentences"),
    )
    return await answer_scores(request, asked, _write_similarities, task="rerank")


async def predict(request: Request) -> Response:
    """`POST /predict`: the labels of a text, of a pair, or of several, and their scores."""
    return await answer_predict(request, await read_body(request, PredictBody))


async def answer_predict(request: Request, sent: PredictBody) -> Response:
    """The answer with the labels that a body asks for. Raises `RequestError`."""
    pairs, alone = _pairs(sent.inputs)
    check_number(pairs, state_of(request).settings.max_inputs, "inputs")
    asked = ScoringRequest(
        model=sent.model or "",
        query=[query for query, _ in pairs],
        documents=[document for _, document in pairs],
        truncate=read_truncate(sent.truncate, sent.truncation_direction),
        otherwise=CUT,
        fields=PairFields("inputs", "inputs"),
    )
    write = partial(_write_predictions, bool(sent.raw_scores), alone)
    return await answer_scores(request, asked, write, task="classify")


routes = [
    Endpoint("POST", "/", root, body=TeiRootBody, answer=list[TeiScore | list[float | TeiScore]]),
    Endpoint("POST", "/similarity", similarity, body=SimilarityBody, answer=list[float]),
    Endpoint(
        "POST", "/predict", predict, body=PredictBody, answer=list[LabelScore | list[LabelScore]]
    ),
]


def _only(kind: type[S], fields: Mapping[str, Any]) -> S:
    """A body of that kind, of those of the fields that it has."""
    return kind(**{name: fields[name] for name in kind.__struct_fields__ if name in fields})


def _check_texts(inputs: Any) -> None:
    """Raise `BadRequest` unless they are a text or texts."""
    if isinstance(inputs, list):
        for index, each in enumerate(cast("list[object]", inputs)):
            if not isinstance(each, str):
                raise BadRequest(f"Invalid 'inputs[{index}]': expected a string, not a list.")


def _pairs(
    inputs: str | Sequence[str | Sequence[str]],
) -> tuple[list[tuple[str | None, str]], bool]:
    """The texts or pairs of a request, and whether it is one that is not in a list of them.

    Raises `BadRequest`.

    >>> _pairs("a"), _pairs(["a", "b"])
    (([(None, 'a')], True), ([('a', 'b')], True))
    >>> _pairs([["a"], ["b", "c"]])
    ([(None, 'a'), ('b', 'c')], False)
    """
    if isinstance(inputs, str):
        return [_pair([inputs], "inputs")], True
    if inputs and isinstance(inputs[0], str):
        return [_pair(inputs, "inputs")], True
    return [_pair(each, f"inputs[{i}]") for i, each in enumerate(inputs)], False


def _pair(texts: str | Sequence[str | Sequence[str]], field: str) -> tuple[str | None, str]:
    """A text or a pair of a list. Raises `BadRequest`."""
    match texts:
        case [""]:
            raise EmptyInput(f"Invalid '{field}': it cannot be an empty string.")
        case [str(text)]:
            return None, text
        case [str(query), str(document)]:
            return query, document
        case _:
            raise BadRequest(f"Invalid '{field}': {SHAPES}.")


async def _write_similarities(scores: Scores) -> list[bytes]:
    return [b"[", *await dump_in_turns(values_of(scores, raw=False)[:, 0]), b"]"]


async def _write_predictions(raw: bool, alone: bool, scores: Scores) -> list[bytes]:
    rows = labelled(scores, raw=raw)
    return [b"[", *await dump_in_turns(rows[0] if alone else rows), b"]"]
