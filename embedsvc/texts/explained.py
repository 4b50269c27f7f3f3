"""The tokens of texts for people to read: which part of the text each of them stands for."""

from collections.abc import Sequence

import msgspec
from tokenizers import Encoding

from embedsvc.bounds import TEXT_CHARACTERS
from embedsvc.errors import TooManyTokens
from embedsvc.texts.long_text import NamedText, Scan, too_many_characters
from embedsvc.texts.pieces import PIECE, from_start
from embedsvc.texts.steps import Steps
from embedsvc.texts.tokenizer import Tokenizer
from embedsvc.texts.truncation import more_than

STEP = 4096
"""How many tokens are made in one step."""


class Token(msgspec.Struct):
    """A token. `start` and `stop` are characters of the text, and None if the token is special."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


def explain(
    tokenizer: Tokenizer, texts: Sequence[str], *, special: bool, most: int
) -> Steps[list[list[Token]]]:
    """The tokens of each text.

    Raises `TooManyTokens` if there are more than `most` in all texts, `BadRequest` that names a
    text with too many characters.
    """
    yield from _count(tokenizer, texts, most)
    explained: list[list[Token]] = []
    tokens = in_step = 0
    for text in texts:
        if in_step > STEP:
            yield
            in_step = 0
        (encoding,) = tokenizer.explain([text], special=special)
        tokens += len(encoding)
        in_step += len(encoding)
        if tokens > most:
            raise TooManyTokens(tokens if text is texts[-1] else more_than(tokens), most)
        explained.append((yield from _tokens(tokenizer, text, encoding)))
    return explained


def _count(tokenizer: Tokenizer, texts: Sequence[str], most: int) -> Steps[None]:
    """Raise `TooManyTokens` if long texts have too many, before they are tokenised whole."""
    tokens = 0
    for index, text in enumerate(texts):
        name = "inputs" if len(texts) == 1 else f"inputs[{index}]"
        if len(text) > TEXT_CHARACTERS:
            raise too_many_characters(name, text, TEXT_CHARACTERS)
        if len(text) <= PIECE:
            continue  # `explain` soon counts these
        scan = Scan(tokenizer, NamedText(name, text, ""), from_start(text))
        yield from scan.beyond(most - tokens)
        tokens += scan.tokens
        if tokens > most:
            raise TooManyTokens(more_than(tokens), most)
        yield


def _tokens(tokenizer: Tokenizer, text: str, encoding: Encoding) -> Steps[list[Token]]:
    tokens: list[Token] = []
    # The library makes lists of ids quickly, but one of offsets slowly: each token's are asked for.
    for i, (token, added) in enumerate(
        zip(encoding.ids, encoding.special_tokens_mask, strict=True)
    ):
        if i % STEP == STEP - 1:
            yield
        place = None if added else encoding.token_to_chars(i)
        if place is None:
            tokens.append(Token(token, tokenizer.name_of(token), True, None, None))
        else:
            start, stop = place
            tokens.append(Token(token, text[start:stop], False, start, stop))
    return tokens
