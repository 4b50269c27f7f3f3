"""The one way from a request for scores to its answer, whichever dialect it came in.

A route reads its body into a `ScoringRequest` and calls `answer_scores` with a function that writes
the scores as the clients of its dialect read them.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from embedsvc.catalog.cards import Card, Task
from embedsvc.serving.engine import Engine
from embedsvc.serving.score_request import Scores, check_one_score, score_request
from embedsvc.texts.requests import ScoringRequest
from embedsvc.web.computing import Caching, compute
from embedsvc.web.endpoint import JsonResponse
from embedsvc.web.state import registry_of

FOR: dict[Task, tuple[Task, ...]] = {
    "embed": ("embed",),
    "rerank": ("rerank", "embed"),
    "classify": ("classify", "rerank"),
    "sparse": ("sparse", "embed"),
}
"""The models that may do what is asked, those that are made for it first."""


class WriteScores(Protocol):
    """How a dialect writes scores: the body of the answer, whole or in pieces."""

    async def __call__(self, scores: Scores, /) -> bytes | list[bytes]: ...


async def answer_scores(
    request: Request, asked: ScoringRequest, write: WriteScores, *, task: Task
) -> Response:
    """The answer to a request for scores. All tasks but `classify` want one score for each pair,
    and that one wants a classifier.

    Raises `RequestError`, as far as it can before anything is computed; `ClientGone` if the client
    hangs up first, and computes no further.
    """

    async def score(engine: Engine, card: Card, _: str | None, caching: Caching) -> Scores:
        scoring = engine.checkpoint.scoring
        if task == "classify":
            engine.check_head("scores")
        elif scoring is not None:
            check_one_score(card.id, scoring)
        return await score_request(engine, card, asked, **caching)

    scores, headers = await compute(request, asked.model, task, len(asked.documents), score)
    headers.append((b"x-embedsvc-scores", scores.kind.encode()))
    return JsonResponse(await write(scores), headers)


def values_of(scores: Scores, *, raw: bool) -> NDArray[np.floating]:
    """The scores (n, labels) as an answer has them: cosines as they are, others `raw`, or brought
    to 0 to 1."""
    return scores.logits if raw or scores.kind == "cosine" else scores.probabilities()


def first_model(request: Request, task: Task) -> str:
    """The model that does a task where a request names none: the first card that is for it."""
    registry = registry_of(request)
    cards = registry.cards.by_id
    fit = (name for each in FOR[task] for name in cards if each in registry.tasks(cards[name]))
    return next(fit, next(iter(cards)))
