"""What becomes of a text with more tokens than its model takes.

It is refused, or cut at its end or start, or split into parts whose vectors are averaged. Special
tokens and the prompt stay, in every part.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Truncate
from embedsvc.errors import BadRequest, TooManyTokens
from embedsvc.texts.item import LocatedTokens, TokenIds

OVERLAP = 8
"""Parts share one token in so many with the part before."""
OPENAI_TOKENS = 8191
"""The longest text that OpenAI's models take."""


ANY_REMEDY = 'send "truncate": "end", "start", or "chunk" for all of it in parts'
"""What to do about a text that is refused."""


class Rule(msgspec.Struct, frozen=True):
    """What becomes of the texts of a request that are too long."""

    truncate: Truncate = "error"
    longest: int | None = None
    """With `chunk`, the tokens of the longest text that is split, by the model's count or OpenAI's;
    None: as many as there may be in a request."""
    remedy: str = ANY_REMEDY
    """What to do about a text that is refused, in the fields of the request's dialect."""
    request_tokens: int = 1 << 60
    """Tokens of all parts of all inputs."""


OPENAI = Rule("chunk", OPENAI_TOKENS)
"""OpenAI's models take long texts. A model that cannot is shown all of them, in parts."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A text in parts that fit, most often one."""

    parts: list[TokenIds]
    cut: bool = False
    """Whether something was left out."""
    characters: int = 0
    """Of the text, those that had to be looked at."""


def fit(name: str, tokens: LocatedTokens, max_tokens: int, rule: Rule) -> Fitted:
    """A text that is too long in parts of `max_tokens` or fewer: one part, except with `chunk`.

    Raises `BadRequest`, in which `name` says which input it is about.
    """
    room = max_tokens - tokens.head - tokens.tail
    if rule.truncate == "error" or room < 1:
        raise too_long(name, len(tokens.ids), max_tokens, rule.remedy)
    end = len(tokens.ids) - tokens.tail
    first, last = tokens.ids[: tokens.head], tokens.ids[end:]
    content = tokens.ids[tokens.head : end]
    if rule.truncate == "end":
        parts = [content[:room]]
    elif rule.truncate == "start":
        parts = [content[-room:]]
    else:
        step = room - room // OVERLAP
        starts = range(0, max(len(content) - room, 0) + step, step)
        frames = len(starts) * (len(first) + len(last))
        all_parts = len(content) + (len(starts) - 1) * (room - step) + frames
        if all_parts > rule.request_tokens:
            raise TooManyTokens(all_parts, rule.request_tokens)
        parts = [content[start : start + room] for start in starts]
    whole = [np.concatenate([first, part, last]) for part in parts]
    return Fitted(whole, cut=rule.truncate != "chunk")


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


def too_long(name: str, tokens: int | str, max_tokens: int, remedy: str) -> BadRequest:
    """The refusal, in the words that clients look for, and what to do instead."""
    which = "input" if name.endswith("]") else "context"
    return BadRequest(
        f"Invalid '{name}': maximum {which} length is {max_tokens} tokens. This model's maximum "
        f"context length is {max_tokens} tokens, however you requested {tokens} tokens. "
        f"To have it embedded all the same, {remedy}."
    )


def more_than(tokens: int) -> str:
    """A number of tokens that was not counted to its end."""
    return f"more than {tokens}"
