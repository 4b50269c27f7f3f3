"""Tokenises long texts a piece at a time, and no further than is needed to know what to do.

A client may send 64 MB to a model that takes 256 tokens, so the work here grows with what is wanted
of a text and not with its length. A text that fits is all the same tokenised whole in the end, so
that its tokens are exactly those that the model's library gives; so is what is kept of a text that
is cut.
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
"""How many tokens a cut through a word may add: some tokenisers have one unknown token for a long
word, and several tokens for its fragments."""
LEAST = 2048
"""The fewest characters of a piece."""
SEAM = 8
"""How many tokens a cut before white space may add; it is more than enough."""


class NamedText(NamedTuple):
    """The text of an input, which may be too long."""

    name: str
    """What errors call it."""
    text: str
    prompt: str
    openai_tokens: int | None = None
    """How many tokens OpenAI counts in it, where that is known."""


def tokenize_whole(tokenizer: Tokenizer, text: NamedText, remedy: str) -> Steps[LocatedTokens]:
    """The tokens of a text that has to fit. Raises `BadRequest` if it does not."""
    limit = tokenizer.max_tokens
    scan = Scan(tokenizer, text, from_start(text.text, piece_size(limit)))
    yield from scan.beyond(limit)
    if not scan.complete:
        raise too_long(text.name, more_than(scan.tokens), limit, remedy)
    tokens = tokenizer.locate(text.text, text.prompt)
    if len(tokens.ids) > limit:
        raise too_long(text.name, len(tokens.ids), limit, remedy)
    return tokens


def tokenize_to_fit(tokenizer: Tokenizer, text: NamedText, rule: Rule) -> Steps[Fitted]:
    """A text in parts that fit the model; that may be one part with all of the text.

    Raises `BadRequest` if the text is refused, `TooManyTokens` if all parts have more tokens than a
    request may.
    """
    limit, whole = tokenizer.max_tokens, len(text.text)
    if rule.truncate == "error":
        tokens = yield from tokenize_whole(tokenizer, text, rule.remedy)
        return Fitted([tokens.ids], characters=whole)
    split = rule.truncate == "chunk"
    if split:
        pieces = from_start(text.text)
    else:
        pieces = {"end": from_start, "start": from_end}[rule.truncate](text.text, piece_size(limit))
    scan = Scan(tokenizer, text, pieces, refuse=split)
    yield from scan.beyond(limit)
    if scan.complete:  # it may still fit: cuts between pieces add tokens
        tokens = tokenizer.locate(text.text, text.prompt)
        if len(tokens.ids) <= limit:
            return Fitted([tokens.ids], characters=whole)
        yield
        if split:
            yield from _check_longest(text, len(tokens.ids), rule, limit)
    elif split:
        tokens = yield from _tokenize_pieces(scan, text, rule, limit)
    elif scan.characters <= max(TOKEN_CHARACTERS * limit, PIECE):
        tokens = tokenizer.locate(scan.text, text.prompt)
    else:
        tokens = scan.joined()
    return replace(fit(text.name, tokens, limit, rule), characters=scan.characters)


def piece_size(limit: int) -> int:
    """The characters of a piece of a text that is read only until it has so many tokens."""
    return min(max(TOKEN_CHARACTERS * limit, LEAST), PIECE)


def _tokenize_pieces(scan: "Scan", text: NamedText, rule: Rule, limit: int) -> Steps[LocatedTokens]:
    """All tokens of a text that is far too long and is to be split, from those of its pieces."""
    if rule.longest is not None:
        yield from scan.beyond(max(rule.longest, limit))
        yield from _check_longest(text, scan.tokens, rule, limit)
    yield from scan.beyond(rule.request_tokens)
    if not scan.complete:
        raise TooManyTokens(more_than(scan.tokens), rule.request_tokens)
    return scan.joined()


def _check_longest(text: NamedText, tokens: int, rule: Rule, limit: int) -> Steps[None]:
    """Raise `BadRequest` if a text is longer than `rule.longest`, both by the model's count, which
    is `tokens` or more, and by OpenAI's."""
    longest = rule.longest
    if longest is None or tokens <= max(longest, limit):
        return
    count = text.openai_tokens
    if count is None:
        count = yield from count_tokens(text.text, longest)
    if count > longest:
        if limit > longest:  # the model takes more than OpenAI's: its own count is named
            count, longest = tokens, limit
        exact = text.openai_tokens == count
        raise too_long(text.name, count if exact else more_than(count - 1), longest, rule.remedy)


class Scan:
    """A text that is tokenised piece by piece from its beginning or from its end, and as far as is
    asked for."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        text: NamedText,
        pieces: Iterator[Piece],
        *,
        refuse: bool = True,
        short: int = PIECE,
    ) -> None:
        """`refuse`: a text with too many characters for its tokens is an error. Otherwise the scan
        stops there. A text of up to `short` characters counts as scanned from the start, since it
        is soon tokenised whole."""
        self.tokens = 0
        """How many tokens the text has at least, without special tokens and prompt."""
        self._tokenizer = tokenizer
        self._text = text
        self._pieces = pieces
        self._refuse = refuse
        self._scanned: list[tuple[Piece, TokenIds]] = []
        self.characters = len(text.text) if len(text.text) <= short else 0
        """How many characters were scanned."""

    @property
    def complete(self) -> bool:
        """Whether all of the text was scanned."""
        return self.characters == len(self._text.text)

    @property
    def pieces(self) -> int:
        """How many pieces were tokenised."""
        return len(self._scanned)

    @property
    def places(self) -> tuple[int, int]:
        """Where the part that was scanned begins, and where it stops."""
        if not self._scanned:
            return 0, self.characters
        return min(p.start for p, _ in self._scanned), max(p.stop for p, _ in self._scanned)

    @property
    def text(self) -> str:
        """The part that was scanned."""
        start, stop = self.places
        return self._text.text[start:stop]

    def beyond(self, tokens: int) -> Steps[None]:
        """Scan until there are more than so many tokens, or the text is complete."""
        most = max(TEXT_CHARACTERS, TOKEN_CHARACTERS * tokens)
        while not self.complete and self.tokens <= tokens:
            if self.characters >= most:
                if self._refuse:
                    raise too_many_characters(self._text.name, self._text.text, most)
                return
            if self._scanned:
                yield
            piece = next(self._pieces)
            (ids,) = self._tokenizer.encode(
                [self._text.text[piece.start : piece.stop]], special=False
            )
            self._scanned.append((piece, ids))
            self.characters += piece.stop - piece.start
            self.tokens += len(ids) - (SEAM if piece.clean else FRAGMENT)

    def content(self) -> TokenIds:
        """The tokens of what was scanned, put together from those of the pieces."""
        self._scanned.sort(key=lambda scanned: scanned[0].start)
        return np.concatenate([ids for _, ids in self._scanned])

    def joined(self) -> LocatedTokens:
        """The same with prompt and special tokens."""
        content = self.content()
        first, _ = self._scanned[0]
        frame = self._tokenizer.locate(self._text.text[first.start : first.stop], self._text.prompt)
        prefix, suffix = frame.ids[: frame.prefix], frame.ids[len(frame.ids) - frame.suffix :]
        ids = np.concatenate([prefix, content, suffix])
        return LocatedTokens(ids, [], frame.prefix, frame.suffix)


def too_many_characters(name: str, text: str, most: int) -> BadRequest:
    """The refusal of a text that would have to be read for too long."""
    return BadRequest(
        f"Invalid '{name}': a text of so few tokens may have {most} characters, and this one has "
        f"{len(text)}."
    )
