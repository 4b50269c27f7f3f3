"""From pairs of texts to items where a decoder is asked about them.

What a tokeniser makes of a pair is what it makes of one text, with what the template puts around
query and document, so tokens are those that the libraries give. The half with the query is
tokenised once for all of its documents; see `halves`. Where a pair is too long, tokens of document
and query are left out, and none of the template's, whose last tokens are what the model answers to.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from embedsvc.checkpoints.jinja_parts import Part, Role, Slot
from embedsvc.checkpoints.pair_template import PairTemplate
from embedsvc.errors import BadRequest
from embedsvc.texts.item import Item, TokenIds
from embedsvc.texts.pairs import (
    PairOptions,
    TokenizedPairs,
    abridged,
    in_groups,
    longest_first,
    name_of,
)
from embedsvc.texts.steps import Steps
from embedsvc.texts.tokenizer import Tokenizer
from embedsvc.texts.truncation import too_long

Parts = tuple[Part, ...]


class Rendered:
    """A half of a pair, or all of it, as one text."""

    def __init__(self, parts: Parts, texts: Mapping[Role, str]) -> None:
        self.text = ""
        self.ids: TokenIds | None = None
        """Its tokens, once they are known."""
        self._places: dict[Role, range] = {}
        self._offsets: list[tuple[int, int]] | None = None
        for part in parts:
            text = part if isinstance(part, str) else texts[part.role]
            if not isinstance(part, str):
                self._places[part.role] = range(len(self.text), len(self.text) + len(text))
            self.text += text

    def tokens_of(self, role: Role, tokenizer: Tokenizer) -> list[int]:
        """The places of the tokens of a text in it.

        A token counts that ends in the text, as one with the space before it does. One that reaches
        beyond its end is the template's too.
        """
        place = self._places.get(role)
        if place is None:
            return []
        if self._offsets is None:
            (self._offsets,) = tokenizer.offsets([self.text])
        ends = enumerate(end for _, end in self._offsets)
        return [index for index, end in ends if place.start < end <= place.stop]


def tokenize_templated(
    tokenizer: Tokenizer,
    template: PairTemplate,
    queries: Sequence[str | None],
    documents: Sequence[str],
    options: PairOptions,
    instruction: str = "",
) -> Steps[TokenizedPairs]:
    """Tokenise pairs, one or more: the first query with the first document, and so on.

    Raises `BadRequest` that names a text which is too long or has no query, `TooManyTokens` as soon
    as there are more than a request may have.
    """
    segments = halves(tokenizer, template, instruction)
    known: dict[str, tuple[str, bool]] = {}
    """Queries, as far as they may be needed, and whether that is not all of them."""
    shared: dict[str, Rendered] = {}
    """The half that has no document, by the query."""

    def query_of(index: int) -> Steps[tuple[str, bool]]:
        query = queries[index]
        if query is None:
            raise BadRequest(
                f"Invalid '{options.query}': this model is asked about a query and a document."
            )
        if query not in known:
            name = name_of(options.query, index, len(queries) if options.several else 1)
            most = options.max_tokens_per_query
            known[query] = yield from abridged(tokenizer, name, query, options, most)
        return known[query]

    def render(query: str, document: str) -> list[Rendered]:
        texts: dict[Role, str] = {"query": query, "document": document}
        pair: list[Rendered] = []
        for parts in segments:
            if Slot("document") in parts:
                pair.append(Rendered(parts, texts))
            else:
                if query not in shared:
                    shared[query] = Rendered(parts, texts)
                pair.append(shared[query])
        return pair

    def build(group: range) -> Steps[list[tuple[Item, bool]]]:
        rendered: list[tuple[list[Rendered], bool, str]] = []
        for index in group:
            query, query_cut = yield from query_of(index)
            name = name_of(options.documents, index, len(documents))
            document, document_cut = yield from abridged(
                tokenizer, name, documents[index], options, options.max_tokens_per_doc
            )
            rendered.append((render(query, document), query_cut or document_cut, name))
        new = {id(half): half for pair, *_ in rendered for half in pair if half.ids is None}
        encoded = tokenizer.encode([half.text for half in new.values()], special=False)
        for half, ids in zip(new.values(), encoded, strict=True):
            half.ids = ids
        return [_fit(tokenizer, pair, cut, options, name) for pair, cut, name in rendered]

    own = sum(len(part) for part in template.plain if isinstance(part, str))
    seen: set[str | None] = set()
    sizes: list[int] = []
    for query, document in zip(queries, documents, strict=True):
        again = len(segments) > 1 and query in seen
        sizes.append(own + len(document) + (0 if again else len(query or "")))
        seen.add(query)
    return (yield from in_groups(sizes, options, build))


def halves(tokenizer: Tokenizer, template: PairTemplate, instruction: str) -> tuple[Parts, ...]:
    """The template with its instruction, in two parts that are tokenised by themselves; in one
    where this tokeniser's tokens depend on both."""
    parts = template.instructed if instruction else template.plain
    filled = [instruction if part == Slot("system") else part for part in parts]
    merged: list[Part] = []
    for part in filled:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    first, second = (place for place, part in enumerate(merged) if isinstance(part, Slot))
    between = merged[first + 1]
    cut = tokenizer.cut(between) if isinstance(between, str) else None
    if cut is None:
        return (tuple(merged),)
    return (
        (*merged[: first + 1], str(between)[:cut]),
        (str(between)[cut:], *merged[second:]),
    )


def _fit(
    tokenizer: Tokenizer, pair: Sequence[Rendered], cut: bool, options: PairOptions, name: str
) -> tuple[Item, bool]:
    """The item of a pair, without what is too long for the model or for the request's limits.

    `cut`: a text of it was cut already. Raises `BadRequest`.
    """
    ids = np.concatenate([half.ids for half in pair if half.ids is not None])
    most_query, most_doc = options.max_tokens_per_query, options.max_tokens_per_doc
    limit = tokenizer.max_tokens
    if len(ids) <= limit and most_query is None and most_doc is None:
        return Item(ids), cut
    query, document = _tokens(pair, "query", tokenizer), _tokens(pair, "document", tokenizer)
    wanted = [_at_most(query, most_query), _at_most(document, most_doc)]
    room = limit - (len(ids) - len(query) - len(document))
    if sum(wanted) > room and (options.truncate == "error" or room < 2):
        raise too_long(name, len(ids), limit, options.remedy, "scored")
    keep = np.ones(len(ids), bool)
    for places, kept in zip((query, document), longest_first(wanted, room), strict=True):
        left_out = places[: len(places) - kept] if options.truncate == "start" else places[kept:]
        keep[left_out] = False
    return Item(ids[keep]), cut or not keep.all()


def _tokens(pair: Sequence[Rendered], role: Role, tokenizer: Tokenizer) -> list[int]:
    """The places of the tokens of a text among those of a pair."""
    places: list[int] = []
    start = 0
    for half in pair:
        places += [start + place for place in half.tokens_of(role, tokenizer)]
        start += 0 if half.ids is None else len(half.ids)
    return places


def _at_most(tokens: list[int], most: int | None) -> int:
    return len(tokens) if most is None else min(most, len(tokens))
