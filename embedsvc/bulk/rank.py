"""The texts that fit a query best, by the scores of a model that reranks."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

TEXTS = 256
"""The most texts that are scored in one call."""
CHARACTERS = 1 << 18
"""The most characters of them, unless it is a single text."""


class Ranker(Protocol):
    """A model that gives scores to pairs of texts. It is used on one event loop."""

    model: str
    """The model's own name, not an alias; the one that was asked for until it has answered."""

    async def score(self, query: str, documents: Sequence[str]) -> NDArray[np.float64]:
        """The scores (n,) of one or more texts.

        Raises `RequestError` if one of them has none, `BulkError` if no text can have one.
        """
        ...


async def score_all(ranker: Ranker, query: str, texts: Sequence[str]) -> NDArray[np.float64]:
    """The scores (n,) of any number of texts. Raises what `Ranker.score` does."""
    scores = [await ranker.score(query, texts[some]) for some in _batches(texts)]
    return np.concatenate([np.empty(0), *scores])


def best_first(scores: NDArray[np.float64], k: int) -> list[int]:
    """The numbers of the k best, the best first; of equal ones, the one that came first.

    >>> best_first(np.array([0.1, 0.9, 0.9]), 2)
    [1, 2]
    """
    return np.argsort(-scores, kind="stable")[:k].tolist()


def _batches(texts: Sequence[str]) -> list[slice]:
    """The texts in calls.

    >>> _batches(["a"] * 300)
    [slice(0, 256, None), slice(256, 300, None)]
    """
    batches: list[slice] = []
    start = characters = 0
    for index, text in enumerate(texts):
        if index > start and (index - start == TEXTS or characters + len(text) > CHARACTERS):
            batches.append(slice(start, index))
            start, characters = index, 0
        characters += len(text)
    return [*batches, slice(start, len(texts))] if texts else batches
