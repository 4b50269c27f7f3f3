"""From the inputs of a request to texts in tokens: decoded, prompted, tokenised, made to fit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from embedsvc.bounds import REQUEST_CHARACTERS, TEXT_CHARACTERS, TOKEN_CHARACTERS
from embedsvc.catalog.cards import TokenIdsMeaning
from embedsvc.errors import BadRequest, NoTokens, TooManyTokens
from embedsvc.texts.cl100k import decode
from embedsvc.texts.item import Item, LocatedTokens
from embedsvc.texts.late_chunking import Chunk, span
from embedsvc.texts.long_text import LongText, read_parts, read_whole
from embedsvc.texts.pieces import PIECE
from embedsvc.texts.requests import Chunking, Offsets
from embedsvc.texts.steps import Steps
from embedsvc.texts.tokenizer import Tokenizer
from embedsvc.texts.truncation import Fitted, Rule, fit, more_than, too_long
from embedsvc.wording.plain import shown

Input = str | list[int]
"""A text, or the ids of its tokens."""
GROUP = 64
"""Texts tokenised in one step, at most."""
ID_CHARACTERS = 4
"""Of a token of OpenAI's, on the average."""


class Reading(msgspec.Struct, frozen=True):
    """How inputs are to be read."""

    prompt: str = ""
    rule: Rule = Rule()
    token_ids: TokenIdsMeaning = "cl100k_base"
    field: str = "input"
    """What errors call them."""


PLAIN = Reading()


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Inputs in tokens. An input that was split has several items, all others have one."""

    items: list[Item]
    parts: list[int]
    """How many of the items are each input's."""
    cut: int = 0
    """Inputs of which something was left out."""


def size(inputs: Sequence[Input], reading: Reading) -> int:
    """Characters there are to tokenise, about."""
    return sum(_size(value, reading) for value in inputs)


def tokenize(tokenizer: Tokenizer, inputs: Sequence[Input], reading: Reading) -> Steps[Tokenized]:
    """The inputs of a request, one or more.

    Raises `BadRequest` that names an input with wrong ids, too many tokens, or none;
    `TooManyTokens` as soon as there are more than a request may have.
    """
    items: list[Item] = []
    parts: list[int] = []
    cut = tokens = characters = 0
    most = max(REQUEST_CHARACTERS, TOKEN_CHARACTERS * reading.rule.request_tokens)
    for group in _groups(inputs, reading):
        if group.start:
            yield
        for fitted in (yield from _read(tokenizer, inputs, reading, group)):
            items += map(Item, fitted.parts)
            parts.append(len(fitted.parts))
            cut += fitted.cut
            tokens += sum(map(len, fitted.parts))
            characters += fitted.characters + len(reading.prompt)
        if tokens > reading.rule.request_tokens:
            known = group.stop == len(inputs)
            said = tokens if known else more_than(tokens)
            raise TooManyTokens(said, reading.rule.request_tokens)
        if characters > most:
            raise BadRequest(
                f"Invalid '{reading.field}': texts of so few tokens may have {most} characters "
                "together, and these have more."
            )
    return Tokenized(items, parts, cut)


def tokenize_chunks(
    tokenizer: Tokenizer,
    value: Input,
    reading: Reading,
    wanted: Chunking | Sequence[Offsets],
    *,
    index: int = 0,
    of: int = 1,
) -> Steps[tuple[Item, list[Chunk]]]:
    """One input, for late chunking; it has to fit, because the model is to see all of it."""
    name = _name(reading, index, of)
    if not isinstance(value, str) and reading.token_ids == "model":
        raise BadRequest(f"Invalid '{name}': chunks are of texts, not of the model's token ids.")
    long = _text(reading, name, value)
    tokens = yield from read_whole(tokenizer, long, "send it in several texts")
    return span(name, long.text, tokens, wanted)


def _groups(inputs: Sequence[Input], reading: Reading) -> Iterator[range]:
    """The inputs in groups of which each can be read in a step or two."""
    start = characters = 0
    for index, value in enumerate(inputs):
        own = _size(value, reading)
        if index > start and (index - start == GROUP or characters + own > PIECE):
            yield range(start, index)
            start, characters = index, 0
        characters += own
    yield range(start, len(inputs))


def _read(
    tokenizer: Tokenizer, inputs: Sequence[Input], reading: Reading, group: range
) -> Steps[list[Fitted]]:
    """Inputs in tokens, those that are short all at once."""
    of, limit = len(inputs), tokenizer.max_tokens
    if not isinstance(inputs[0], str) and reading.token_ids == "model":
        return [_model_ids(tokenizer, reading, _name(reading, i, of), inputs[i]) for i in group]
    longs = [_text(reading, _name(reading, i, of), inputs[i]) for i in group]
    short = [long.prompt + long.text for long in longs if _is_short(long)]
    encoded = iter(tokenizer.encode(short) if short else ())
    read: list[Fitted] = []
    for long in longs:
        fitted = None
        if _is_short(long):
            fitted = Fitted([next(encoded)], characters=len(long.text))
        if fitted is None or len(fitted.parts[0]) > limit:
            fitted = yield from read_parts(tokenizer, long, reading.rule)
        if not len(fitted.parts[0]):
            raise NoTokens(f"Invalid '{long.name}': the model has no token for it.")
        read.append(fitted)
    return read


def _is_short(long: LongText) -> bool:
    return len(long.text) <= PIECE


def _size(value: Input, reading: Reading) -> int:
    characters = len(value) if isinstance(value, str) else ID_CHARACTERS * len(value)
    return characters + len(reading.prompt)


def _text(reading: Reading, name: str, value: Input) -> LongText:
    if isinstance(value, str):
        return LongText(name, value, reading.prompt)
    if reading.token_ids == "reject":
        raise BadRequest(f"Invalid '{name}': this model takes text, not token ids.")
    if len(value) > TEXT_CHARACTERS:
        raise BadRequest(
            f"Invalid '{name}': a text may be {TEXT_CHARACTERS} token ids, and this one is "
            f"{len(value)}."
        )
    try:
        return LongText(name, decode(value), reading.prompt, len(value))
    except KeyError as error:
        raise BadRequest(
            f"Invalid '{name}': {shown(str(error))} is not a token id of cl100k_base."
        ) from None


def _model_ids(tokenizer: Tokenizer, reading: Reading, name: str, value: Input) -> Fitted:
    """The model's own ids, taken as they are, special tokens or none."""
    if reading.prompt:
        raise BadRequest(f"Invalid '{name}': a prompt does not go with the model's token ids.")
    rule, limit, count = reading.rule, tokenizer.max_tokens, len(value)
    most = limit if rule.truncate == "error" else max(limit, rule.longest or rule.request_tokens)
    cut = count > limit and rule.truncate in ("end", "start")
    if cut:
        value = value[:limit] if rule.truncate == "end" else value[-limit:]
    elif count > most:
        raise too_long(name, count, most, rule.remedy)
    for token in value:
        if not 0 <= int(token) < tokenizer.vocabulary:
            raise BadRequest(
                f"Invalid '{name}': {shown(str(token))} is not a token id of this model, "
                f"which has {tokenizer.vocabulary}."
            )
    ids = np.array(value, dtype=np.int32)
    if len(ids) <= limit:
        return Fitted([ids], cut=cut)
    return fit(name, LocatedTokens(ids, [], 0, 0), limit, rule)


def _name(reading: Reading, index: int, of: int) -> str:
    return reading.field if of == 1 else f"{reading.field}[{index}]"
