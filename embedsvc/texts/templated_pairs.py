"""From pairs of texts to items where a decoder is asked about them.

A pair is tokenised as one text, with what the template puts around query and document, so that its
tokens are those that the libraries give. Where it is too long, tokens of document and query are
left out, and none of the template's, whose last tokens are what the model answers to.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from embedsvc.checkpoints.pair_template import PairTemplate
from embedsvc.errors import BadRequest
from embedsvc.texts.item import Item, TokenIds
from embedsvc.texts.pairs import (
    PairOptions,
    TokenizedPairs,
    beginning,
    in_groups,
    longest_first,
    name_of,
)
from embedsvc.texts.steps import Steps
from embedsvc.texts.tokenizer import Tokenizer
from embedsvc.texts.truncation import too_long


class Rendered(NamedTuple):
    """A pair as one text."""

    text: str
    query: range
    """The places of its characters."""
    document: range
    cut: bool
    """Whether a text of it is longer than what was put there."""


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
    known: dict[str, tuple[str, bool]] = {}
    distinct = len(set(queries))

    def build(group: range) -> Steps[list[tuple[Item, bool]]]:
        rendered: list[Rendered] = []
        for index in group:
            query = queries[index]
            if query is None:
                raise BadRequest(
                    f"Invalid '{options.query}': this model is asked about a query and a document."
                )
            if query not in known:
                name = name_of(options.query, index, distinct)
                known[query] = yield from beginning(
                    tokenizer, name, query, options, options.max_tokens_per_query
                )
            name = name_of(options.documents, index, len(documents))
            document = yield from beginning(
                tokenizer, name, documents[index], options, options.max_tokens_per_doc
            )
            rendered.append(_render(template, instruction, known[query], document))
        encoded = tokenizer.encode([pair.text for pair in rendered], special=False)
        return [
            _fit(tokenizer, pair, ids, options, name_of(options.documents, index, len(documents)))
            for pair, ids, index in zip(rendered, encoded, group, strict=True)
        ]

    return (yield from in_groups(sizes(template, queries, documents), options, build))


def sizes(
    template: PairTemplate, queries: Sequence[str | None], documents: Sequence[str]
) -> list[int]:
    """How many characters there are to tokenise of each pair."""
    own = sum(len(part) for part in template.plain if isinstance(part, str))
    return [own + len(q or "") + len(d) for q, d in zip(queries, documents, strict=True)]


def _render(
    template: PairTemplate, instruction: str, query: tuple[str, bool], document: tuple[str, bool]
) -> Rendered:
    texts = {"system": instruction, "query": query[0], "document": document[0]}
    parts = template.instructed if instruction else template.plain
    whole = ""
    places: dict[str, range] = {}
    for part in parts:
        text = part if isinstance(part, str) else texts[part.role]
        if not isinstance(part, str):
            places[part.role] = range(len(whole), len(whole) + len(text))
        whole += text
    return Rendered(whole, places["query"], places["document"], query[1] or document[1])


def _fit(
    tokenizer: Tokenizer, pair: Rendered, ids: TokenIds, options: PairOptions, name: str
) -> tuple[Item, bool]:
    """The item of a pair, without what is too long for the model or for the request's limits."""
    most_query, most_doc = options.max_tokens_per_query, options.max_tokens_per_doc
    limit = tokenizer.max_tokens
    if len(ids) <= limit and most_query is None and most_doc is None:
        return Item(ids), pair.cut
    (offsets,) = tokenizer.offsets([pair.text])
    query, document = (_tokens(offsets, place) for place in (pair.query, pair.document))
    wanted = [_at_most(query, most_query), _at_most(document, most_doc)]
    room = limit - (len(ids) - len(query) - len(document))
    if sum(wanted) > room and (options.truncate == "error" or room < 2):
        raise too_long(name, len(ids), limit, options.remedy, "scored")
    keep = np.ones(len(ids), bool)
    for places, kept in zip((query, document), longest_first(wanted, room), strict=True):
        left_out = places[: len(places) - kept] if options.truncate == "start" else places[kept:]
        keep[left_out] = False
    return Item(ids[keep]), pair.cut or not keep.all()


def _at_most(tokens: list[int], most: int | None) -> int:
    return len(tokens) if most is None else min(most, len(tokens))


def _tokens(offsets: list[tuple[int, int]], place: range) -> list[int]:
    """The places of the tokens of a text within a pair.

    A token counts that ends in the text, as one with the space before it does. One that reaches
    beyond its end is the template's too.
    """
    return [index for index, (_, end) in enumerate(offsets) if place.start < end <= place.stop]
