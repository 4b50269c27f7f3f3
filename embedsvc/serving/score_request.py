"""From a request for scores to the scores, whoever asks: a route, or a command in this process.

A reranker or a classifier gives its own outputs. A model of vectors gives cosines, so that every
model can be asked to rank documents, and one of vectors of tokens MaxSim.
"""

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.scoring import Activation, Scoring
from embedsvc.errors import BadRequest
from embedsvc.serving.cosines import cosines_of
from embedsvc.serving.engine import Engine
from embedsvc.serving.token_request import score_tokens
from embedsvc.texts.pairs import CutPairs, PairOptions, tokenize_pairs
from embedsvc.texts.requests import ScoringRequest
from embedsvc.texts.templated_pairs import tokenize_templated
from embedsvc.texts.truncation import Rule

COSINE = Scoring(("cosine",), "identity")
MAXSIM = Scoring(("maxsim",), "identity")


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one request, and what became of its texts."""

    logits: NDArray[np.float32]  # (n, labels)
    """What the model gives, before any activation; cosines of a model of vectors (n, 1), sums of
    a late-interaction model."""
    kind: Literal["scores", "cosine", "maxsim"]
    scoring: Scoring
    """What each column means, and the activation that the checkpoint states."""
    model: str
    tokens: int
    """Tokens of all pairs, special tokens included. A query counts in each of its pairs; with
    cosines, once."""
    truncated: int = 0
    """How many pairs were cut."""

    def ranking(self) -> list[int]:
        """The numbers of the pairs, the one with the highest score first, else as they came.

        It is that of the logits, since the highest of their sigmoids may all be 1. Raises
        `BadRequest` if the model has several labels.
        """
        check_one_score(self.model, self.scoring)
        return np.argsort(-self.logits[:, 0], kind="stable").tolist()

    def probabilities(self) -> NDArray[np.float64]:
        """Scores from 0 to 1 (n, labels): the sigmoid of a single one, and of labels that may all
        be true; else the softmax over the labels. Cosines stay as they are."""
        if self.kind != "scores":
            return self.logits.astype(np.float64)
        several = len(self.scoring.labels) > 1 and not self.scoring.multi_label
        return activated(self.logits, "softmax" if several else "sigmoid")

    def predictions(self) -> NDArray[np.float64]:
        """What sentence-transformers' `predict` gives (n, labels)."""
        return activated(self.logits, self.scoring.activation)


async def score_request(
    engine: Engine,
    card: Card,
    request: ScoringRequest,
    *,
    read_cache: bool = True,
    write_cache: bool = True,
) -> Scores:
    """The scores that a request asks for, in the order of its documents. Raises `RequestError`."""
    queries = request.queries
    template = engine.checkpoint.pair_template
    if request.instruction and not (template and template.takes_instruction):
        raise BadRequest(f"Invalid 'instruction': model `{card.id}` takes no instruction.")
    if engine.heads[0] == "tokens":
        rule = Rule(
            _rule(engine, card, request), None, request.otherwise.remedy, engine.max_pair_tokens
        )
        caching = {"read_cache": read_cache, "write_cache": write_cache}
        found = await score_tokens(engine, card, request, rule, **caching)
        scores = found.scores[:, None]
        return Scores(scores, "maxsim", MAXSIM, card.id, found.tokens, found.truncated)
    if "scores" not in engine.heads:
        rule = Rule(
            _rule(engine, card, request),
            remedy=request.otherwise.remedy,
            request_tokens=engine.max_pair_tokens,
        )
        found = await cosines_of(
            engine, card, request, rule, read_cache=read_cache, write_cache=write_cache
        )
        logits = found.values[:, None]
        return Scores(logits, "cosine", COSINE, card.id, found.tokens, found.truncated)
    documents, tokenizer = request.documents, engine.tokenizer
    options = PairOptions(
        _rule(engine, card, request),
        request.max_tokens_per_query,
        request.max_tokens_per_doc,
        request.fields.query,
        request.fields.documents,
        len(request.given_queries) > 1,
        request.otherwise.remedy,
        engine.max_pair_tokens,
    )
    if template is None:
        work = tokenize_pairs(tokenizer, queries, documents, options)
    else:
        instruction = request.instruction or engine.checkpoint.default_prompt
        work = tokenize_templated(tokenizer, template, queries, documents, options, instruction)
    characters = sum(map(len, documents)) + sum(map(len, filter(None, set(queries))))
    tokenized = await engine.tokenized(work, len(documents), characters, here=True)
    logits = await engine.run("scores", tokenized.items, read=read_cache, write=write_cache)
    engine.truncated += tokenized.cut
    tokens = sum(map(len, tokenized.items))
    scoring = cast(Scoring, engine.checkpoint.scoring)
    return Scores(logits, "scores", scoring, card.id, tokens, tokenized.cut)


def check_one_score(model: str, scoring: Scoring) -> None:
    """Raise `BadRequest` unless a model gives one score for each pair, by which to rank them."""
    if len(scoring.labels) > 1:
        raise BadRequest(
            f"Model `{model}` gives scores for {len(scoring.labels)} labels, not one by which "
            "documents can be ranked."
        )


def activated(logits: NDArray[np.float32], activation: Activation) -> NDArray[np.float64]:
    """Logits (n, labels) through an activation, in double precision: float32 makes 1 of the
    sigmoids of all that is above 17.

    >>> activated(np.array([[0], [-800]], np.float32), "sigmoid").tolist()
    [[0.5], [0.0]]
    >>> activated(np.array([[1, 1]], np.float32), "softmax").tolist()
    [[0.5, 0.5]]
    """
    exact = logits.astype(np.float64)
    if activation == "sigmoid":
        small = np.exp(-np.abs(exact))  # of the positive number, so that nothing overflows
        return np.where(exact >= 0, 1, small) / (1 + small)
    if activation == "softmax":
        powers = np.exp(exact - exact.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
    return np.tanh(exact) if activation == "tanh" else exact


def _rule(engine: Engine, card: Card, request: ScoringRequest) -> CutPairs:
    """What becomes of pairs that are too long: the request says it, else the card, else the
    setting, else the custom of the request's dialect. A pair is not split as a text may be."""
    if request.truncate == "chunk":
        raise BadRequest("Invalid 'truncate': expected error, end or start for pairs of texts.")
    for stated in (request.truncate, card.truncate, engine.truncate, request.otherwise.truncate):
        if stated is not None and stated != "chunk":
            return stated
    return "end"
