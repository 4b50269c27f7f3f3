"""The tokens of texts as a person reads them: which part of the text each of them stands for."""

from collections.abc import Sequence

import msgspec
from tokenizers import Encoding

from embedsvc.bounds import TEXT_CHARACTERS
from embedsvc.errors import TooManyTokens
from embedsvc.texts.long_text import LongText, Seen, too_many_characters
from embedsvc.texts.pieces import PIECE, from_start
from embedsvc.texts.steps import Steps
from embedsvc.texts.tokenizer import Tokenizer
from embedsvc.texts.truncation import more_than

STEP = 4096
"""Tokens told in one step."""


class Token(msgspec.Struct):
    """A token, and where in the text it begins and ends, in characters; None if it is special."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


def explain(
    tokenizer: Tokenizer, texts: Sequence[str], *, special: bool, most: int
) -> Steps[list[list[Token]]]:
    """The tokens of each text.

    Raises `TooManyTokens` where there are more than `most` together, `BadRequest` that names a text
    with too many characters.
    """
    explained: list[list[Token]] = []
    tokens = characters = 0
    for index, text in enumerate(texts):
        if characters > PIECE:
            yield
            characters = 0
        characters += len(text)
        name = "inputs" if len(texts) == 1 else f"inputs[{index}]"
        if len(text) > TEXT_CHARACTERS:
            raise too_many_characters(name, text, TEXT_CHARACTERS)
        seen = Seen(tokenizer, LongText(name, text, ""), from_start(text))
        yield from seen.more(most - tokens)
        if not seen.all:
            raise TooManyTokens(more_than(tokens + seen.tokens), most)
        (encoding,) = tokenizer.explain([text], special=special)
        tokens += len(encoding)
        if tokens > most:
            last = index == len(texts) - 1
            raise TooManyTokens(tokens if last else more_than(tokens), most)
        explained.append((yield from _tokens(tokenizer, text, encoding)))
    return explained


def _tokens(tokenizer: Tokenizer, text: str, encoding: Encoding) -> Steps[list[Token]]:
    tokens: list[Token] = []
    # Lists of ids are soon made; the library's list of offsets, of so many pairs, is not.
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
