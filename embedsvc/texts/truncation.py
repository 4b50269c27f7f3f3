"""Cuts or splits a text with more tokens than its model takes.

Such a text is refused, or cut at its end or start, or split into parts whose vectors are averaged.
Every part keeps the special tokens and the prompt.
"""

from dataclasses import dataclass

import msgspec
import numpy as np

from embedsvc.catalog.cards import Truncate
from embedsvc.errors import BadRequest, TooManyTokens
from embedsvc.texts.item import LocatedTokens, TokenIds

OVERLAP = 8
"""Neighbouring parts share one in so many of their tokens."""
OPENAI_TOKENS = 8191
"""The longest text that OpenAI's models take."""


ANY_REMEDY = 'send "truncate": "end", "start", or "chunk" for all of it in parts'
"""What to do about a text that is refused."""
PAIR_REMEDY = 'send "truncate": "end" or "start", or shorter texts'
"""What to do about a pair of texts that is refused."""


class Rule(msgspec.Struct, frozen=True):
    """What becomes of the texts of a request that are too long."""

    truncate: Truncate = "error"
    longest: int | None = None
    """With `chunk`, the tokens of the longest text that is split, by the model's count or by
    OpenAI's. None: there is no limit but that of a request."""
    remedy: str = ANY_REMEDY
    """What to do about a text that is refused, in the fields of the request's dialect."""
    request_tokens: int = 1 << 60
    """The most tokens that all parts of all inputs may have together."""


OPENAI = Rule("chunk", OPENAI_TOKENS)
"""OpenAI's models take long texts. A model that does not is given all of such a text, in parts."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A text in parts that fit the model; most texts are one part."""

    parts: list[TokenIds]
    cut: bool = False
    """Whether something was left out."""
    characters: int = 0
    """How many characters of the text had to be looked at."""


def fit(name: str, tokens: LocatedTokens, max_tokens: int, rule: Rule) -> Fitted:
    """Bring a text that is too long into parts of `max_tokens` or fewer.

    It becomes one part, or several by the rule `chunk`. Raises `BadRequest` that calls the text by
    its `name`, `TooManyTokens` if all parts have more than a request may.

    >>> text = LocatedTokens(np.arange(12, dtype=np.int32), [], prefix=1, suffix=1)
    >>> [part.tolist() for part in fit("input", text, 6, Rule("end")).parts]
    [[0, 1, 2, 3, 4, 11]]
    >>> [part.tolist() for part in fit("input", text, 6, Rule("chunk")).parts]
    [[0, 1, 2, 3, 4, 11], [0, 5, 6, 7, 8, 11], [0, 9, 10, 11]]
    """
    room = max_tokens - tokens.prefix - tokens.suffix
    if rule.truncate == "error" or room < 1:
        raise too_long(name, len(tokens.ids), max_tokens, rule.remedy)
    end = len(tokens.ids) - tokens.suffix
    prefix, suffix = tokens.ids[: tokens.prefix], tokens.ids[end:]
    content = tokens.ids[tokens.prefix : end]
    if rule.truncate == "end":
        parts = [content[:room]]
    elif rule.truncate == "start":
        parts = [content[-room:]]
    else:
        step = room - room // OVERLAP
        starts = range(0, max(len(content) - room, 0) + step, step)
        frames = len(starts) * (len(prefix) + len(suffix))
        all_parts = len(content) + (len(starts) - 1) * (room - step) + frames
        if all_parts > rule.request_tokens:
            raise TooManyTokens(all_parts, rule.request_tokens)
        parts = [content[start : start + room] for start in starts]
    whole = [np.concatenate([prefix, part, suffix]) for part in parts]
    return Fitted(whole, cut=rule.truncate != "chunk")


def too_long(
    name: str, tokens: int | str, max_tokens: int, remedy: str, wanted: str = "embedded"
) -> BadRequest:
    """The refusal of a text, in the words that clients of OpenAI look for, and what to do to have
    what was `wanted`."""
    which = "input" if name.endswith("]") else "context"
    return BadRequest(
        f"Invalid '{name}': maximum {which} length is {max_tokens} tokens. This model's maximum "
        f"context length is {max_tokens} tokens, however you requested {tokens} tokens. "
        f"To have it {wanted} all the same, {remedy}."
    )


def more_than(tokens: int) -> str:
    """A number of tokens that were not counted to their end, in words."""
    return f"more than {tokens}"
