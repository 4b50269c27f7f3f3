"""From the inputs of a request to items: decoded, prompted, tokenised, and made to fit the
model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from embedsvc.bounds import REQUEST_CHARACTERS, TEXT_CHARACTERS, TOKEN_CHARACTERS
from embedsvc.catalog.cards import TokenIdsMeaning
from embedsvc.errors import BadRequest, NoTokens, TooManyTokens
from embedsvc.texts.cl100k import decode
from embedsvc.texts.item import Item, LocatedTokens, TokenIds
from embedsvc.texts.late_chunking import Chunk, find_spans
from embedsvc.texts.long_text import NamedText, tokenize_to_fit, tokenize_whole
from embedsvc.texts.pieces import PIECE
from embedsvc.texts.requests import Chunking, Offsets
from embedsvc.texts.steps import Steps
from embedsvc.texts.tokenizer import Tokenizer
from embedsvc.texts.truncation import Fitted, Rule, fit, more_than, too_long
from embedsvc.wording.plain import shown

Input = str | list[int]
"""A text, or the ids of its tokens."""
GROUP = 64
"""The most texts that are tokenised in one step."""
ID_CHARACTERS = 4
"""How many characters one of OpenAI's tokens has, on the average."""


class InputOptions(msgspec.Struct, frozen=True):
    """How the inputs of a request are to be tokenised."""

    prompt: str = ""
    rule: Rule = Rule()
    token_ids: TokenIdsMeaning = "cl100k_base"
    field: str = "input"
    """What errors call the inputs."""
    max_tokens: int | None = None
    """The most tokens of an input that are read, prompt and special tokens not counted. What is
    longer is cut, also where it would be refused if it were too long for the model."""


DEFAULT_OPTIONS = InputOptions()


@dataclass(frozen=True, slots=True)
class Tokenized:
    """The inputs of a request as items."""

    items: list[Item]
    parts: list[int]
    """How many of the items are each input's: one, or several if it was split."""
    were_cut: list[bool]
    """Whether each input was cut."""

    @property
    def cut(self) -> int:
        """How many inputs were cut."""
        return sum(self.were_cut)


def count_characters(inputs: Sequence[Input], options: InputOptions) -> int:
    """About how many characters there are to tokenise.

    >>> count_characters(["hello", "you"], InputOptions(prompt="query: "))
    22
    """
    return sum(_size(value, options) for value in inputs)


def tokenize(
    tokenizer: Tokenizer, inputs: Sequence[Input], options: InputOptions
) -> Steps[Tokenized]:
    """Tokenise the inputs of a request, one or more.

    Raises `BadRequest` that names an input with wrong ids, too many tokens, or none;
    `TooManyTokens` as soon as there are more than a request may have.
    """
    tokenizer, options = _limited(tokenizer, options)
    items: list[Item] = []
    parts: list[int] = []
    were_cut: list[bool] = []
    tokens = characters = 0
    most = max(REQUEST_CHARACTERS, TOKEN_CHARACTERS * options.rule.request_tokens)
    for group in _groups(inputs, options):
        if group.start:
            yield
        for fitted in (yield from _tokenize_group(tokenizer, inputs, options, group)):
            items += map(Item, fitted.parts)
            parts.append(len(fitted.parts))
            were_cut.append(fitted.cut)
            tokens += sum(map(len, fitted.parts))
            characters += fitted.characters + len(options.prompt)
        if tokens > options.rule.request_tokens:
            all_counted = group.stop == len(inputs)
            counted = tokens if all_counted else more_than(tokens)
            raise TooManyTokens(counted, options.rule.request_tokens)
        if characters > most:
            raise BadRequest(
                f"Invalid '{options.field}': texts of so few tokens may have {most} characters "
                "together, and these have more."
            )
    return Tokenized(items, parts, were_cut)


def tokenize_chunks(
    tokenizer: Tokenizer,
    value: Input,
    options: InputOptions,
    chunks: Chunking | Sequence[Offsets],
    *,
    index: int = 0,
    of: int = 1,
) -> Steps[tuple[Item, list[Chunk]]]:
    """Tokenise one input for late chunking. It has to fit, since the model is to see all of it.

    Raises `BadRequest` that names the input, the one at `index` `of` so many, or a chunk.
    """
    name = _name(options, index, of)
    if not isinstance(value, str) and options.token_ids == "model":
        raise BadRequest(f"Invalid '{name}': chunks are of texts, not of the model's token ids.")
    text = _text(options, name, value)
    tokens = yield from tokenize_whole(tokenizer, text, "send it in several texts")
    return find_spans(name, text.text, tokens, chunks)


