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
from embedsvc.errors import Loading, Unavailable
from embedsvc.serving.engine import Engine
from embedsvc.serving.outline import downloaded
from embedsvc.serving.registry import Registry
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

    model, hint = (asked.model, "") if asked.model else await _default_model(request, task)
    try:
        scores, headers = await compute(request, model, task, len(asked.documents), score)
    except Loading:
        raise
    except Unavailable as error:
        raise Unavailable(error.message + hint, headers=error.headers) from None
    headers.append((b"x-embedsvc-scores", scores.kind.encode()))
    return JsonResponse(await write(scores), headers)


def values_of(scores: Scores, *, raw: bool) -> NDArray[np.floating]:
    """The scores (n, labels) as an answer has them: cosines and MaxSim as they are, others `raw`,
    or brought to 0 to 1."""
    return scores.logits if raw or scores.kind != "scores" else scores.probabilities()


def first_model(request: Request, task: Task) -> str:
    """The first card that is for a task, or can do it. It is always the same, since vectors of
    several models do not go together."""
    return _cards_for(registry_of(request), task)[0].id


async def _default_model(request: Request, task: Task) -> tuple[str, str]:
    """The model that gives scores where a request names none, and what to do if it cannot be had.

    Of the cards that are for the task, or else can do it, it is the first that is loaded, or else
    the first whose files are here, or else the first.
    """
    registry = registry_of(request)
    cards = _cards_for(registry, task)
    loaded = [card for card in cards if registry.state(card) == "ready"]
    if loaded:
        return loaded[0].id, ""
    here = await registry.look_up(lambda: downloaded(cards))
    found = next((card.id for card in cards if card.id in here), None)
    if found is not None:
        return found, ""
    first = cards[0].id
    other = ", which may be one that embeds" if task == "rerank" else ""
    return first, (
        f". The request names no `model`, and none that can {task} is here: name one{other}, or "
        f"fetch one, as by `embedsvc pull {first}`."
    )


def _cards_for(registry: Registry, task: Task) -> list[Card]:
    """The cards that are for a task; where there are none, those that can do it; else all. Models
    that clients chose are left out."""
    cards = [card for card in registry.cards.by_id.values() if not card.ad_hoc]
    for each in FOR[task]:
        if fit := [card for card in cards if each in registry.tasks(card)]:
            return fit
    return cards
