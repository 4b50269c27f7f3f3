"""From pairs of texts, a query and a document each, to items: tokenised, and cut to fit the model.

Where a pair is too long, the longer of its texts is cut first ("longest first", as the libraries of
Hugging Face do it). A query that many documents share is tokenised once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from embedsvc.bounds import TOKEN_CHARACTERS
from embedsvc.errors import TooManyTokens
from embedsvc.texts.item import Item, TokenIds
from embedsvc.texts.long_text import NamedText, Scan, piece_size
from embedsvc.texts.pieces import PIECE, from_end, from_start
from embedsvc.texts.steps import Steps
from embedsvc.texts.tokenizer import Tokenizer
from embedsvc.texts.truncation import PAIR_REMEDY, more_than, too_long

GROUP = 64
"""The most documents that are tokenised in one step."""
EDGE = 256
"""How many characters are kept of the end of a text at which it loses tokens."""
CutPairs = Literal["error", "end", "start"]
"""What becomes of a pair that is too long: it is refused, or its texts lose their end or start."""


class PairOptions(msgspec.Struct, frozen=True):
    """How pairs are to be tokenised."""

    truncate: CutPairs = "end"
    max_tokens_per_query: int | None = None
    """The most tokens of a query, without special tokens, whatever `truncate` says."""
    max_tokens_per_doc: int | None = None
    """The same of a document."""
    query: str = "query"
    """What errors call the queries."""
    documents: str = "documents"
    """What errors call the documents."""
    several: bool = False
    """Whether there may be several queries, so that errors say which."""
    remedy: str = PAIR_REMEDY
    """What to do about a pair that is refused, in the fields of the request's dialect."""
    request_tokens: int = 1 << 60
    """The most tokens that all pairs may have together."""


@dataclass(frozen=True, slots=True)
class TokenizedPairs:
    """Pairs as items."""

    items: list[Item]
    cut: int = 0
    """How many of them lost something."""


@dataclass(frozen=True, slots=True)
class Content:
    """The tokens of one text, without special ones, as far as they may be needed."""

    ids: TokenIds
    cut: bool = False
    """Whether there are more."""


def tokenize_pairs(
    tokenizer: Tokenizer,
    queries: Sequence[str | None],
    documents: Sequence[str],
    options: PairOptions,
) -> Steps[TokenizedPairs]:
    """Tokenise pairs, one or more: the first query with the first document, and so on.

    A document whose query is None is a text by itself. Raises `BadRequest` that names a text which
    is too long, `TooManyTokens` as soon as there are more than a request may have.
    """
    known: dict[str, Content] = {}

    def build(group: range) -> Steps[list[tuple[Item, bool]]]:
        items: list[tuple[Item, bool]] = []
        contents = yield from _documents(tokenizer, documents, options, group)
        for index, document in zip(group, contents, strict=True):
            query = queries[index]
            if query is not None and query not in known:
                name = name_of(options.query, index, len(queries) if options.several else 1)
                known[query] = yield from _content(tokenizer, name, query, options, is_query=True)
            texts = [document] if query is None else [known[query], document]
            items.append(_fit(tokenizer, texts, options, index, len(documents)))
        return items

    return (yield from in_groups(list(map(len, documents)), options, build))


def in_groups(
    sizes: Sequence[int],
    options: PairOptions,
    build: Callable[[range], Steps[list[tuple[Item, bool]]]],
) -> Steps[TokenizedPairs]:
    """The items that `build` makes of groups of pairs, by their places, and whether each was cut.

    `sizes` are how many characters there are to tokenise of each pair.

    Raises `TooManyTokens` as soon as there are more than a request may have.
    """
    items: list[Item] = []
    cut = tokens = 0
    for group in _groups(sizes):
        if group.start:
            yield
        for item, was_cut in (yield from build(group)):
            items.append(item)
            cut += was_cut
            tokens += len(item)
        if tokens > options.request_tokens:
            all_counted = group.stop == len(sizes)
            counted = tokens if all_counted else more_than(tokens)
            raise TooManyTokens(counted, options.request_tokens)
    return TokenizedPairs(items, cut)


def longest_first(lengths: Sequence[int], room: int) -> list[int]:
    """How many tokens are left of one text or two that are to have `room` tokens together.

    >>> longest_first([10, 100], 50), longest_first([100, 100], 51), longest_first([9], 5)
    ([10, 40], [25, 26], [5])
    """
    if sum(lengths) <= room:
        return list(lengths)
    if len(lengths) == 1:
        return [room]
    short, half = min(lengths), room // 2
    kept = (short, room - short) if short <= half else (half, room - half)
    return list(kept if lengths[0] <= lengths[1] else reversed(kept))