def _limited(tokenizer: Tokenizer, options: InputOptions) -> tuple[Tokenizer, InputOptions]:
    """The tokeniser of a model that takes as few tokens as the options ask for."""
    if options.max_tokens is None:
        return tokenizer, options
    (prompt,) = tokenizer.encode([options.prompt])
    most = options.max_tokens + len(prompt)
    if most >= tokenizer.max_tokens:
        return tokenizer, options
    rule = options.rule
    if rule.truncate == "error":
        rule = msgspec.structs.replace(rule, truncate="end")
    return tokenizer.limited(most), msgspec.structs.replace(options, rule=rule)


def _groups(inputs: Sequence[Input], options: InputOptions) -> Iterator[range]:
    """The places of the inputs in groups, each of which can be tokenised in a step or two.

    >>> list(_groups(["text"] * 70, DEFAULT_OPTIONS))
    [range(0, 64), range(64, 70)]
    """
    start = characters = 0
    for index, value in enumerate(inputs):
        own = _size(value, options)
        if index > start and (index - start == GROUP or characters + own > PIECE):
            yield range(start, index)
            start, characters = index, 0
        characters += own
    yield range(start, len(inputs))


def _tokenize_group(
    tokenizer: Tokenizer, inputs: Sequence[Input], options: InputOptions, group: range
) -> Steps[list[Fitted]]:
    """The inputs of a group, each in parts that fit."""
    named = [(_name(options, index, len(inputs)), inputs[index]) for index in group]
    if not isinstance(inputs[0], str) and options.token_ids == "model":
        return [_model_ids(tokenizer, options, name, value) for name, value in named]
    texts = [_text(options, name, value) for name, value in named]
    results: list[Fitted] = []
    for text, ids in zip(texts, _tokenize_short(tokenizer, texts), strict=True):
        if ids is None or len(ids) > tokenizer.max_tokens:
            fitted = yield from tokenize_to_fit(tokenizer, text, options.rule)
        else:
            fitted = Fitted([ids], characters=len(text.text))
        if not len(fitted.parts[0]):
            raise NoTokens(f"Invalid '{text.name}': the model has no token for it.")
        results.append(fitted)
    return results


def _tokenize_short(tokenizer: Tokenizer, texts: Sequence[NamedText]) -> list[TokenIds | None]:
    """The tokens of those texts that are no longer than a piece, all found by one call; else
    None."""
    short = [text.prompt + text.text for text in texts if len(text.text) <= PIECE]
    encoded = iter(tokenizer.encode(short) if short else ())
    return [next(encoded) if len(text.text) <= PIECE else None for text in texts]


def _size(value: Input, options: InputOptions) -> int:
    characters = len(value) if isinstance(value, str) else ID_CHARACTERS * len(value)
    return characters + len(options.prompt)


def _text(options: InputOptions, name: str, value: Input) -> NamedText:
    """The text of an input; one of OpenAI's ids is decoded. Raises `BadRequest`."""
    if isinstance(value, str):
        return NamedText(name, value, options.prompt)
    if options.token_ids == "reject":
        raise BadRequest(f"Invalid '{name}': this model takes text, not token ids.")
    if len(value) > TEXT_CHARACTERS:
        raise BadRequest(
            f"Invalid '{name}': a text may be {TEXT_CHARACTERS} token ids, and this one is "
            f"{len(value)}."
        )
    try:
        return NamedText(name, decode(value), options.prompt, len(value))
    except KeyError as error:
        raise BadRequest(
            f"Invalid '{name}': {shown(str(error))} is not a token id of cl100k_base."
        ) from None


def _model_ids(tokenizer: Tokenizer, options: InputOptions, name: str, value: Input) -> Fitted:
    """An input of the model's own ids, which are taken as they are: no special token is added."""
    if options.prompt:
        raise BadRequest(f"Invalid '{name}': a prompt does not go with the model's token ids.")
    rule, limit, count = options.rule, tokenizer.max_tokens, len(value)
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
    return fit(name, LocatedTokens(ids, [], prefix=0, suffix=0), limit, rule)


def _name(options: InputOptions, index: int, of: int) -> str:
    """What errors call an input: `input` if it is the only one, else `input[3]`."""
    return options.field if of == 1 else f"{options.field}[{index}]"
