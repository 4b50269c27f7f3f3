"""Long texts, tokenised a piece at a time and no further than is needed to know what to do.

What a client sends may have 64 MB and a model take 256 tokens, so that nothing here grows with the
text but with what is wanted of it. A text that fits is tokenised whole all the same, because its
tokens are to be exactly those that the model's library gives; so is the end of a text that is cut.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from embedsvc.bounds import TEXT_CHARACTERS, TOKEN_CHARACTERS
from embedsvc.errors import BadRequest, TooManyTokens
from embedsvc.texts.item import LocatedTokens, TokenIds
from embedsvc.texts.openai_tokens import count_tokens
from embedsvc.texts.pieces import PIECE, Piece, from_end, from_start
from embedsvc.texts.steps import Steps
from embedsvc.texts.tokenizer import Tokenizer
from embedsvc.texts.truncation import Fitted, Rule, fit, more_than, too_long

FRAGMENT = 256
"""Tokens that a cut through a word may add: a long word is one unknown token to some tokenisers,
and its fragments are not."""
LEAST = 2048
"""Characters of a piece."""
SEAM = 8
"""Tokens that a cut before white space may add, more than enough."""


class LongText(NamedTuple):
    """An input that may be too long."""

    name: str
    """What the request calls it."""
    text: str
    prompt: str
    openai_tokens: int | None = None
    """How many OpenAI counts, where that is known."""


def read_whole(tokenizer: Tokenizer, long: LongText, remedy: str) -> Steps[LocatedTokens]:
    """The tokens of a text that has to fit. Raises `BadRequest` if it does not."""
    limit = tokenizer.max_tokens
    seen = Seen(tokenizer, long, from_start(long.text, _piece(limit)))
    yield from seen.more(limit)
    if not seen.all:
        raise too_long(long.name, more_than(seen.tokens), limit, remedy)
    tokens = tokenizer.locate(long.text, long.prompt)
    if len(tokens.ids) > limit:
        raise too_long(long.name, len(tokens.ids), limit, remedy)
    return tokens


def read_parts(tokenizer: Tokenizer, long: LongText, rule: Rule) -> Steps[Fitted]:
    """A text in parts that fit; it may be one part, and all of the text.

    Raises `BadRequest` where it is refused, `TooManyTokens` if its parts have too many together.
    """
    limit = tokenizer.max_tokens
    if rule.truncate == "error":
        tokens = yield from read_whole(tokenizer, long, rule.remedy)
        return Fitted([tokens.ids], characters=len(long.text))
    if rule.truncate == "chunk":
        pieces = from_start(long.text)
    else:
        pieces = {"end": from_start, "start": from_end}[rule.truncate](long.text, _piece(limit))
    seen = Seen(tokenizer, long, pieces, refuse=rule.truncate == "chunk")
    yield from seen.more(limit)
    if seen.all:
        tokens = tokenizer.locate(long.text, long.prompt)
        if len(tokens.ids) <= limit:
            return Fitted([tokens.ids], characters=len(long.text))
        yield
        if rule.truncate == "chunk":
            yield from _check_longest(long, len(tokens.ids), rule, limit)
    elif rule.truncate == "chunk":
        tokens = yield from _read_all(seen, long, rule, limit)
    elif seen.characters <= max(TOKEN_CHARACTERS * limit, PIECE):
        tokens = tokenizer.locate(seen.text, long.prompt)
    else:
        tokens = seen.joined()
    return replace(fit(long.name, tokens, limit, rule), characters=seen.characters)


def _piece(limit: int) -> int:
    """Characters of a piece of a text that is looked at only until it has so many tokens."""
    return min(max(TOKEN_CHARACTERS * limit, LEAST), PIECE)


def _read_all(seen: "Seen", long: LongText, rule: Rule, limit: int) -> Steps[LocatedTokens]:
    """All tokens of a text that does not fit by far, from those of its pieces."""
    if rule.longest is not None:
        yield from seen.more(max(rule.longest, limit))
        yield from _check_longest(long, seen.tokens, rule, limit)
    yield from seen.more(rule.request_tokens)
    if not seen.all:
        raise TooManyTokens(more_than(seen.tokens), rule.request_tokens)
    return seen.joined()


def _check_longest(long: LongText, tokens: int, rule: Rule, limit: int) -> Steps[None]:
    """Refuse a text that is too long by the model's count, which is `tokens` or more, and by
    OpenAI's."""
    longest = rule.longest
    if longest is None or tokens <= max(longest, limit):
        return
    count = long.openai_tokens
    if count is None:
        count = yield from count_tokens(long.text, longest)
    if count > longest:
        if limit > longest:  # what the model takes is told in the model's own tokens
            count, longest = tokens, limit
        exact = long.openai_tokens == count
        raise too_long(long.name, count if exact else more_than(count - 1), longest, rule.remedy)


class Seen:
    """As much of a text as was tokenised, from its beginning or from its end."""

    def __init__(
        self, tokenizer: Tokenizer, long: LongText, pieces: Iterator[Piece], *, refuse: bool = True
    ) -> None:
        """`refuse` a text that has too many characters for its tokens, rather than stop there."""
        self.tokens = 0
        """How many it has at least, without special tokens and prompt."""
        self._tokenizer = tokenizer
        self._long = long
        self._left = pieces
        self._refuse = refuse
        self._found: list[tuple[Piece, TokenIds]] = []
        # What is one piece anyway is not looked at before it is tokenised whole.
        self.characters = len(long.text) if len(long.text) <= PIECE else 0

    @property
    def all(self) -> bool:
        """Whether that is the whole text."""
        return self.characters == len(self._long.text)

    @property
    def text(self) -> str:
        """What was seen of a text of several pieces."""
        ends = [end for piece, _ in self._found for end in (piece.start, piece.stop)]
        return self._long.text[min(ends) : max(ends)]

    def more(self, tokens: int) -> Steps[None]:
        """Go on until there are more than so many tokens, or it is the whole text."""
        most = max(TEXT_CHARACTERS, TOKEN_CHARACTERS * tokens)
        while not self.all and self.tokens <= tokens:
            if self.characters >= most:
                if self._refuse:
                    raise too_many_characters(self._long.name, self._long.text, most)
                return
            if self._found:
                yield
            piece = next(self._left)
            (ids,) = self._tokenizer.encode(
                [self._long.text[piece.start : piece.stop]], special=False
            )
            self._found.append((piece, ids))
            self.characters += piece.stop - piece.start
            self.tokens += len(ids) - (SEAM if piece.clean else FRAGMENT)

    def joined(self) -> LocatedTokens:
        """The tokens of prompt and text, from those of the pieces."""
        self._found.sort(key=lambda found: found[0].start)
        first, _ = self._found[0]
        frame = self._tokenizer.locate(self._long.text[first.start : first.stop], self._long.prompt)
        head, tail = frame.ids[: frame.head], frame.ids[len(frame.ids) - frame.tail :]
        ids = np.concatenate([head, *(ids for _, ids in self._found), tail])
        return LocatedTokens(ids, [], frame.head, frame.tail)


def too_many_characters(name: str, text: str, most: int) -> BadRequest:
    """The refusal of a text that would have to be read for too long."""
    return BadRequest(
        f"Invalid '{name}': a text of so few tokens may have {most} characters, and this one has "
        f"{len(text)}."
    )