def _fit(
    tokenizer: Tokenizer, texts: list[Content], options: PairOptions, index: int, of: int
) -> tuple[Item, bool]:
    """An item that the model can take, and whether a text of it was cut. Raises `BadRequest`."""
    frame = tokenizer.frame(len(texts))
    lengths = [len(text.ids) for text in texts]
    room = tokenizer.max_tokens - frame.special
    cut = any(text.cut for text in texts)
    if sum(lengths) > room:
        if options.truncate == "error" or room < len(texts):
            name = name_of(options.documents, index, of)
            count = sum(lengths) + frame.special
            raise too_long(name, count, tokenizer.max_tokens, options.remedy, "scored")
        cut = True
    kept = longest_first(lengths, room)
    ends = (_side(text.ids, n, options) for text, n in zip(texts, kept, strict=True))
    return frame.put_together(list(ends)), cut


def _side(ids: TokenIds, kept: int, options: PairOptions) -> TokenIds:
    """The tokens that are kept, so many, of a text's."""
    return ids[len(ids) - kept :] if options.truncate == "start" else ids[:kept]


def _documents(
    tokenizer: Tokenizer, documents: Sequence[str], options: PairOptions, group: range
) -> Steps[list[Content]]:
    """The tokens of the documents of a group: short ones by one call, long ones in steps."""
    size = short(tokenizer, options.max_tokens_per_doc)
    few = [documents[i] for i in group if len(documents[i]) <= size]
    encoded = iter(tokenizer.encode(few, special=False) if few else ())
    contents: list[Content] = []
    for index in group:
        text = documents[index]
        if len(text) <= size:
            contents.append(_limited(next(encoded), options.max_tokens_per_doc, options))
        else:
            name = name_of(options.documents, index, len(documents))
            contents.append((yield from _content(tokenizer, name, text, options)))
    return contents


def short(tokenizer: Tokenizer, limit: int | None) -> int:
    """The most characters of a text that is tokenised whole. Of one that has a limit of its own
    and is longer, no more is read than that asks for."""
    return PIECE if limit is None else piece_size(min(limit, tokenizer.max_tokens))


def abridged(
    tokenizer: Tokenizer, name: str, text: str, options: PairOptions, limit: int | None
) -> Steps[tuple[str, bool]]:
    """A text without its middle, where there is more than the model can take or `limit` allows; and
    whether that is so. Raises `BadRequest`.

    Both its ends are there: words beside the text may have tokens that reach into it.
    """
    if len(text) <= short(tokenizer, limit):
        return text, False
    scan = yield from _scanned(tokenizer, name, text, options, limit)
    start, stop = scan.places
    if options.truncate == "start":
        first = next(from_start(text, EDGE)).stop
        kept, rest = text[:first] + text[start:], start - first
    else:
        last = next(from_end(text, EDGE)).start
        kept, rest = text[:stop] + text[last:], last - stop
    return (text, False) if scan.complete or rest <= 0 else (kept, True)


def _scanned(
    tokenizer: Tokenizer, name: str, text: str, options: PairOptions, limit: int | None
) -> Steps[Scan]:
    """A text that was read no further than the model can take it. Raises `BadRequest`."""
    most = tokenizer.max_tokens if limit is None else min(limit, tokenizer.max_tokens)
    pieces = from_end if options.truncate == "start" else from_start
    scan = Scan(
        tokenizer,
        NamedText(name, text, ""),
        pieces(text, piece_size(most)),
        refuse=False,
        short=short(tokenizer, limit),
    )
    yield from scan.beyond(most)
    if not scan.complete and options.truncate == "error" and limit is None:
        tokens = more_than(scan.tokens)
        raise too_long(name, tokens, tokenizer.max_tokens, options.remedy, "scored")
    return scan


def _content(
    tokenizer: Tokenizer, name: str, text: str, options: PairOptions, *, is_query: bool = False
) -> Steps[Content]:
    """The tokens of a text. Raises `BadRequest`."""
    limit = options.max_tokens_per_query if is_query else options.max_tokens_per_doc
    scan = yield from _scanned(tokenizer, name, text, options, limit)
    whole = scan.complete
    most = max(TOKEN_CHARACTERS * tokenizer.max_tokens, PIECE)
    if whole or (scan.pieces > 1 and scan.characters <= most):
        (ids,) = tokenizer.encode([text if whole else scan.text], special=False)
    else:
        ids = scan.content()
    content = _limited(ids, limit, options)
    return content if whole else Content(content.ids, cut=True)


def _limited(ids: TokenIds, most: int | None, options: PairOptions) -> Content:
    """The tokens of a text, cut to `most` if those are fewer."""
    if most is None or len(ids) <= most:
        return Content(ids)
    return Content(_side(ids, most, options), cut=True)


def _groups(sizes: Sequence[int]) -> Iterator[range]:
    """The places of pairs in groups, each of which can be tokenised in a step or two."""
    start = characters = 0
    for index, size in enumerate(sizes):
        if index > start and (index - start == GROUP or characters + size > PIECE):
            yield range(start, index)
            start, characters = index, 0
        characters += size
    yield range(start, len(sizes))


def name_of(field: str, index: int, of: int) -> str:
    """What errors call a text: `documents[3]`, or `query` if it is the only one."""
    return field if of == 1 else f"{field}[{index}]"
