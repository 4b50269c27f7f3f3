"""What becomes of a text with more tokens than its model takes.

It is refused, or cut at its end or start, or split into parts whose vectors are averaged. Special
tokens and the prompt stay, in every part.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedsvc.cards import Truncate
from embedsvc.errors import BadRequest
from embedsvc.ops.base import TokenIds
from embedsvc.texts.tokens import LocatedTokens

OVERLAP = 8
"""Parts share one token in so many with the part before."""


def fit(name: str, tokens: LocatedTokens, max_tokens: int, truncate: Truncate) -> list[TokenIds]:
    """The text in parts of `max_tokens` or fewer: one part, except with `chunk`.

    Raises `BadRequest`, in which `name` says which input it is about.
    """
    room = max_tokens - tokens.head - tokens.tail
    if truncate == "error" or room < 1:
        raise too_long(name, len(tokens.ids), max_tokens)
    end = len(tokens.ids) - tokens.tail
    first, last = tokens.ids[: tokens.head], tokens.ids[end:]
    content = tokens.ids[tokens.head : end]
    if truncate == "end":
        parts = [content[:room]]
    elif truncate == "start":
        parts = [content[-room:]]
    else:
        step = room - room // OVERLAP
        starts = range(0, max(len(content) - room, 0) + step, step)
        parts = [content[start : start + room] for start in starts]
    return [np.concatenate([first, part, last]) for part in parts]


def average(
    vectors: NDArray[np.float32], lengths: Sequence[int], parts: Sequence[int], *, normalize: bool
) -> NDArray[np.float32]:
    """One vector for each text from those of its parts (n, D), weighted by their lengths."""
    weights = np.asarray(lengths, np.float32)[:, None]
    starts = np.cumsum([0, *parts[:-1]])
    means: NDArray[np.float32] = np.add.reduceat(vectors * weights, starts, axis=0)
    means /= np.add.reduceat(weights, starts, axis=0)
    if normalize:
        # A part that is a whole text is of unit length already.
        means /= np.linalg.norm(means, axis=1, keepdims=True)
    whole = np.asarray(parts) == 1
    means[whole] = vectors[starts[whole]]  # to the last bit
    return means


def too_long(name: str, tokens: int, max_tokens: int) -> BadRequest:
    """The refusal, in the words that clients look for."""
    which = "input" if name.endswith("]") else "context"
    return BadRequest(
        f"Invalid '{name}': maximum {which} length is {max_tokens} tokens. This model's maximum "
        f"context length is {max_tokens} tokens, however you requested {tokens} tokens."
    )
