"""From the inputs of a request to texts in tokens: decoded, prompted, tokenised, made to fit."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from embedsvc.cards import TokenIdsMeaning, Truncate
from embedsvc.errors import BadRequest, NoTokens
from embedsvc.ops.base import TokenIds
from embedsvc.texts.late_chunking import Chunk, span
from embedsvc.texts.requests import Chunking, Offsets
from embedsvc.texts.token_ids import decode
from embedsvc.texts.tokenizer import Tokenizer
from embedsvc.texts.tokens import LocatedTokens, SpannedText
from embedsvc.texts.truncation import fit, too_long

Input = str | list[int]
"""A text, or the ids of its tokens."""


class Reading(msgspec.Struct, frozen=True):
    """How inputs are to be read."""

    prompt: str = ""
    truncate: Truncate = "error"
    token_ids: TokenIdsMeaning = "cl100k_base"
    field: str = "input"
    """What errors call them."""


PLAIN = Reading()


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Inputs in tokens. An input that was split has several texts, all others have one."""

    texts: list[TokenIds]
    parts: list[int]
    """How many of the texts are each input's."""
    cut: int = 0
    """Inputs of which something was left out."""


def tokenize(
    tokenizer: Tokenizer, inputs: Sequence[Input], reading: Reading, *, first: int = 0, of: int = 1
) -> Tokenized:
    """Inputs of which the first is number `first` in a request `of` so many.

    Raises `BadRequest` that names an input with wrong ids, too many tokens, or none.
    """
    if not isinstance(inputs[0], str) and reading.token_ids == "model":
        texts = [
            _model_ids(tokenizer, reading, _name(reading, index, of), value)
            for index, value in enumerate(inputs, first)
        ]
    else:
        said = [
            value if isinstance(value, str) else _text(reading, _name(reading, index, of), value)
            for index, value in enumerate(inputs, first)
        ]
        texts = tokenizer.encode([reading.prompt + text for text in said])
    lengths = [len(ids) for ids in texts]
    if min(lengths) > 0 and max(lengths) <= tokenizer.max_tokens:
        return Tokenized(texts, [1] * len(texts))
    return _fitted(tokenizer, inputs, reading, texts, first, of)


def tokenize_chunks(
    tokenizer: Tokenizer,
    value: Input,
    reading: Reading,
    wanted: Chunking | Sequence[Offsets],
    *,
    index: int = 0,
    of: int = 1,
) -> tuple[SpannedText, list[Chunk]]:
    """One input, for late chunking; it has to fit, because the model is to see all of it."""
    name = _name(reading, index, of)
    if not isinstance(value, str) and reading.token_ids == "model":
        raise BadRequest(f"Invalid '{name}': chunks are of texts, not of the model's token ids.")
    text = _text(reading, name, value)
    tokens = tokenizer.locate(text, reading.prompt)
    if len(tokens.ids) > tokenizer.max_tokens:
        raise too_long(name, len(tokens.ids), tokenizer.max_tokens)
    return span(name, text, tokens, wanted)


def _fitted(
    tokenizer: Tokenizer,
    inputs: Sequence[Input],
    reading: Reading,
    texts: Sequence[TokenIds],
    first: int,
    of: int,
) -> Tokenized:
    fitted: list[TokenIds] = []
    parts: list[int] = []
    cut = 0
    for index, (value, ids) in enumerate(zip(inputs, texts, strict=True), first):
        name = _name(reading, index, of)
        if len(ids) == 0:
            raise NoTokens(f"Invalid '{name}': the model has no token for it.")
        pieces = [ids]
        if len(ids) > tokenizer.max_tokens:
            if not isinstance(value, str) and reading.token_ids == "model":
                located = LocatedTokens(ids, [], 0, 0)
            else:
                located = tokenizer.locate(_text(reading, name, value), reading.prompt)
            pieces = fit(name, located, tokenizer.max_tokens, reading.truncate)
            cut += len(pieces) == 1
        fitted += pieces
        parts.append(len(pieces))
    return Tokenized(fitted, parts, cut)


def _text(reading: Reading, name: str, value: Input) -> str:
    if isinstance(value, str):
        return value
    if reading.token_ids == "reject":
        raise BadRequest(f"Invalid '{name}': this model takes text, not token ids.")
    try:
        return decode(value)
    except KeyError as error:
        raise BadRequest(f"Invalid '{name}': {error} is not a token id of cl100k_base.") from None


def _model_ids(tokenizer: Tokenizer, reading: Reading, name: str, value: Input) -> TokenIds:
    """The model's own ids, taken as they are, special tokens or none."""
    if reading.prompt:
        raise BadRequest(f"Invalid '{name}': a prompt does not go with the model's token ids.")
    for token in value:
        if not 0 <= int(token) < tokenizer.vocabulary:
            raise BadRequest(
                f"Invalid '{name}': {token} is not a token id of this model, "
                f"which has {tokenizer.vocabulary}."
            )
    return np.array(value, dtype=np.int32)


def _name(reading: Reading, index: int, of: int) -> str:
    return reading.field if of == 1 else f"{reading.field}[{index}]"
